"""The ACDC layout on disk: patients, volumes, masks and spacing, from a folder or a `.zip` of it.

Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the
Problem Solved?", IEEE TMI 37(11), 2018, https://doi.org/10.1109/TMI.2018.2837502.

    [training|testing]/patientXXX/Info.cfg                      Group, ED, ES, Height (cm), Weight (kg), NbFrame
    [training|testing]/patientXXX/patientXXX_frameNN.nii.gz     ED and ES volumes; NN counts from 1
    [training|testing]/patientXXX/patientXXX_frameNN_gt.nii.gz  their masks
    [training|testing]/patientXXX/patientXXX_4d.nii.gz          the whole cine, optional
"""

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from hcm_hf.errors import InputError


GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
PHASES = ("ED", "ES")
LEVELS = ("base", "mid", "apex")  # thirds of a volume's slices, in the order stored
AXES = {"group": GROUPS, "phase": PHASES, "level": LEVELS}  # what a slice can be asked to show
STRUCTURES = ("background", "RV cavity", "myocardium", "LV cavity")  # the mask's values 0 to 3
HALVES = ("training", "testing")

_PATIENT = re.compile(r"patient\d+")
_SEARCH_DEPTH = 4  # an official archive is ACDC/database/training/patientXXX
# What Python, zipfile (a damaged or encrypted member) and nibabel raise for files that are not whole.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile),
    *(nibabel.filebasedimages.ImageFileError, HeaderDataError, WrapStructError),
)


@dataclass(frozen=True)
class Patient:
    """One patient's `Info.cfg` and where the files are; no voxel has been read.

    Attributes:
        name: the folder's name, such as "patient021".
        half: "training" or "testing" where the source has both, else "".
        group: one of `GROUPS`.
        phases: frame number (from 1) of each phase, `{"ED": 1, "ES": 12}`.
        height: in cm, None where unknown.
        weight: in kg, None where unknown.
        source: the folder or `.zip` that was searched.
        folder: the patient's folder inside `source`.
    """

    name: str
    half: str
    group: str
    phases: dict[str, int]
    height: float | None
    weight: float | None
    source: str
    folder: str


@dataclass(frozen=True)
class Volume:
    """One frame of one patient.

    Attributes:
        image: (X, Y, Z) intensities as stored, X along a row of the picture.
        mask: (X, Y, Z) uint8 with the indices of `STRUCTURES`, None for a frame without a segmentation.
        spacing: voxel size along X, Y and Z in mm.
        frame: number of the frame, from 1.
        phase: "ED", "ES", or None for the frames between.
        description: what the image's NIfTI header says of itself.
        file: the file it came from, for messages.
    """

    image: np.ndarray
    mask: np.ndarray | None
    spacing: tuple[float, float, float]
    frame: int
    phase: str | None
    description: str
    file: str


def find_patients(source: str | Path) -> list[Patient]:
    """Find and check the patients in a folder or a `.zip` in the ACDC layout, sorted by name; reads no voxels.

    Raises:
        InputError: if nothing is there, it is not ACDC, an `Info.cfg` is incomplete, or a file it names is missing.
    """
    source = str(Path(source))
    root = _open(source)
    folders = sorted(_patient_folders(root), key=lambda folder: folder.name)
    if not folders:
        raise InputError(f"{source} holds no ACDC patients: it should contain training/patient001/Info.cfg and so on.")
    for before, after in zip(folders, folders[1:], strict=False):
        if before.name == after.name:
            raise InputError(f"{source} holds {after.name} twice ({before} and {after}); name the folder of one copy.")
    halves = {_half(folder) for folder in folders}
    official = halves == set(HALVES)
    return [_read_info(folder, _half(folder) if official else "", source) for folder in folders]


def read_volumes(patient: Patient, all_frames: bool = False) -> Iterator[Volume]:
    """Read a patient's volumes: ED and ES with their masks, then, if asked, the frames of the 4-D cine between them.

    Each file is read once. A patient without a cine yields ED and ES alone.

    Raises:
        InputError: if a file is truncated or unreadable, a mask does not fit its image, or the voxels are constant or
            not finite; the sentence names the file.
    """
    folder = _folder(patient)
    for phase, frame in patient.phases.items():
        path = _image_path(folder, f"{patient.name}_frame{frame:02d}")
        image, spacing, description = _read_nifti(path, ndim=3)
        mask_path = _image_path(folder, f"{patient.name}_frame{frame:02d}_gt")
        mask, *_ = _read_nifti(mask_path, ndim=3)
        if mask.shape != image.shape:
            raise InputError(f"{mask_path} has shape {mask.shape} and its image {image.shape}; they must be equal.")
        if not np.isin(mask, range(len(STRUCTURES))).all():
            raise InputError(f"{mask_path} holds values other than 0, 1, 2 and 3; it is not an ACDC segmentation.")
        if not mask.any():
            raise InputError(f"{mask_path} marks no voxel; the heart cannot be located without a segmentation.")
        _check_voxels(image, path)
        yield Volume(image, mask.astype(np.uint8), spacing, frame, phase, description, str(path))
    cine_path = _image_path(folder, f"{patient.name}_4d")
    if all_frames and cine_path.exists():
        cine, spacing, description = _read_nifti(cine_path, ndim=4)
        if cine.shape[:3] != image.shape:
            raise InputError(f"{cine_path} has frames of shape {cine.shape[:3]}, not {image.shape} as {path.name}.")
        for index in sorted(set(range(cine.shape[3])) - {frame - 1 for frame in patient.phases.values()}):
            _check_voxels(cine[..., index], cine_path)
            yield Volume(cine[..., index], None, spacing, index + 1, None, description, str(cine_path))


