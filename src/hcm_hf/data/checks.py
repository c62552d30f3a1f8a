"""Check headers and masks of one patient's volumes for lost voxel sizes, other labels and other axes.

All 150 patients of ACDC have the right ventricle at smaller x than the left one, the base in the first slice, a left
cavity enclosed by myocardium and larger at ED, blood brighter than myocardium, and image and mask in one frame.
A mask does not show what is up: in ACDC the right ventricle lies above or below the left one.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hcm_hf.data.orientation import Turn, axes_of, goes_to_the_apex, in_plane, is_oblique, slices_last
from hcm_hf.data.volumes import Volume, is_trusted
from hcm_hf.utils.errors import InputError


RV, MYOCARDIUM, LV = 1, 2, 3
_CARDIAC = (0.5, 3.0)  # mm of a pixel; sizes outside are questioned
_MM = {"in plane": (0.3, 5.0), "between slices": (0.5, 25.0)}  # plausible voxel sizes of short-axis cine
_SIDE = -3.0  # mm in x from the left to the right ventricle's cavity; at most -9.5 in ACDC
_WIDTHS = (40.0, 200.0)  # mm in plane of the whole segmented heart; 62 to 150 in ACDC
_REACH = 30.0  # mm by which a mask is shifted to see whether it fits better
_LEAST_FIT = 0.5  # at least .52 in ACDC, and above .93 in 99 % of its volumes
_FEW = 3  # patients with one note that get a line each
_CLEAR = 0.1  # mean position of the marked area, from -1 to 1, that leaves no doubt which end is the base
_LENGTH = 30.0  # mm between the first and the last marked slice of three or more; at least 50 in ACDC


def examine(name: str, volumes: Sequence[Volume]) -> tuple[Turn, list[str]]:
    """Check a patient's volumes of ED and ES, and find how to turn them to ACDC's axes.

    The affine says how, where it can be trusted and the masks, if any, do not contradict it. Slices are ordered by the
    masks where they clearly thin out to one end, else by the affine, and by the masks where that cannot be trusted.
    What neither says stays as it is stored.

    Args:
        name: name of the patient.
        volumes: ED and ES, with or without masks.

    Returns:
        The turn of this patient's volumes, and a sentence for each oddity.

    Raises:
        InputError: if a voxel size was lost or is not in millimetres, ED and ES are the same volume, or the labels are
            not ACDC's.
    """
    sliced = slices_last(volumes[0])
    notes = [note for volume in volumes for note in volume.notes]
    if sliced != Turn():
        notes.append("slices do not lie along the third axis; turned by the affine")
    volumes = [sliced(volume) for volume in volumes]
    labelled = [volume for volume in volumes if volume.mask is not None]
    for volume in volumes:
        _check_size(volume)
    for volume in labelled:
        _check_labels(volume)
    for before, after in zip(volumes, volumes[1:], strict=False):
        if np.array_equal(before.image, after.image):
            raise InputError(
                f"{before.file} and {after.file} hold the same voxels as {before.phase} and {after.phase}; copy the "
                "missing one again, or correct which file or frame is which."
            )
    planar, odd = _planar(volumes, labelled)
    depth = sum(map(_depth, labelled))  # by the masks, which thin out to the apex
    said = {goes_to_the_apex(volume) for volume in volumes}  # by the affine
    if len({in_plane(volume) for volume in volumes}) > 1 or (not depth and len(said) > 1):
        odd.append("ED and ES lie differently by their affines; what the masks do not say is kept as stored")
    told = said.pop() if len(said) == 1 else None
    clear = abs(depth) > _CLEAR * len(labelled)
    if depth and told is not None and told != (depth < 0):
        followed = "the masks are followed" if clear else "the affine is followed, as the masks hardly thin out"
        odd.insert(0, f"masks and affine disagree on which end is the base; {followed}, so check it")
    if depth > 0 if clear or told is None else not told:
        odd.insert(0, "slices go from apex to base; turned")
        planar = Turn(planar.order, (*planar.flipped, 2))
    notes += odd
    notes += _odd_sizes(volumes)
    for volume in labelled:
        if (_labels(volume) == LV).any() and _fit(volume) < _LEAST_FIT:
            notes.append(
                f"at {volume.phase} blood is no brighter than myocardium under the mask, or more so beside it; "
                "check that the mask belongs to the image"
            )
    cavities = [np.count_nonzero(_labels(volume) == LV) * np.prod(volume.spacing) for volume in labelled]
    if len(labelled) == 2 and cavities[0] < cavities[1]:
        notes.append("the left cavity is larger at ES than at ED; check that they are not exchanged")
    order = tuple(sliced.order[axis] for axis in planar.order)
    return Turn(order, planar.flipped), [f"{name}: {note}" for note in dict.fromkeys(notes)]


def _planar(volumes: Sequence[Volume], labelled: Sequence[Volume]) -> tuple[Turn, list[str]]:
    """The turn of x and y by the affine, if the masks do not contradict it, and a sentence for what is odd."""
    asked = {in_plane(volume) for volume in volumes}
    turn = asked.pop() if len(asked) == 1 else Turn()
    if not labelled and turn != Turn() and not all(map(is_oblique, volumes)):  # and no mask says whether it is true
        straight = f"its affine of {axes_of(volumes[0])} axes lies along the scanner's, as no short axis does"
        return Turn(), [f"{straight}; kept as stored"]
    if labelled and all(map(_is_canonical, labelled)):  # of ACDC as nibabel turns it: flips without a voxel size
        turn = Turn(flipped=(0, 1))
    stored, turned = (_sides(one, labelled) for one in (Turn(), turn))
    note = f"stored with {axes_of(volumes[0])} axes by its affine; turned to ACDC's L P S" if turn != Turn() else ""
    if not labelled:
        return turn, [note] if note else []
    if stored is None or turned is None:
        side = "the mask marks no RV cavity or no LV cavity; the side of the right ventricle is not checked"
        return turn, [side, note] if note else [side]
    if turned <= _SIDE and turn != Turn():
        return turn, [note]
    if stored > _SIDE:
        return Turn(), [
            "the right ventricle does not lie at smaller x than the left one, as in ACDC: the volume is mirrored or "
            "turned; store it with L P S axes"
        ]
    return Turn(), []


def _sides(turn: Turn, labelled: Sequence[Volume]) -> float | None:
    """Mean distance in x from the left to the right ventricle's cavity of turned volumes, mm; None without both."""
    sides = [side for side in (_side(turn(volume)) for volume in labelled) if np.isfinite(side)]
    return float(np.mean(sides)) if sides else None


