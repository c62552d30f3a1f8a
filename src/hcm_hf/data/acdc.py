"""Read patients, volumes, masks and spacing in the ACDC layout, from a folder or a `.zip`.

Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the
Problem Solved?", IEEE TMI 37(11), 2018, https://doi.org/10.1109/TMI.2018.2837502.

    [training|testing]/patientXXX/Info.cfg                      Group, ED, ES, Height (cm), Weight (kg), NbFrame
    [training|testing]/patientXXX/patientXXX_frameNN.nii.gz     ED and ES volumes; NN counts from 1
    [training|testing]/patientXXX/patientXXX_frameNN_gt.nii.gz  their masks
    [training|testing]/patientXXX/patientXXX_4d.nii.gz          the whole cine, optional
"""

import codecs
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcm_hf.data.nifti import AnyPath, Nifti, find_nifti, read_nifti
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
PHASES = ("ED", "ES")
LEVELS = ("base", "mid", "apex")  # thirds of a volume's slices, in the order stored
AXES = {"group": GROUPS, "phase": PHASES, "level": LEVELS}  # the conditions of a slice
STRUCTURES = ("background", "RV cavity", "myocardium", "LV cavity")  # the mask's values 0 to 3
# Names of folders of patients, and the part of the official split that each stands for.
HALVES = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("testing", "test"), "testing"),
}

_PATIENT = re.compile(r"patient\d+")
_MOST_INFO_BYTES = 2**16
_SEARCH_DEPTH = 4  # an official archive is ACDC/database/training/patientXXX
_LABEL_ERROR = 1e-3  # largest distance of a mask's value from a whole number; scaled or resampled masks are rounded


@dataclass(frozen=True)
class Patient:
    """One patient's `Info.cfg` and the place of the files; no voxel has been read."""

    name: str  # of the folder, such as "patient021"
    half: str  # "training", "validation" or "testing" if the source is split by folders, else ""
    group: str  # one of `GROUPS`
    phases: dict[str, int]  # frame number (from 1) of each phase, {"ED": 1, "ES": 12}
    height: float | None  # cm
    weight: float | None  # kg
    source: str  # the folder or `.zip` that was searched
    folder: str  # the patient's folder inside `source`
    notes: tuple[str, ...] = ()  # a sentence for each oddity of `Info.cfg`


@dataclass(frozen=True)
class Cohort:
    """The patients of a source, and the folders that are not used."""

    patients: list[Patient]  # sorted by name
    split_rule: str  # how they are split into training, validation and test, and why
    left_out: list[str]  # a sentence for each folder or patient that was left out


@dataclass(frozen=True)
class Volume:
    """One frame of one patient."""

    image: np.ndarray  # (X, Y, Z) intensities as stored; X runs along a row of the picture
    mask: np.ndarray | None  # (X, Y, Z) uint8 indices of `STRUCTURES`; None for a frame without a segmentation
    spacing: tuple[float, float, float]  # voxel size along X, Y and Z in mm
    frame: int  # from 1
    phase: str | None  # "ED", "ES", or None for the frames between
    description: str  # text of the NIfTI header's field `descrip`
    file: str  # for messages
    affine: np.ndarray | None = None  # (4, 4) from voxels to the scanner; None if the header has none


def check_groups(groups: Sequence[str]) -> None:
    """Raise an `InputError` for a group that ACDC does not have."""
    for group in groups:
        if group not in GROUPS:
            raise InputError(f"Unknown group '{group}' in groups; choose among {', '.join(GROUPS)}.")


