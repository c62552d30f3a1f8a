"""Cut a fixed field of view out of a volume, and find its centre by a mask."""

import math

import numpy as np
from PIL import Image

from hcm_hf.data.cohort import STRUCTURES
from hcm_hf.data.volumes import Volume
from hcm_hf.utils.errors import InputError


FIELD_OF_VIEW = 128.0  # mm, at every resolution: 2 mm pixels at 64 px, 1 mm at 128 px
PERCENTILES = (0.5, 99.5)  # of the volume, mapped to 0 and 255


def mask_centre(mask: np.ndarray) -> tuple[float, float]:
    """Return the centre of the box around all marked voxels, in voxels; it cuts off less than the centroid."""
    x, y = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2)))
    return float(x[0] + x[-1]) / 2, float(y[0] + y[-1]) / 2


def share_outside(mask: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float]) -> float:
    """Return the share of marked voxels outside the field of view around `centre`."""
    inside = [
        np.abs(np.arange(size) - middle) * step <= FIELD_OF_VIEW / 2
        for size, middle, step in zip(mask.shape, centre, spacing, strict=False)
    ]
    return 1 - np.count_nonzero(mask[np.ix_(*inside)]) / np.count_nonzero(mask)


def prepare_volume(
    volume: Volume, centre: tuple[float, float], resolution: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut `FIELD_OF_VIEW` around `centre` out of every slice at `resolution` pixels a side.

    Images are resampled with a triangle filter, which widens for smaller sizes to avoid aliasing. A mask's pixel gets
    the structure that covers most of it under the same filter.

    Returns:
        Images and masks, uint8 (Z, resolution, resolution), values 0 to 255 and 0 to 3; masks are None for a volume
        without one.
    """
    image = volume.image.astype(np.float32)
    low, high = np.percentile(image, PERCENTILES)
    if not high > low:
        raise InputError(f"{volume.file} is constant but for under 1 % of its voxels; it holds no image.")
    slices = _crop(image, centre, volume.spacing, resolution, fill=low)
    images = np.rint(255 * np.clip((slices - low) / (high - low), 0, 1)).astype(np.uint8)
    if volume.mask is None:
        return images, None
    coverage = [
        _crop((volume.mask == value).astype(np.float32), centre, volume.spacing, resolution, fill=value == 0)
        for value in range(len(STRUCTURES))
    ]
    return images, np.argmax(coverage, axis=0).astype(np.uint8)


def middle_of_frame(image: np.ndarray, size: int) -> np.ndarray:
    """The middle half of each side of a frame (X, Y, Z), wherever the heart is: float32 (Z, size, size)."""
    width, height, _ = image.shape
    return _resize(image.astype(np.float32), (width / 4, height / 4, 3 * width / 4, 3 * height / 4), size)


def _crop(
    voxels: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float], resolution: int, fill: float
) -> np.ndarray:
    """(X, Y, Z) float32 to (Z, resolution, resolution): a box of `FIELD_OF_VIEW` mm, `fill` outside."""
    corners, padding = [], []
    for middle, size, step in zip(centre, voxels.shape, spacing, strict=False):
        low, high = (middle + 0.5 + side * FIELD_OF_VIEW / step / 2 for side in (-1, 1))  # voxel i spans [i, i + 1]
        before, after = max(0, math.ceil(-low)), max(0, math.ceil(high - size))
        corners.append((low + before, high + before))
        padding.append((before, after))
    (left, right), (top, bottom) = corners
    return _resize(np.pad(voxels, [*padding, (0, 0)], constant_values=fill), (left, top, right, bottom), resolution)


def _resize(voxels: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """A box (left, top, right, bottom) of each plane of float32 (X, Y, Z), to (Z, size, size)."""
    pictures = (Image.fromarray(np.ascontiguousarray(plane.T)) for plane in np.moveaxis(voxels, 2, 0))
    return np.stack([np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box)) for picture in pictures])
