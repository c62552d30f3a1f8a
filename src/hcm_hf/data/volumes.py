"""Read the volumes of a cohort's patients: images, masks, spacing and affine."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcm_hf.data.cohort import STRUCTURES, Patient, Scan
from hcm_hf.data.nifti import AnyPath, Nifti, read_nifti
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


_LABEL_ERROR = 1e-3  # largest distance of a mask's value from a whole number; scaled or resampled masks are rounded
_AXES = 4  # of a cine


@dataclass(frozen=True)
class Volume:
    """One frame of one patient."""

    image: np.ndarray  # (X, Y, Z) intensities as stored; X runs along a row of the picture
    mask: np.ndarray | None  # (X, Y, Z) uint8 indices of `STRUCTURES`; None for a frame without a segmentation
    spacing: tuple[float, float, float]  # voxel size along X, Y and Z in mm
    frame: int | None  # from 1; None if nothing says it
    phase: str | None  # "ED", "ES", or None for the frames between
    description: str  # text of the NIfTI header's field `descrip`
    file: str  # for messages
    affine: np.ndarray | None = None  # (4, 4) from voxels to the scanner; None if the header has none
    notes: tuple[str, ...] = ()  # a sentence for each oddity


def open_source(source: str) -> AnyPath:
    """A folder, or the root of a `.zip`.

    Raises:
        InputError: if it is missing or neither.
    """
    path = Path(source)
    with explained(path):
        if path.is_dir():
            return path
        if not path.exists():
            raise InputError(f"{source} does not exist; name the ACDC folder or its .zip.")
        try:
            return zipfile.Path(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise InputError(f"{source} is neither a folder nor a complete .zip ({error}); copy it again.") from error


def is_trusted(volume: Volume) -> bool:
    """Whether the affine can be the scanner's: it has the voxel size of the header.

    ACDC's as it circulates only flips x and y, with voxels of 1 mm.
    """
    return _is_trusted(volume.affine, volume.spacing)


def read_volumes(patient: Patient, all_frames: bool = False) -> Iterator[Volume]:
    """Read a patient's volumes: ED and ES, then with `all_frames` the frames between.

    A file of several frames is read once.

    Raises:
        InputError: if a file is truncated or unreadable, a frame lies beyond its file, a mask does not fit its image,
            or the voxels are constant or not finite.
    """
    files = _Files(patient)
    shape: tuple[int, ...] = ()
    seen: set[int | None] = set()
    unnumbered: list[np.ndarray] = []
    for scan in patient.scans:
        if scan.phase is not None or (all_frames and scan.frame is not None):
            volume = files.volume(scan)
            shape = shape or volume.image.shape
            seen.add(scan.frame)
            unnumbered += [volume.image] if scan.frame is None else []
            yield volume
    for path in files.cines() if all_frames else ():
        cine = files.cine(path)
        if cine.voxels.shape[:3] != shape:
            raise InputError(
                f"{files.folder.joinpath(path)} has frames of shape {cine.voxels.shape[:3]}, but those of ED and ES "
                f"{shape}."
            )
        for frame in sorted(set(range(1, cine.voxels.shape[3] + 1)) - seen):
            seen.add(frame)
            if not any(np.array_equal(cine.voxels[..., frame - 1], image) for image in unnumbered):
                yield files.volume(Scan(path, None, frame))


def read_cine(patient: Patient) -> np.ndarray | None:
    """The frames (X, Y, Z, T) of the patient's first 4-D file of several frames; None without one."""
    files = _Files(patient)
    return next((files.cine(path).voxels for path in files.cines()), None)


