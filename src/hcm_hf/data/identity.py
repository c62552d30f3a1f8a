"""Identify patients by the SHA-256 of their volumes' voxels, which does not depend on names or preparation."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.sparse.csgraph import connected_components

from hcm_hf.utils.errors import InputError


Identities = dict[str, list[str]]  # patient's name: SHA-256 of each of the volumes

_ALIKE = 0.85  # correlation of textures: above 0.94 for rescaled or 8-bit copies, below 0.7 for different patients
_BLOCK = 50  # patients whose textures are in memory together
TEXTURE_SIZE = 64  # pixels a side of the crop that textures are taken from


def hash_voxels(voxels: np.ndarray) -> str:
    """Return the SHA-256 of voxel values as 64 hexadecimal digits; dtype and memory order do not matter."""
    return hashlib.sha256(np.ascontiguousarray(voxels, dtype=np.float32).data).hexdigest()


def identify(patients: Sequence[str], volumes: Sequence[str]) -> Identities:
    """Return the volumes of each patient, given the patient's name and the volume's SHA-256 for each slice."""
    known: dict[str, set[str]] = {}
    for name, volume in zip(patients, volumes, strict=True):
        known.setdefault(name, set()).add(volume)
    return {name: sorted(known[name]) for name in sorted(known)}


def shared_patients(patients: Identities, others: Identities) -> list[str]:
    """Return the names of the patients who share a volume with any of the others."""
    seen = {volume for volumes in others.values() for volume in volumes}
    return [name for name, volumes in patients.items() if seen.intersection(volumes)]


def count_patients(patients: Identities) -> int:
    """Return the number of different patients; one may have a second name from a teacher's training data."""
    return len({tuple(volumes) for volumes in patients.values()})


def read_identities(value: object, what: str) -> Identities:
    """Return the training patients that a file names, as read from JSON.

    Raises:
        InputError: if they are missing, damaged or of an old version; the sentence begins with `what`.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{what} does not say which patients it was trained on; train it again.")
    for name, volumes in value.items():
        if not isinstance(volumes, list) or not all(isinstance(volume, str) for volume in volumes):
            raise InputError(
                f"{what} does not say which volumes of {name} it was trained on, as it is of an older version or "
                "damaged; train it again."
            )
    return dict(value)


def take_texture(images: np.ndarray) -> np.ndarray:
    """Return slices without their coarse structure: the noise and fine edges that no two scans share.

    A slice that is stored mirrored or turned by quarters has the same texture.

    Args:
        images: (N, S, S), any intensities.

    Returns:
        float16 (N, S S), each of mean 0 and norm 1, or all 0 for a constant slice.
    """
    images = images.astype(np.float32)
    fine = images - uniform_filter(images, (1, 3, 3), mode="nearest")
    rows = np.stack([_upright(one) for one in fine]).reshape(len(images), -1)
    rows -= rows.mean(1, keepdims=True)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float16)


def _upright(fine: np.ndarray) -> np.ndarray:
    """The one of the eight turned and mirrored forms of (S, S) with its energy at the bottom, next at the right."""
    from_middle = np.arange(len(fine)) - (len(fine) - 1) / 2
    energy = np.square(fine)
    down, right = energy.sum(1) @ from_middle, energy.sum(0) @ from_middle
    turned = fine[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return turned.T if abs(right) > abs(down) else turned


def find_copies(volumes: Mapping[str, Sequence[str]], textures: Mapping[str, np.ndarray]) -> list[set[str]]:
    """Return sets of patients who share a scan, with equal voxels or other intensities, in the order of `textures`.

    Two patients are copies if half of one's slices have the texture of a slice of the other, in any of the views.

    Args:
        volumes: SHA-256 of each volume, by patient.
        textures: textures (V, N, D) from `take_texture`, of the same V views of each slice, by patient; a few patients
            are looked at at once.
    """
    names = list(textures)
    together = np.eye(len(names), dtype=bool)
    holders: dict[str, int] = {}
    for index, name in enumerate(names):
        for volume in volumes[name]:
            together[index, holders.setdefault(volume, index)] = True
    blocks = [range(start, min(start + _BLOCK, len(names))) for start in range(0, len(names), _BLOCK)]
    for others in blocks:
        seen = [textures[names[index]] for index in others]
        starts = np.cumsum([0, *(one.shape[1] for one in seen[:-1])])
        everything = np.concatenate(seen, axis=1).astype(np.float32)
        for index, name in enumerate(names):
            for own, views in zip(textures[name].astype(np.float32), everything, strict=True):
                own = own[own.any(axis=1)]
                if len(own):
                    best = np.maximum.reduceat(own @ views.T, starts, axis=1)  # (slices, patients)
                    together[index, others] |= (best > _ALIKE).mean(axis=0) >= 0.5
    count, labels = connected_components(together, directed=False) if names else (0, np.empty(0))
    sets = [{names[index] for index in np.flatnonzero(labels == label)} for label in range(count)]
    return [group for group in sets if len(group) > 1]
