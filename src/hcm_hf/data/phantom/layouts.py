"""Write drawn patients in the layouts that are read: ACDC, M&Ms and M&Ms-2."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np


class Drawn(NamedTuple):
    """What was drawn of one patient."""

    number: int  # in the cohort, from 1
    group: str
    height: float  # cm
    weight: float  # kg
    num_frames: int  # of the whole cycle
    frames: tuple[int, int]  # of ED and ES, from 1
    images: np.ndarray  # (X, Y, Z, T) in ACDC's axes
    masks: np.ndarray  # (X, Y, Z, T) uint8, as ACDC numbers structures
    drawn: Sequence[int]  # frame number of each of T
    zooms: tuple[float, float, float]  # mm
    description: str  # for each file's header

    def frame(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of one frame, (X, Y, Z)."""
        place = self.drawn.index(number)
        return self.images[..., place], self.masks[..., place]


class Layout(NamedTuple):
    """How a cohort's files lie: what is written of each patient, and then of all."""

    write: Callable[[Path, Drawn], None]
    finish: Callable[[Path, Sequence[dict[str, object]]], None]


def _write_acdc(root: Path, patient: Drawn) -> None:
    folder = root / "training" / f"patient{patient.number:03d}"
    folder.mkdir(parents=True)
    for frame in patient.frames:
        for voxels, suffix in zip(patient.frame(frame), ("", "_gt"), strict=True):
            _save_as_acdc(voxels, patient, folder / f"{folder.name}_frame{frame:02d}{suffix}.nii.gz")
    if len(patient.drawn) > len(patient.frames):
        _save_as_acdc(patient.images, patient, folder / f"{folder.name}_4d.nii.gz")
    info = {"ED": patient.frames[0], "ES": patient.frames[1], "Group": patient.group, "Height": patient.height}
    info |= {"NbFrame": patient.num_frames, "Weight": patient.weight}
    text = "".join(f"{key}: {value}\n" for key, value in info.items())
    (folder / "Info.cfg").write_text(text, encoding="utf-8")


def _write_mnms(root: Path, patient: Drawn) -> None:
    """The cine, or ED and ES alone, as 4-D files; masks of other frames are empty."""
    folder = root / "Training" / "Labeled" / _code(patient.number)
    folder.mkdir(parents=True)
    labelled = np.isin(patient.drawn, patient.frames)
    _save_oblique(patient.images, patient, folder / f"{folder.name}_sa.nii.gz")
    _save_oblique(_renumbered(patient.masks) * labelled, patient, folder / f"{folder.name}_sa_gt.nii.gz")


def _write_mnms2(root: Path, patient: Drawn) -> None:
    folder = root / "dataset" / f"{patient.number:03d}"
    folder.mkdir(parents=True)
    for phase, frame in zip(("ED", "ES"), patient.frames, strict=True):
        image, mask = patient.frame(frame)
        _save_oblique(image, patient, folder / f"{folder.name}_SA_{phase}.nii.gz")
        _save_oblique(_renumbered(mask), patient, folder / f"{folder.name}_SA_{phase}_gt.nii.gz")
    if len(patient.drawn) > len(patient.frames):
        _save_oblique(patient.images, patient, folder / f"{folder.name}_SA_CINE.nii.gz")


def _finish_acdc(root: Path, patients: Sequence[dict[str, object]]) -> None:
    """Each patient has his own `Info.cfg`."""


def _finish_mnms(root: Path, patients: Sequence[dict[str, object]]) -> None:
    rows = [
        {
            "External code": _code(patient["number"]),
            "VendorName": "none",
            "Vendor": "A",
            "Centre": 1,
            "ED": patient["ed"],
            "ES": patient["es"],
            "Age": "",
            "Pathology": patient["group"],
            "Sex": "",
            "Height": patient["height"],
            "Weight": patient["weight"],
        }
        for patient in patients
    ]
    _write_csv(root / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv", rows)


def _finish_mnms2(root: Path, patients: Sequence[dict[str, object]]) -> None:
    rows = [
        {"SUBJECT_CODE": patient["number"], "DISEASE": patient["group"], "VENDOR": "none", "SCANNER": "", "FIELD": 1.5}
        for patient in patients
    ]
    _write_csv(root / "dataset_information.csv", rows)


LAYOUTS = {
    "acdc": Layout(_write_acdc, _finish_acdc),
    "mnms": Layout(_write_mnms, _finish_mnms),
    "mnms2": Layout(_write_mnms2, _finish_mnms2),
}


def _code(number: object) -> str:
    return f"P{number:05}"


def _renumbered(masks: np.ndarray) -> np.ndarray:
    """ACDC's labels as M&Ms numbers them: 1 the left cavity, 2 myocardium, 3 the right cavity."""
    return np.array([0, 3, 2, 1], np.uint8)[masks]


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _save_as_acdc(voxels: np.ndarray, patient: Drawn, path: Path) -> None:
    """Write as ACDC does: the affine only flips x and y; the voxel size stands in the header."""
    image = nibabel.Nifti1Image(voxels, None)
    image.header.set_zooms((*patient.zooms, 1.0)[: voxels.ndim])
    image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code="aligned")
    image.header["descrip"] = patient.description
    image.to_filename(path)


def _save_oblique(voxels: np.ndarray, patient: Drawn, path: Path) -> None:
    """Write as scanners do: a short axis that lies obliquely, from apex to base, with x to the right, y to the head.

    The affine says so, in mm.
    """
    base_to_apex = _unit(np.array([-0.6, 0.6, -0.5]))
    left = _unit(np.array([-0.8, -0.6, 0.0]) - base_to_apex * (np.array([-0.8, -0.6, 0.0]) @ base_to_apex))
    down = np.cross(left, base_to_apex)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([-left, -down, -base_to_apex]) * patient.zooms
    affine[:3, 3] = left * 100 + down * 100
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels[::-1, ::-1, ::-1]), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = patient.description
    image.to_filename(path)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