def find_cohort(source: str | Path) -> Cohort:
    """Find and check the patients in a folder or a `.zip` in the ACDC layout, without reading voxels.

    Patients in a folder `testing` or `test` are held out if there are others. Patients in neither of the official
    folders are then left out.

    Raises:
        InputError: if the source is missing or not ACDC, an `Info.cfg` is incomplete, or a file is missing.
    """
    source = str(Path(source))
    folders, left_out = _search(_open(source), source)
    if not folders:
        raise InputError(f"{source} holds no ACDC patients: it should contain training/patient001/Info.cfg and so on.")
    folders.sort(key=lambda folder: folder.name)
    for before, after in zip(folders, folders[1:], strict=False):
        if before.name == after.name:
            raise InputError(f"{source} holds {after.name} twice ({before} and {after}); name the folder of one copy.")
    halves = {folder: _half(folder, source) for folder in folders}
    found = set(halves.values())
    if "testing" not in found or found == {"testing"}:
        rule = "70/10/20 of each group, as no folder testing/ or test/ beside others holds patients out"
        return Cohort([_read_info(folder, "", source) for folder in folders], rule, left_out)
    others = "" if found & {"training", "validation"} else "training"  # the half of patients in no official folder
    halves = {folder: half or others for folder, half in halves.items()}
    left_out += [
        f"{_inside(folder, source)}: neither in training/ nor in testing/"
        for folder, half in halves.items()
        if not half
    ]
    validation = "the folder validation/" if "validation" in found else "10 % of each group of the others"
    rule = f"test is the folder testing/ or test/ of the source, validation is {validation}"
    return Cohort([_read_info(folder, half, source) for folder, half in halves.items() if half], rule, left_out)


def read_volumes(patient: Patient, all_frames: bool = False) -> Iterator[Volume]:
    """Read a patient's volumes: ED and ES with their masks, then with `all_frames` the other frames of the 4-D cine.

    Each file is read once. A patient without a cine yields ED and ES only.

    Raises:
        InputError: if a file is truncated or unreadable, a mask does not fit its image, or the voxels are constant or
            not finite.
    """
    folder = _open(patient.source).joinpath(patient.folder)
    for phase, frame in patient.phases.items():
        path = find_nifti(folder, f"{patient.name}_frame{frame:02d}")
        file = read_nifti(path, ndim=3)
        _check_voxels(file.voxels, path)
        mask = _read_mask(find_nifti(folder, f"{patient.name}_frame{frame:02d}_gt"), file)
        yield Volume(file.voxels, mask, file.spacing, frame, phase, file.description, str(path), file.affine)
    path = find_nifti(folder, f"{patient.name}_4d")
    if all_frames and path.exists():
        file = read_nifti(path, ndim=4)
        if file.voxels.shape[:3] != mask.shape:
            raise InputError(
                f"{path} has frames of shape {file.voxels.shape[:3]}, but those of ED and ES {mask.shape}."
            )
        for frame in sorted(set(range(1, file.voxels.shape[3] + 1)) - set(patient.phases.values())):
            voxels = file.voxels[..., frame - 1]
            _check_voxels(voxels, path)
            yield Volume(voxels, None, file.spacing, frame, None, file.description, str(path), file.affine)


def _open(source: str) -> AnyPath:
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


def _inside(folder: AnyPath, source: str) -> str:
    """Return the folder's path inside the source, with slashes; "" for the source itself."""
    inside = folder.at if isinstance(folder, zipfile.Path) else folder.relative_to(source).as_posix()
    return "" if inside == "." else inside.strip("/")


def _half(folder: AnyPath, source: str) -> str:
    """Return the half of the nearest folder between source and patient that has such a name, else ""."""
    parts = _inside(folder, source).lower().split("/")[:-1]
    return next((HALVES[part] for part in reversed(parts) if part in HALVES), "")


def _search(folder: AnyPath, source: str, depth: int = 0) -> tuple[list[AnyPath], list[str]]:
    """Return the patient folders at or below `folder`, and a sentence for each folder without any."""
    here = f"folder {_inside(folder, source)}"
    if _PATIENT.fullmatch(folder.name):
        return [folder], []
    if folder.name.startswith((".", "__")) and depth:
        return [], [f"{here}: its name begins as those of system folders do"]
    if depth > _SEARCH_DEPTH:
        return [], [f"{here}: more than {_SEARCH_DEPTH} folders deep"]
    found, left_out = [], []
    try:
        children = sorted((child for child in folder.iterdir() if child.is_dir()), key=lambda child: child.name)
    except OSError as error:
        return [], [f"{here}: it cannot be read ({error.strerror})"]
    for child in children:
        patients, passed_over = _search(child, source, depth + 1)
        found += patients
        left_out += passed_over
    if found or not depth:
        return found, left_out
    unread = [sentence for sentence in left_out if "cannot be read" in sentence]
    return [], unread or [f"{here}: it is not called patient001 or the like, and holds no folder that is"]


