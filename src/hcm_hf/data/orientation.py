"""Bring volumes to one orientation: the patient's left at larger x, feet or back at larger y, from base to apex.

That is how all of ACDC is stored. A short-axis plane is oblique, so its axes are compared with directions between
those of the scanner: the affine then turns by quarters and mirrors, and never resamples.
"""

from dataclasses import dataclass, replace

import nibabel
import numpy as np

from hcm_hf.data.volumes import Volume, is_trusted


# Directions in the scanner's axes (right, front, head) that x, y and the slices shall follow.
_TARGETS = np.array([[-0.8, -0.6, 0.0], [0.0, -0.7, -0.7]])  # from the right to the left ventricle; down and back
_APEX = np.array([-0.6, 0.6, -0.5])  # from base to apex: left, front, feet
_THICK = 1.5  # a slice's thickness over its pixels; below, the third axis is taken for that of the slices
_OBLIQUE = 0.97  # largest cosine of the slices' direction with an axis; no short axis lies along one


@dataclass(frozen=True)
class Turn:
    """A permutation of the axes, and which of the new ones run the other way."""

    order: tuple[int, ...] = (0, 1, 2)
    flipped: tuple[int, ...] = ()

    def __call__(self, volume: Volume) -> Volume:
        """The volume turned; itself where nothing changes."""
        if self == Turn():
            return volume
        image, mask = (None if one is None else self.array(one) for one in (volume.image, volume.mask))
        assert image is not None
        x, y, z = (volume.spacing[axis] for axis in self.order)
        return replace(volume, image=image, mask=mask, spacing=(x, y, z), affine=self._affine(volume))

    def array(self, voxels: np.ndarray) -> np.ndarray:
        """(X, Y, Z, ...) turned."""
        further = range(3, voxels.ndim)
        return np.flip(voxels.transpose(*self.order, *further), self.flipped)

    def _affine(self, volume: Volume) -> np.ndarray | None:
        if volume.affine is None:
            return None
        affine = volume.affine[:, [*self.order, 3]].copy()
        for axis in self.flipped:
            last = volume.image.shape[self.order[axis]] - 1
            affine[:3, 3] += last * affine[:3, axis]
            affine[:3, axis] *= -1
        return affine


def slices_last(volume: Volume) -> Turn:
    """The turn that puts the slices along the third axis, where the affine can be trusted and they are thick."""
    thickest = int(np.argmax(volume.spacing))
    others = [axis for axis in range(3) if axis != thickest]
    thick = volume.spacing[thickest] > _THICK * max(volume.spacing[axis] for axis in others)
    return Turn((*others, thickest)) if thickest < 2 and thick and is_trusted(volume) else Turn()


def in_plane(volume: Volume) -> Turn:
    """The turn of x and y that the affine asks for; none where it cannot be trusted."""
    if volume.affine is None or not is_trusted(volume):
        return Turn()
    axes = (volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)).T  # of x, y and the slices
    fits = {}
    for order in ((0, 1), (1, 0)):
        along = [float(axes[axis] @ target) for axis, target in zip(order, _TARGETS, strict=True)]
        flipped = tuple(place for place, one in enumerate(along) if one < 0)
        fits[Turn((*order, 2), flipped)] = sum(map(abs, along))
    return max(fits, key=lambda turn: fits[turn])


def is_oblique(volume: Volume) -> bool:
    """Whether the affine can be trusted without masks, the slices being along the third axis.

    Slices along an axis of the scanner are no short axis, so that such an affine was made up on the way.
    """
    if volume.affine is None or not is_trusted(volume):
        return False
    slices = volume.affine[:3, 2] / np.linalg.norm(volume.affine[:3, 2])
    return bool(np.abs(slices).max() <= _OBLIQUE)


def goes_to_the_apex(volume: Volume) -> bool | None:
    """Whether the affine says that the slices go from base to apex; None where it cannot be trusted with it."""
    if volume.affine is None or not is_oblique(volume):
        return None
    return bool(volume.affine[:3, 2] @ _APEX > 0)


def axes_of(volume: Volume) -> str:
    """The directions of the axes by the affine, such as R A S."""
    return " ".join(nibabel.aff2axcodes(volume.affine))
