"""What a doctor would measure in a segmented short-axis slice: wall thickness, areas, and whether the wall closes.

Hypertrophic cardiomyopathy is a wall of 15 mm or more at end diastole: https://doi.org/10.1161/CIR.0000000000000937
(AHA/ACC 2020). Walls thicken as the heart contracts: never pool ED and ES.

Masks are whole numbers of shape (N, H, W) with the labels of ACDC: 0 background, 1 cavity of the right ventricle,
2 myocardium, 3 cavity of the left ventricle. `pixel_spacing` is the side of a square pixel in mm: one number for all
masks, or one for each, (N,). Every function raises `InputError` for masks and spacings of another kind.
"""

import numpy as np
from scipy import ndimage

from hcm_hf.utils.errors import InputError


RIGHT, MYOCARDIUM, LEFT = 1, 2, 3
RAYS = 72  # from the middle of the left ventricle's cavity
WINDOW = 6  # neighbouring rays that are averaged: 30 degrees
THICK = 15.0  # mm: the criterion

_STEP = 0.25  # pixels from one sample of a ray to the next
_CORNERS = np.ones((3, 3))  # pixels that meet at a corner are connected; by default those that share a side


def wall_thickness(masks: np.ndarray, pixel_spacing: float | np.ndarray) -> np.ndarray:
    """Greatest thickness of the left ventricle's wall: radial, averaged over 30 degrees.

    Rays start at the centroid of the cavity, and the length that a ray spends in the wall is its thickness there. Of
    cavity and wall the largest connected part counts. Between the centres of pixels the wall is interpolated linearly.
    A round wall of even thickness comes out .2 to .5 pixels too thick, since the greatest of several averages over
    whole pixels is taken: compare masks of equal spacing.

    Args:
        masks: labels, (N, H, W).
        pixel_spacing: mm.

    Returns:
        (N,), mm, 0 or more; not a number where there is no left ventricle's cavity or no myocardium.
    """
    masks, spacing = _checked(masks, pixel_spacing)
    return np.array([_thickest(mask) for mask in masks]) * spacing


def closed_wall_thickness(masks: np.ndarray, pixel_spacing: float | np.ndarray) -> np.ndarray:
    """`wall_thickness` of walls that are closed rings; not a number where one is open, see `valid_topology`."""
    return np.where(valid_topology(masks), wall_thickness(masks, pixel_spacing), np.nan)


def exceeds_threshold(thickness: np.ndarray, threshold: float = THICK) -> np.ndarray:
    """Whether a wall is as thick as the criterion or thicker; the mean over slices is their share.

    Args:
        thickness: of `wall_thickness`, (N,), mm.
        threshold: mm.

    Returns:
        (N,), 1 or 0; not a number where there is no thickness.
    """
    return np.where(np.isnan(thickness), np.nan, thickness >= threshold)


def chamber_areas(masks: np.ndarray, pixel_spacing: float | np.ndarray) -> np.ndarray:
    """Areas of the right ventricle's cavity, of the myocardium and of the left ventricle's cavity.

    Args:
        masks: labels, (N, H, W).
        pixel_spacing: mm.

    Returns:
        (N, 3), mm^2, 0 where there is none.
    """
    masks, spacing = _checked(masks, pixel_spacing)
    counts = np.stack([(masks == label).sum((1, 2)) for label in (RIGHT, MYOCARDIUM, LEFT)], axis=1)
    return counts * np.square(spacing)[:, None]


def valid_topology(masks: np.ndarray) -> np.ndarray:
    """Whether the left ventricle is one cavity in one closed ring of myocardium.

    The cavity must be connected over the sides of pixels; the myocardium must be connected, over corners too, and
    have exactly one hole, with all of the cavity in it. A ring that the edge of the image cuts is open.

    Args:
        masks: labels, (N, H, W).

    Returns:
        (N,), bool; false where there is no left ventricle's cavity or no myocardium.
    """
    masks, _ = _checked(masks, 1.0)
    return np.array([_is_closed(np.pad(mask, 1)) for mask in masks])


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient of two regions, bool arrays of one shape, such as the slices of a volume (N, H, W).

    Returns:
        In [0, 1], higher is more alike, 1 for equal regions; not a number where both are empty.
    """
    total = first.sum() + second.sum()
    return float(2 * (first & second).sum() / total) if total else float("nan")


def _thickest(mask: np.ndarray) -> float:
    """The wall's greatest thickness in pixels."""
    mask = np.pad(mask, 1)  # a wall at the edge of the image ends there
    cavity, wall = _largest_part(mask == LEFT), _largest_part(mask == MYOCARDIUM)
    if not (cavity.any() and wall.any()):
        return float("nan")
    centre = np.argwhere(cavity).mean(0)
    reach = np.linalg.norm(np.argwhere(wall) - centre, axis=1).max() + 2
    angles = np.arange(RAYS) * (2 * np.pi / RAYS)
    directions = np.stack([np.sin(angles), np.cos(angles)])[:, :, None]
    points = centre[:, None, None] + directions * np.arange(0, reach, _STEP)  # (2, rays, samples)
    lengths = ndimage.map_coordinates(wall.astype(float), points, order=1).sum(1) * _STEP
    return float(np.mean([np.roll(lengths, shift) for shift in range(WINDOW)], axis=0).max())


def _largest_part(region: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(region, _CORNERS)
    return parts == np.bincount(parts[region]).argmax() if count else region


def _is_closed(mask: np.ndarray) -> bool:
    """Whether a mask with background all around has a valid topology."""
    cavity, wall = mask == LEFT, mask == MYOCARDIUM
    if ndimage.label(cavity)[1] != 1 or ndimage.label(wall, _CORNERS)[1] != 1:
        return False
    rest, count = ndimage.label(~wall)  # the outside, which holds the corner, and the wall's holes
    return count == 2 and bool((rest[cavity] != rest[0, 0]).all())


def _checked(masks: np.ndarray, pixel_spacing: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The masks, and their spacing as one number each."""
    if masks.ndim != 3 or 0 in masks.shape or not np.issubdtype(masks.dtype, np.integer):
        raise InputError(f"masks must be whole numbers of shape (N, H, W), not {masks.dtype} of shape {masks.shape}.")
    if masks.min() < 0 or masks.max() > LEFT:
        raise InputError(f"masks holds labels from {masks.min()} to {masks.max()}; expected 0 to {LEFT}.")
    spacing = np.asarray(pixel_spacing, float)
    if spacing.shape not in ((), (len(masks),)):
        raise InputError(f"pixel_spacing must be one number or {len(masks)}, not of shape {spacing.shape}.")
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"pixel_spacing must be above 0 mm and finite, not {pixel_spacing}.")
    return masks, np.broadcast_to(spacing, len(masks))
