"""Patients to a `datasets.DatasetDict`, split by patient.

One row per slice. Splits are by patient and depend on the patients' names and the seed only. A folder `testing/` or
`test/` of the source is the test split, and validation is a tenth of each group of the others. Without such a folder,
each group is split 70/10/20. Copies of a patient, also with rescaled intensities, stay in one split.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import datasets
import numpy as np
from tqdm.auto import tqdm

from hcm_hf.data import phantom
from hcm_hf.data.acdc import GROUPS, PHASES, Patient, check_groups, find_cohort
from hcm_hf.data.identity import find_copies
from hcm_hf.data.preprocessing import FIELD_OF_VIEW, PERCENTILES, PreparedPatient, prepare_patient
from hcm_hf.data.schema import SPLITS, features
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import replacing, require_empty, write_text
from hcm_hf.utils.process import map_processes
from hcm_hf.version import __version__


_SHARES = {"test": 0.2, "validation": 0.1}  # of a group's patients, where the source has no split
_COUNTED = (*PHASES, "other")  # of a report's slices
REPORT_FILE = "preparation.json"
# By source; a model has the licence of its training data, generated slices that of their model.
LICENSES = {"acdc": "cc-by-nc-sa-4.0", "synthetic": "apache-2.0", "generated": None}

ACDC_CITATION = (
    "O. Bernard, A. Lalande, C. Zotti, F. Cervenansky, et al. Deep Learning Techniques for Automatic MRI Cardiac "
    "Multi-structures Segmentation and Diagnosis: Is the Problem Solved? IEEE Transactions on Medical Imaging 37(11), "
    "2514-2525, 2018, doi 10.1109/TMI.2018.2837502"
)


@dataclass
class PreparationReport:
    """What is in a prepared dataset, what was left out, and why; saved beside it as `preparation.json`."""

    source: str  # "acdc", "synthetic" for the synthetic cohort, or "generated" for slices that a model made
    resolution: int  # pixels a side
    pixel_spacing: float  # mm
    seed: int  # of the split
    split_rule: str = ""  # how the patients were split, and why
    patients: dict[str, list[str]] = field(default_factory=dict)  # names per split
    slices: list[dict] = field(default_factory=list)  # number of slices per split, group and phase
    left_out: list[str] = field(default_factory=list)  # a sentence for each folder, patient or kind of slice
    notes: list[str] = field(default_factory=list)  # what a user should know: copies, voxel sizes, what the crop cuts
    generator: dict | None = None  # of generated slices: the model, its settings, and its training data's licence
    version: str = __version__  # of this package

    def __str__(self) -> str:
        counted = ("patients", "slices", *_COUNTED)
        total = {"split": "all", "group": ""} | {key: sum(row[key] for row in self.slices) for key in counted}
        head = {key: key for key in ("split", "group", *counted)}
        lines = [
            f"{row['split']:<11} {row['group']:<6} {row['patients']:>8} {row['slices']:>7} "
            + " ".join(f"{row[phase]:>6}" for phase in _COUNTED)
            for row in (head, *self.slices, total)
        ]
        lines.append(f"split: {self.split_rule}")
        lines += [f"left out: {sentence}" for sentence in self.left_out or ["nothing"]]
        lines += [f"note: {sentence}" for sentence in self.notes]
        return "\n".join(lines)


def build_dataset(
    source: str | Path,
    resolution: int = 64,
    groups: Sequence[str] | None = None,
    all_frames: bool = False,
    num_proc: int = 1,
    seed: int = 0,
) -> tuple[datasets.DatasetDict, PreparationReport]:
    """Build a dataset of slices, split by patient, from a folder or `.zip` in the ACDC layout.

    The arguments are those of `prepare_dataset`. The choice of groups does not move a patient to another split.
    Frames between ED and ES have no `phase` and no `mask`.

    Raises:
        InputError: on unreadable or incomplete files, an unknown group, or a split without patients.
    """
    groups = tuple(groups or GROUPS)
    check_groups(groups)
    at_least("seed", seed, 0)
    at_least("resolution", resolution, 16)
    cohort = find_cohort(source)
    patients = [patient for patient in cohort.patients if patient.group in groups]
    prepare = partial(prepare_patient, resolution=resolution, all_frames=all_frames)
    read = map_processes(prepare, patients, num_proc=num_proc)
    progress = tqdm(read, total=len(patients), desc="Reading patients", unit="patient")
    prepared = {patient.name: one for patient, one in zip(patients, progress, strict=True)}

    drawn = [
        name
        for name, one in prepared.items()
        if all(description.startswith(phantom.DESCRIPTION) for description in one.descriptions)
    ]
    synthetic = len(drawn) == len(prepared) > 0
    source_name = "synthetic" if synthetic else "acdc"
    report = PreparationReport(source_name, resolution, FIELD_OF_VIEW / resolution, seed, cohort.split_rule)
    if drawn and not synthetic:  # the stricter licence holds for the whole
        report.notes.append(
            f"{', '.join(drawn)} are of the synthetic cohort; the dataset counts as one of real patients"
        )
    report.left_out += cohort.left_out
    others = Counter(patient.group for patient in cohort.patients if patient.group not in groups)
    report.left_out += [f"{count} patients of group {group}, not asked for" for group, count in sorted(others.items())]
    volumes, textures = ({name: vars(one)[key] for name, one in prepared.items()} for key in ("volumes", "texture"))
    copies = find_copies(volumes, textures)
    patients = _drop_copies(patients, copies, report)
    report.patients = split_patients(patients, seed, copies)
    for split, names in report.patients.items():
        if not names:
            raise InputError(f"No patient is left in the {split} split: {source} has too few ({len(patients)}).")
    _note(report, prepared, all_frames)

    info = {
        "description": f"Short-axis cine slices, {FIELD_OF_VIEW:g} mm around the heart, clipped to percentiles "
        f"{PERCENTILES} of the volume; prepared by hcm_hf {__version__}.",
        "citation": "" if synthetic else ACDC_CITATION,
        "license": LICENSES[report.source],
    }
    rows = {split: [row for name in names for row in prepared[name].rows] for split, names in report.patients.items()}
    return join_splits(rows, report, info, GROUPS), report


def join_splits(
    rows: dict[str, list[dict]], report: PreparationReport, info: dict, groups: Sequence[str]
) -> datasets.DatasetDict:
    """Turn the rows of each split into a dataset and add their counts to the report.

    Args:
        rows: for each split one dict per slice with the columns of `features`; images and masks as PNG bytes.
        report: report of the whole dataset; names the patients of each split.
        info: fields of `datasets.DatasetInfo`.
        groups: names of all groups; the classes of the column `group`.
    """
    schema = features(groups)
    splits = datasets.DatasetDict()
    for split, names in report.patients.items():
        columns = {key: [row[key] for row in rows[split]] for key in schema}
        for key in ("image", "mask"):
            columns[key] = [png and {"bytes": png, "path": None} for png in columns[key]]
        dataset_info = datasets.DatasetInfo(features=schema, **info)
        splits[split] = datasets.Dataset.from_dict(columns, info=dataset_info, split=datasets.NamedSplit(split))
        group_of = {row["patient"]: row["group"] for row in rows[split]}
        for group in sorted(groups):
            phases = Counter(row["phase"] or "other" for row in rows[split] if row["group"] == group)
            if phases:
                counts = {"patients": sum(group_of[name] == group for name in names), "slices": phases.total()}
                counts |= {phase: phases[phase] for phase in _COUNTED}
                report.slices.append({"split": split, "group": group} | counts)
    return splits


def save_splits(splits: datasets.DatasetDict, report: PreparationReport, output_dir: str | Path) -> None:
    """Save a dataset with its report for `load_dataset`; the folder appears whole or not at all."""
    with replacing(output_dir) as temporary:
        splits.save_to_disk(temporary)
        write_text(temporary / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")


def prepare_dataset(
    acdc: str | Path,
    output_dir: str | Path,
    resolution: int = 64,
    groups: Sequence[str] | None = None,
    all_frames: bool = False,
    num_proc: int = 1,
    seed: int = 0,
) -> PreparationReport:
    """Build a dataset and save it with its report; `load_dataset` or `datasets.load_from_disk` opens it.

    Args:
        acdc: the ACDC folder or its .zip, with training/ and testing/ or one tree of patients.
        output_dir: a new or empty folder for the dataset.
        resolution: pixels a side of a field of view of 128 mm around the heart.
        groups: the groups to keep: DCM HCM MINF NOR RV; by default all of them.
        all_frames: also the frames between ED and ES of patients that have the 4-D cine.
        num_proc: number of processes that read patients.
        seed: seed of the split.

    Raises:
        InputError: as `build_dataset`, and if `output_dir` is not empty or cannot be written.
    """
    require_empty(output_dir, "output_dir")
    splits, report = build_dataset(acdc, resolution, groups, all_frames, num_proc, seed)
    save_splits(splits, report, output_dir)
    return report


def split_patients(
    patients: Sequence[Patient], seed: int, duplicates: Sequence[set[str]] = ()
) -> dict[str, list[str]]:
    """Return the names of the patients of each split; sets of `duplicates` stay together.

    Patients of a group are ordered by a hash of the seed and their name, so neither the order of files nor the
    presence of other groups moves a patient.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, half in (("test", "testing"), ("validation", "validation")):
        splits[split] += [patient.name for patient in patients if patient.half == half]
    units: dict[str, list[Patient]] = {}  # patients who stay together
    for patient in sorted(patients, key=lambda patient: patient.name):
        if patient.half in ("", "training"):
            unit = min((min(names) for names in duplicates if patient.name in names), default=patient.name)
            units.setdefault(unit, []).append(patient)
    room = {}
    for group in {members[0].group for members in units.values()}:
        count = sum(len(members) for members in units.values() if members[0].group == group)
        room[group] = {  # a group of three or more is in every split
            split: 0 if splits[split] else max(round(share * count), min(1, count // 3))
            for split, share in _SHARES.items()
        } | {"train": count}
    for unit in sorted(units, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        places, names = room[units[unit][0].group], [patient.name for patient in units[unit]]
        split = next(split for split in places if len(names) <= places[split])
        places[split] -= len(names)
        splits[split] += names
    return {split: sorted(names) for split, names in splits.items()}


def _drop_copies(patients: list[Patient], copies: list[set[str]], report: PreparationReport) -> list[Patient]:
    """Drop training patients who are also held out; note all copies in the report."""
    halves = {patient.name: patient.half for patient in patients}
    dropped = set()
    for names in copies:
        half = next((half for half in ("testing", "validation") if half in {halves[name] for name in names}), None)
        kept = sorted(name for name in names if halves[name] == half)
        others = sorted(names - set(kept))
        if half and others:
            dropped |= set(others)
            report.left_out += [f"{name}: the same volumes as {kept[0]} of the {half} half" for name in others]
        else:
            report.notes.append(f"{' and '.join(sorted(names))} hold the same volumes; they are kept in one split")
    return [patient for patient in patients if patient.name not in dropped]


def _note(report: PreparationReport, prepared: dict[str, PreparedPatient], all_frames: bool) -> None:
    kept = {name: prepared[name] for name in sorted(name for names in report.patients.values() for name in names)}
    report.notes += [note for one in kept.values() for note in one.notes]
    for what, axis in (("pixels", 0), ("distances of slices", 2)):
        sizes = {name: one.spacing[axis] for name, one in kept.items()}
        low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        report.notes.append(f"{what} of {sizes[low]:.2f} mm ({low}) to {sizes[high]:.2f} mm ({high})")
    without_cine = sum(not one.has_cine for one in kept.values())
    if all_frames and without_cine:
        report.left_out.append(f"frames between ED and ES of {without_cine} patients without a 4-D cine")
    empty = sum(one.empty_masks for one in kept.values())
    report.notes.append(f"{empty} slices have an empty mask (beyond base or apex); kept")
    cropped = 100 * np.mean([one.cropped for one in kept.values()])
    report.notes.append(f"{cropped:.2f} % of the segmented heart lies outside the {FIELD_OF_VIEW:g} mm crop")
