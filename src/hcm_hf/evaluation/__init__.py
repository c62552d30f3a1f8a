"""Every number comes from here: generated images and real slices to one report."""
