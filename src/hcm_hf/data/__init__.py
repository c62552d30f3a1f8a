"""Cardiac MRI on disk to tensors: the ACDC layout, a synthetic cohort in it, and the prepared dataset."""
