"""Who a patient is: the SHA-256 of the voxels of his volumes, whatever he is called and however he is prepared."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from hcm_hf.utils.errors import InputError


Identities = dict[str, list[str]]  # by name, the SHA-256 of each of a patient's volumes

_ALIKE = 0.85  # correlation of textures: above .94 for rescaled or 8-bit copies, under .7 for different patients
TEXTURE_SIZE = 64  # pixels a side of the crop that textures are taken from


def hash_voxels(voxels: np.ndarray) -> str:
    """SHA-256 of voxel values, whatever type and order in memory they are stored in; 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(voxels, dtype=np.float32).data).hexdigest()


def identify(patients: Sequence[str], volumes: Sequence[str]) -> Identities:
    """The volumes of each patient.

    Args:
        patients: of each slice, the patient's name.
        volumes: of each slice, the SHA-256 of its volume.
    """
    known: dict[str, set[str]] = {}
    for name, volume in zip(patients, volumes, strict=True):
        known.setdefault(name, set()).add(volume)
    return {name: sorted(known[name]) for name in sorted(known)}


def shared_patients(patients: Identities, others: Identities) -> list[str]:
    """Names of the patients who have a volume in common with any of the others."""
    seen = {volume for volumes in others.values() for volume in volumes}
    return [name for name, volumes in patients.items() if seen.intersection(volumes)]


def count_patients(patients: Identities) -> int:
    """Number of different patients: one may stand under two names, his own and that of a teacher's notes."""
    return len({tuple(volumes) for volumes in patients.values()})


def read_identities(value: object, what: str) -> Identities:
    """Check what a file says of the patients that something was trained on.

    Args:
        value: what stands in the file, as JSON has it.
        what: whose patients, to begin a sentence with.

    Raises:
        InputError: if it is damaged, or from a version that knew patients by their prepared pixels.
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
    """What is left of slices without their coarse structure: noise and fine edges, which no two scans share.

    Args:
        images: (N, H, W), any grey values.

    Returns:
        float16 (N, H W), each of mean 0 and norm 1, or all 0 for a constant slice.
    """
    height, width = images.shape[1:]
    padded = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    mean = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    rows = (images - mean).reshape(len(images), -1)
    rows -= rows.mean(1, keepdims=True)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float16)


def find_copies(volumes: Mapping[str, Sequence[str]], textures: Mapping[str, np.ndarray]) -> list[set[str]]:
    """Sets of patients who share a volume: with equal voxels, or with other grey values of the same scan.

    Two patients are copies where half of one's slices have the texture of a slice of the other.

    Args:
        volumes: of each patient, the SHA-256 of each volume.
        textures: of each patient, (N, D) of `take_texture`.
    """
    if not textures:
        return []
    names = list(textures)
    everything = np.concatenate([textures[name] for name in names]).astype(np.float32)
    starts = np.cumsum([0, *(len(textures[name]) for name in names)])
    holders: dict[str, str] = {}
    sets = [{name} for name in names]

    def join(first: str, second: str) -> None:
        one, other = (next(group for group in sets if name in group) for name in (first, second))
        if one is not other:
            sets.remove(other)
            one |= other

    for index, name in enumerate(names):
        for volume in volumes[name]:
            join(holders.setdefault(volume, name), name)
        own = everything[starts[index] : starts[index + 1]]
        own = own[own.any(axis=1)]
        best = np.maximum.reduceat(own @ everything.T, starts[:-1], axis=1)  # (slices, patients)
        alike = (best > _ALIKE).mean(axis=0) >= 0.5 if len(own) else np.zeros(len(names), bool)
        for other in np.flatnonzero(alike):
            join(names[other], name)
    return [group for group in sets if len(group) > 1]