def _read_info(folder: AnyPath, half: str, source: str) -> Patient:
    path = folder.joinpath("Info.cfg")
    with explained(path):
        if not path.exists():
            raise InputError(f"{path} is missing; copy it from the original ACDC.")
        with path.open("rb") as stream:
            data = stream.read(_MOST_INFO_BYTES + 1)
    if len(data) > _MOST_INFO_BYTES:
        raise InputError(f"{path} is larger than {_MOST_INFO_BYTES // 2**10} KiB; it is no Info.cfg of ACDC.")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as editors of Windows may save it
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    info = {key.strip().lower(): value.strip() for key, value in pairs}
    for key in ("Group", *PHASES):
        if key.lower() not in info:
            raise InputError(f"{path} has no line '{key}:'; add it as in the original ACDC file.")
    group = info["group"].upper()
    if group not in GROUPS:
        raise InputError(f"{path} has the group '{info['group']}', which is not one of {', '.join(GROUPS)}.")
    phases = {}
    for phase in PHASES:
        frame = info[phase.lower()]
        try:
            phases[phase] = int(frame)
        except ValueError as error:
            raise InputError(f"{path} has '{phase}: {frame}', which is not a whole number.") from error
    if phases["ED"] == phases["ES"]:
        raise InputError(f"{path} gives frame {phases['ED']} for both ED and ES; correct it.")
    for phase, number in phases.items():
        for suffix, what in (("", "image"), ("_gt", "mask")):
            with explained(folder):
                file = find_nifti(folder, f"{folder.name}_frame{number:02d}{suffix}")
                there = file.exists()
            if not there:
                raise InputError(f"{path} says {phase}: {number}, but its {what} {file.name} is not there.")
    sizes = {key: _read_size(info.get(key, "")) for key in ("height", "weight")}
    notes = [
        f"{folder.name}: Info.cfg has '{key.capitalize()}: {info[key]}', which is no number; left empty"
        for key, size in sizes.items()
        if size is None and info.get(key)
    ]
    inside = _inside(folder, source)
    return Patient(folder.name, half, group, phases, **sizes, source=source, folder=inside, notes=tuple(notes))


def _read_size(text: str) -> float | None:
    """Return a height or weight; None unless it is a positive number."""
    try:
        size = float(text.replace(",", "."))
    except ValueError:
        return None
    return size if 0 < size < float("inf") else None


def _read_mask(path: AnyPath, image: Nifti) -> np.ndarray:
    """Read the labels of a mask, uint8, and check that it fits its image."""
    mask = read_nifti(path, ndim=3)
    if mask.voxels.shape != image.voxels.shape:
        raise InputError(
            f"{path} has shape {mask.voxels.shape} and its image {image.voxels.shape}; they must be equal."
        )
    same = np.allclose(mask.spacing, image.spacing, rtol=1e-3)
    if same and mask.affine is not None and image.affine is not None:
        same = np.allclose(mask.affine, image.affine, rtol=1e-3, atol=0.05)
    if not same:
        raise InputError(
            f"{path} lies in another frame than its image (voxel size or affine differ); resample it onto the image."
        )
    values = np.asarray(mask.voxels, np.float64)
    labels = np.rint(values)
    if not (np.abs(values - labels) <= _LABEL_ERROR).all() or not np.isin(labels, range(len(STRUCTURES))).all():
        raise InputError(f"{path} holds values other than 0, 1, 2 and 3; it is not an ACDC segmentation.")
    if not labels.any():
        raise InputError(f"{path} marks no voxel; the heart cannot be located without a segmentation.")
    return labels.astype(np.uint8)


def _check_voxels(voxels: np.ndarray, path: AnyPath) -> None:
    if not np.isfinite(voxels).all():
        raise InputError(f"{path} holds values that are not finite; export the volume again.")
    if voxels.min() == voxels.max():
        raise InputError(f"{path} is constant ({voxels.min()} everywhere); it holds no image.")