class _Files:
    """The files of one patient; the last file of several frames stays in memory, and so does the last mask."""

    def __init__(self, patient: Patient):
        self.patient = patient
        self.folder = open_source(patient.source)
        self._last: dict[bool, tuple[str, Nifti]] = {}
        self._axes: dict[str, int] = {}

    def read(self, path: str, is_mask: bool = False) -> Nifti:
        known = self._last.get(is_mask)
        if known is None or known[0] != path:
            known = path, read_nifti(self.folder.joinpath(path), (3, _AXES))
            self._last[is_mask], self._axes[path] = known, known[1].voxels.ndim
        return known[1]

    def cine(self, path: str) -> Nifti:
        file = self.read(path)
        if file.voxels.ndim != _AXES:
            where = self.folder.joinpath(path)
            raise InputError(
                f"{where} has shape {file.voxels.shape}; {_AXES} dimensions are needed of what has no phase and frame."
            )
        return file

    def cines(self) -> list[str]:
        """The files with several frames."""
        paths = dict.fromkeys(scan.image for scan in self.patient.scans)
        whole = {scan.image for scan in self.patient.scans if scan.phase is None and scan.frame is None}
        return [
            path for path in paths if path in whole or (self._axes.get(path) or self.read(path).voxels.ndim) == _AXES
        ]

    def volume(self, scan: Scan) -> Volume:
        file = self.frame(scan.image, scan.frame)
        path = str(self.folder.joinpath(scan.image))
        _check_voxels(file.voxels, path)
        mask, notes = (None, ()) if scan.mask is None else self.mask(scan.mask, scan.frame, file)
        return Volume(
            file.voxels, mask, file.spacing, scan.frame, scan.phase, file.description, path, file.affine, notes
        )

    def frame(self, path: str, frame: int | None, is_mask: bool = False) -> Nifti:
        """A 3-D file, or one frame of a 4-D one."""
        file = self.read(path, is_mask)
        if file.voxels.ndim == 3:
            return file
        count = file.voxels.shape[3]
        where = self.folder.joinpath(path)
        if frame is None:
            raise InputError(f"{where} has {count} frames; say which one is meant in the column frame.")
        if frame > count:
            raise InputError(f"{where} has {count} frames, and the cohort names frame {frame}; frames count from 1.")
        return Nifti(file.voxels[..., frame - 1], file.spacing, file.affine, file.description)

    def mask(self, path: str, frame: int | None, image: Nifti) -> tuple[np.ndarray, tuple[str, ...]]:
        """The labels of a mask on its image's grid, uint8, and a note if it was resampled."""
        file, where = self.frame(path, frame, is_mask=True), self.folder.joinpath(path)
        labels = _labels(file.voxels, dict(self.patient.mask_values), where)
        notes: tuple[str, ...] = ()
        if not _same_grid(file, image):
            labels = _resampled(labels, file, image, where)
            notes = ("its mask lies on another grid; resampled onto the image by the affines (nearest neighbour)",)
        if not labels.any():
            raise InputError(
                f"{where} marks no voxel; the heart cannot be located without a segmentation, so give the right one "
                "or none."
            )
        return labels, notes


def _labels(voxels: np.ndarray, mapping: dict[int, int], where: AnyPath) -> np.ndarray:
    """A mask's values as indices of `STRUCTURES`, uint8."""
    values = np.asarray(voxels, np.float64)
    labels = np.rint(values)
    known = {0: 0} | mapping if mapping else {index: index for index in range(len(STRUCTURES))}
    if not (np.abs(values - labels) <= _LABEL_ERROR).all() or not np.isin(labels, list(known)).all():
        if mapping:
            named = " ".join(f"{value}:{index}" for value, index in mapping.items())
            raise InputError(f"{where} holds values that mask_values {named} does not name; name all of them.")
        raise InputError(
            f"{where} holds values other than 0, 1, 2 and 3; it is not an ACDC segmentation, so map its values with "
            "mask_values."
        )
    mapped = np.zeros(labels.shape, np.uint8)
    for value, index in known.items():
        mapped[labels == value] = index
    return mapped


def _is_trusted(affine: np.ndarray | None, spacing: tuple[float, float, float]) -> bool:
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        return False
    return np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=0.01)


def _same_grid(mask: Nifti, image: Nifti) -> bool:
    if mask.voxels.shape != image.voxels.shape or not np.allclose(mask.spacing, image.spacing, rtol=1e-3):
        return False
    if mask.affine is None or image.affine is None:
        return True
    return np.allclose(mask.affine, image.affine, rtol=1e-3, atol=0.05)


def _resampled(labels: np.ndarray, mask: Nifti, image: Nifti, where: AnyPath) -> np.ndarray:
    """A mask on its image's grid, by the affines of both."""
    if not (_is_trusted(mask.affine, mask.spacing) and _is_trusted(image.affine, image.spacing)):
        if labels.shape != image.voxels.shape:
            raise InputError(
                f"{where} has shape {labels.shape} and its image {image.voxels.shape}; they must be equal."
            )
        raise InputError(
            f"{where} lies in another frame than its image (voxel size or affine differ); resample it onto the image."
        )
    assert mask.affine is not None and image.affine is not None
    between = np.linalg.inv(mask.affine) @ image.affine  # from the image's voxels to the mask's
    places = np.tensordot(between[:3, :3], np.indices(image.voxels.shape), 1) + between[:3, 3, None, None, None]
    nearest = np.rint(places).astype(int)
    size = np.array(labels.shape)[:, None, None, None]
    inside = ((nearest >= 0) & (nearest < size)).all(0)
    x, y, z = np.clip(nearest, 0, size - 1)
    return np.where(inside, labels[x, y, z], np.uint8(0))


def _check_voxels(voxels: np.ndarray, path: str) -> None:
    if not np.isfinite(voxels).all():
        raise InputError(f"{path} holds values that are not finite; export the volume again.")
    if voxels.min() == voxels.max():
        raise InputError(f"{path} is constant ({voxels.min()} everywhere); it holds no image.")