def _open(source: str | Path) -> Path | zipfile.Path:
    path = Path(source)
    if path.is_dir():
        return path
    if not path.exists():
        raise InputError(f"{source} does not exist; name the ACDC folder or its .zip.")
    try:
        return zipfile.Path(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise InputError(f"{source} is neither a folder nor a complete .zip ({error}); fetch it again.") from error


def _folder(patient: Patient) -> Path | zipfile.Path:
    return _open(patient.source).joinpath(patient.folder)


def _half(folder: Path | zipfile.Path) -> str:
    return folder.parent.name.lower()


def _patient_folders(folder: Path | zipfile.Path, depth: int = 0) -> Iterator[Path | zipfile.Path]:
    """Patient folders at or below `folder`; hidden ones and those that macOS adds to archives are passed over."""
    if _PATIENT.fullmatch(folder.name):
        yield folder
    elif depth < _SEARCH_DEPTH:
        for child in folder.iterdir():
            if child.is_dir() and not child.name.startswith((".", "__")):
                yield from _patient_folders(child, depth + 1)


def _read_info(folder: Path | zipfile.Path, half: str, source: str) -> Patient:
    path = folder.joinpath("Info.cfg")
    if not path.exists():
        raise InputError(f"{path} is missing; every patient folder of ACDC has one.")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    info = {key.strip(): value.strip() for key, value in pairs}
    for key in ("Group", *PHASES):
        if key not in info:
            raise InputError(f"{path} has no line '{key}:'; add it as in the original ACDC file.")
    if info["Group"] not in GROUPS:
        raise InputError(f"{path} has the group '{info['Group']}', which is not one of {', '.join(GROUPS)}.")
    phases = {phase: _number(info[phase], phase, path, int) for phase in PHASES}
    for phase, frame in phases.items():
        for suffix, what in (("", "image"), ("_gt", "mask")):
            file = _image_path(folder, f"{folder.name}_frame{frame:02d}{suffix}")
            if not file.exists():
                raise InputError(f"{path} says {phase}: {frame}, but its {what} {file.name} is not there.")
    height, weight = (_number(info[key], key, path) if info.get(key) else None for key in ("Height", "Weight"))
    return Patient(
        name=folder.name,
        half=half,
        group=info["Group"],
        phases=phases,
        height=height,
        weight=weight,
        source=source,
        folder=str(folder)[len(source) :].strip("/\\"),
    )


def _number(text: str, key: str, path: Path | zipfile.Path, kind: type = float) -> float:
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{path} has '{key}: {text}', which is not {what}.") from error


def _image_path(folder: Path | zipfile.Path, stem: str) -> Path | zipfile.Path:
    """The compressed file, or the plain one where only that is there, as on some mirrors."""
    plain = folder.joinpath(f"{stem}.nii")
    return plain if plain.exists() else folder.joinpath(f"{stem}.nii.gz")


def _read_nifti(path: Path | zipfile.Path, ndim: int) -> tuple[np.ndarray, tuple[float, float, float], str]:
    """Voxels in the type that they are stored in, spacing in mm, and the header's description."""
    try:
        data = path.read_bytes()
        file = nibabel.Nifti1Image.from_bytes(gzip.decompress(data) if path.name.endswith(".gz") else data)
        voxels = np.asarray(file.dataobj)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read as NIfTI ({error}); fetch the file again.") from error
    if voxels.ndim != ndim or 0 in voxels.shape:
        raise InputError(f"{path} has shape {voxels.shape}; {ndim} dimensions are needed.")
    spacing = tuple(float(size) for size in file.header.get_zooms()[:3])
    if not all(0 < size < np.inf for size in spacing):
        raise InputError(f"{path} gives the voxel size {spacing} mm; positive numbers are needed.")
    return voxels, spacing, bytes(file.header["descrip"]).split(b"\0")[0].decode("ascii", "replace")


def _check_voxels(voxels: np.ndarray, path: Path | zipfile.Path) -> None:
    if not np.isfinite(voxels).all():
        raise InputError(f"{path} holds values that are not finite; export the volume again.")
    if voxels.min() == voxels.max():
        raise InputError(f"{path} is constant ({voxels.min()} everywhere); it holds no image.")
