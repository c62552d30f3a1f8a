"""Distances between the surfaces of regions."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def hausdorff_95(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile of the Hausdorff distance of two regions (HD95).

    In each direction, the 95th percentile of the distances from the surface of one region to that of the other; the
    larger of the two counts. The surface is the voxels of a region that share a side with the outside.

    Args:
        first: bool, of any number of dimensions, such as (slices, H, W).
        second: bool, of the same shape.
        spacing: distance of neighbouring voxels along each dimension, mm.

    Returns:
        mm, lower is better, 0 for equal regions. Where one region alone is empty, the diagonal of the array, which is
        the worst that could be; not a number where both are.
    """
    if not first.any() and not second.any():
        return float("nan")
    if not first.any() or not second.any():
        return float(np.linalg.norm(np.array(first.shape) * np.asarray(spacing, float)))
    surfaces = [region & ~ndimage.binary_erosion(region) for region in (first, second)]
    reached = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return float(max(np.percentile(reached[1][surfaces[0]], 95), np.percentile(reached[0][surfaces[1]], 95)))