def orientation_of(volumes: Sequence[Volume]) -> str:
    """What says how a patient's volumes lie, for the report; they have been turned as `examine` says."""
    masks = any(volume.mask is not None for volume in volumes)
    trusted = is_trusted if masks else is_oblique
    if all(trusted(one) and in_plane(one) == Turn() and goes_to_the_apex(one) is not False for one in volumes):
        return "the affine"
    return "the masks alone" if masks else "nothing, so kept as stored"


def share_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """The notes of patients by name; what is said of more than a few is said once, with all their names."""
    names: dict[str, list[str]] = {}
    for name, sentences in notes.items():
        for sentence in sentences:
            names.setdefault(sentence.partition(": ")[2], []).append(name)
    lines = []
    for sentence, members in names.items():
        together = [", ".join(members)] if len(members) > _FEW else members
        lines += [f"{name}: {sentence}" for name in together]
    return lines


def _check_size(volume: Volume) -> None:
    if np.allclose(volume.spacing, 1, atol=1e-4):
        raise InputError(
            f"{volume.file} gives the voxel size 1 x 1 x 1 mm, so the true one was lost when it was saved (ACDC's "
            "affine does not hold it); save it with the header of the original."
        )
    for sizes, (axes, (low, high)) in zip((volume.spacing[:2], volume.spacing[2:]), _MM.items(), strict=True):
        if not all(low <= size <= high for size in sizes):
            raise InputError(
                f"{volume.file} gives a voxel size of {' x '.join(f'{size:.4g}' for size in sizes)} mm {axes}; "
                f"expected {low:g} to {high:g} mm, so write it in millimetres."
            )
    if volume.affine is None:
        return
    sizes = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if not np.allclose(sizes, 1, atol=1e-4) and not np.allclose(sizes, volume.spacing, rtol=0.01):
        first, second = (" x ".join(f"{size:.4g}" for size in one) for one in (volume.spacing, sizes))
        raise InputError(
            f"{volume.file} gives two voxel sizes, {first} mm in pixdim and {second} mm in its affine; save it with "
            "the true one in both."
        )


def _check_labels(volume: Volume) -> None:
    mask = _labels(volume)
    in_ring = _share_in_wall(mask, LV, RV)
    # Shares, not lengths: at end systole the left cavity of a thick heart is small.
    if (mask == LV).any() and (in_ring <= 0.5 or in_ring <= _share_in_wall(mask, RV, LV)):
        raise InputError(
            f"The mask of {volume.file} has label 3 outside the ring of label 2; number the structures as ACDC: 1 "
            "RV cavity, 2 myocardium, 3 LV cavity (M&Ms has 1 and 3 the other way round), or give a cohort's table "
            "mask_values 1:3 2:2 3:1."
        )


