"""Find the heart in a volume without a mask: by a segmenter, by what moves in the cine, or in the middle."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter, label

from hcm_hf.data.cropping import prepare_volume
from hcm_hf.data.volumes import Volume


# Slices, uint8 (N, 64, 64) of 2 mm pixels around a place, to their masks, uint8 (N, 64, 64) of `STRUCTURES`.
Segmenter = Callable[[np.ndarray], np.ndarray]
Place = tuple[float, float]  # in voxels along X and Y

_SIZE = 64  # pixels a side of what a segmenter sees
_PIXEL = 2.0  # mm
_STEPS = (-60.0, -30.0, 0.0, 30.0, 60.0)  # mm from the first place to those where the segmenter looks
_ROUNDS = 3  # of looking again around what was found
_LEAST = 60  # pixels of wall and left cavity in a volume; fewer are no heart
_SMOOTH = 8.0  # mm over which motion is averaged
_MOVING = 0.5  # share of the most motion that still belongs to the heart


def image_centre(image: np.ndarray) -> Place:
    """The middle of (X, Y, ...)."""
    return (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2


def motion_centre(cine: np.ndarray, spacing: tuple[float, float, float]) -> Place:
    """The centre of what changes with time in (X, Y, Z, T): in the middle half of the slices, smoothed.

    Of several places that move, that with the most motion counts.
    """
    count = cine.shape[2]
    slices = cine[:, :, count // 4 : max(count - count // 4, count // 4 + 1)]
    motion = np.mean([np.std(slices[:, :, index].astype(np.float32), axis=-1) for index in range(slices.shape[2])], 0)
    smooth = gaussian_filter(motion, [_SMOOTH / size for size in spacing[:2]])
    peak = np.unravel_index(np.argmax(smooth), smooth.shape)
    low = smooth.min()
    pieces, _ = label(smooth - low >= _MOVING * (smooth.max() - low))
    x, y = np.nonzero(pieces == pieces[peak])
    weights = smooth[x, y] - low
    if not weights.any():  # nothing moves
        return image_centre(cine)
    return float(np.average(x, weights=weights)), float(np.average(y, weights=weights))


def segmented_centre(volume: Volume, start: Place, segmenter: Segmenter) -> Place | None:
    """The centre of the heart that a segmenter sees, or None if it sees none.

    It looks at the middle slices in windows around `start`, goes to the one with most wall and left cavity, and from
    there to the centre of what it sees in all slices.
    """
    count = volume.image.shape[2]
    bare = replace(volume, mask=None)
    middle = replace(bare, image=volume.image[:, :, count // 3 : max(2 * count // 3, count // 3 + 1)])
    size = volume.image.shape
    places = [
        (x, y)
        for x in (start[0] + step / volume.spacing[0] for step in _STEPS)
        for y in (start[1] + step / volume.spacing[1] for step in _STEPS)
        if 0 <= x < size[0] and 0 <= y < size[1]
    ]
    windows = [prepare_volume(middle, place, _SIZE)[0] for place in places]
    masks = segmenter(np.concatenate(windows)).reshape(len(places), -1, _SIZE, _SIZE)
    hearts = np.minimum((masks == 2).sum((1, 2, 3)), (masks == 3).sum((1, 2, 3)))  # of both, or it is none
    place = places[int(hearts.argmax())]
    for _ in range(_ROUNDS):
        seen = _largest(segmenter(prepare_volume(bare, place, _SIZE)[0]))
        if np.count_nonzero(seen) < _LEAST:
            return None
        rows, columns = (np.flatnonzero(seen.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        offsets = [(one[0] + one[-1]) / 2 - (_SIZE - 1) / 2 for one in (columns, rows)]
        place = (
            place[0] + offsets[0] * _PIXEL / volume.spacing[0],
            place[1] + offsets[1] * _PIXEL / volume.spacing[1],
        )
    return place


def _largest(masks: np.ndarray) -> np.ndarray:
    """The largest connected piece of what masks (Z, H, W) mark; True where it is."""
    pieces, count = label(masks > 0)
    if not count:
        return masks > 0
    return pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