def _labels(volume: Volume) -> np.ndarray:
    """The mask of a labelled volume."""
    assert volume.mask is not None
    return volume.mask


def _marked(volume: Volume) -> list[np.ndarray]:
    """The places along X, Y and Z where the mask marks something."""
    return [np.flatnonzero(_labels(volume).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]


def _share_in_wall(mask: np.ndarray, cavity: int, other: int) -> float:
    """The share of a cavity's border that lies along the myocardium; 0 without a border."""
    wall = _contact(mask, cavity, MYOCARDIUM)
    return wall / max(wall + _contact(mask, cavity, 0) + _contact(mask, cavity, other), 1)


def _contact(mask: np.ndarray, first: int, second: int) -> int:
    """Count the edges between neighbouring pixels of two labels, within slices."""
    one, other = mask == first, mask == second
    along_x = (one[1:] & other[:-1]) | (other[1:] & one[:-1])
    along_y = (one[:, 1:] & other[:, :-1]) | (other[:, 1:] & one[:, :-1])
    return int(np.count_nonzero(along_x) + np.count_nonzero(along_y))


def _odd_sizes(volumes: Sequence[Volume]) -> Iterator[str]:
    plane = [size for volume in volumes for size in volume.spacing[:2]]
    if not all(_CARDIAC[0] <= size <= _CARDIAC[1] for size in plane):
        yield (
            f"its pixels of {min(plane):.4g} to {max(plane):.4g} mm are not those of cardiac slices "
            f"({_CARDIAC[0]:g} to {_CARDIAC[1]:g} mm); check the voxel size"
        )
    if any(np.allclose(volume.spacing[:2], 1, atol=1e-4) for volume in volumes):
        yield "its pixels are exactly 1 x 1 mm; check that the true size was not lost"
    if len({(volume.spacing, volume.image.shape) for volume in volumes}) > 1:
        yield "ED and ES differ in voxel size or shape"
    for volume in volumes:
        if volume.mask is None:
            continue
        marked = _marked(volume)
        ends = [(one[-1] - one[0] + 1) * size for one, size in zip(marked, volume.spacing, strict=True)]
        width, height, length = ends
        if not all(_WIDTHS[0] <= side <= _WIDTHS[1] for side in (width, height)):
            yield f"at {volume.phase} the heart is {width:.0f} x {height:.0f} mm wide; check the voxel size"
        if len(marked[2]) > 2 and length < _LENGTH:
            yield f"at {volume.phase} the heart is {length:.0f} mm long; check the distance of slices"


def _depth(volume: Volume) -> float:
    """Return the mean position of the marked area: -1 is the first marked slice, 1 the last; below 0 in ACDC."""
    area, marked = np.count_nonzero(_labels(volume), axis=(0, 1)), _marked(volume)[2]
    middle, reach = (marked[0] + marked[-1]) / 2, max(1, marked[-1] - marked[0]) / 2
    return (np.average(np.arange(len(area)), weights=area) - middle) / reach


def _side(volume: Volume) -> float:
    """Return the distance in x from the left to the right ventricle's cavity, mm; NaN without both."""
    right, left = (np.nonzero(_labels(volume) == label)[0] for label in (RV, LV))
    return (right.mean() - left.mean()) * volume.spacing[0] if len(right) and len(left) else np.nan


def _is_canonical(volume: Volume) -> bool:
    """Whether the affine says that x goes to the right and y to the front, with the slices along z."""
    if volume.affine is None:
        return False
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    return np.allclose(axes, np.diag([1, 1, axes[2, 2]]), atol=0.05)


def _fit(volume: Volume) -> float:
    """How much brighter the LV cavity is than the myocardium, over the most that a shifted mask finds; 1 in place."""
    plane = volume.spacing[:2]
    reach = [int(_REACH / size) for size in plane]
    marked = zip(_marked(volume), reach, strict=False)
    box = tuple(slice(max(0, one[0] - far), one[-1] + far + 1) for one, far in marked)
    image, mask = volume.image[box].astype(np.float32), _labels(volume)[box]
    blood, muscle = ((mask == label) / max(1, np.count_nonzero(mask == label)) for label in (LV, MYOCARDIUM))
    spectra = [np.fft.rfft2(one, axes=(0, 1)) for one in (image - image.mean(), blood - muscle)]
    contrast = np.fft.irfft2((spectra[0] * spectra[1].conj()).sum(2), s=mask.shape[:2], axes=(0, 1))
    x, y = (np.fft.fftfreq(n, 1 / n) * size for n, size in zip(mask.shape, plane, strict=False))
    return contrast[0, 0] / contrast[np.hypot(x[:, None], y) <= _REACH].max()
