"""Patients to a `datasets.DatasetDict`, split by patient.

One row per slice. Splits are by patient and depend on the patients' names and the seed only. A folder `testing/` or
`test/` of the source, or the column `half` of a table, is the test split, and validation is a tenth of each group of
the others. Without it, each group of a cohort is split 70/10/20. Copies of a patient, also with rescaled intensities,
stay in one split. Each patient's rows go to a file as soon as they are made, so that memory does not grow with them.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import datasets
import numpy as np
import pyarrow
import tyro
from tqdm.auto import tqdm

from hcm_hf.data import phantom
from hcm_hf.data.acdc import COHORT as ACDC
from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.checks import share_notes
from hcm_hf.data.cohort import PHASES, Cohort, Patient, join_cohorts, parse_mask_values
from hcm_hf.data.cropping import FIELD_OF_VIEW, PERCENTILES
from hcm_hf.data.identity import find_copies
from hcm_hf.data.layouts import read_cohort
from hcm_hf.data.location import Segmenter
from hcm_hf.data.parquet import to_table
from hcm_hf.data.preprocessing import LOCATED_BY, PreparedPatient, prepare_patient
from hcm_hf.data.schema import features
from hcm_hf.data.splits import check_group_sizes, drop_copies, split_patients
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.citations import ACDC_CITATION
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained, replacing, require_empty, write_sums, write_text
from hcm_hf.utils.process import map_processes
from hcm_hf.version import __version__


_COUNTED = (*PHASES, "other")  # of a report's slices
REPORT_FILE = "preparation.json"
# By source; a model has the licence of its training data, generated slices that of their model. That of other patients
# is for their owner to say.
LICENSES = {"acdc": "cc-by-nc-sa-4.0", "synthetic": "apache-2.0", "generated": None, "other": None}


@dataclass
class PreparationReport:
    """What is in a prepared dataset, what was left out, and why; saved beside it as `preparation.json`."""

    source: str  # "acdc", "synthetic" for drawn patients, "generated" for slices that a model made, or "other"
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
    source: str | Path | Cohort,
    resolution: int = 64,
    groups: Sequence[str] | None = None,
    all_frames: bool = False,
    num_proc: int = 1,
    seed: int = 0,
    segmenter: Segmenter | None = None,
) -> tuple[datasets.DatasetDict, PreparationReport]:
    """Build a dataset of slices in memory, split by patient.

    The source is a folder or `.zip` in the ACDC layout, or a cohort; the other arguments are those of
    `prepare_dataset`. The choice of groups does not move a patient to another split. Frames between ED and ES have no
    `phase` and no `mask`.

    Raises:
        InputError: on unreadable or incomplete files, an unknown group, or a split without patients.
    """
    cohort = join_cohorts([source]) if isinstance(source, Cohort) else find_cohort(source)  # whose names are apart
    chosen = _choose(cohort, groups, resolution, seed)
    with TemporaryDirectory() as folder:
        prepare = _Preparation(Path(folder), cohort.group_names, resolution, all_frames, segmenter)
        report, info = _prepare(chosen, prepare, num_proc, seed)
        return _open_splits(report, info, Path(folder), in_memory=True), report


def count_slices(
    report: PreparationReport, split: str, group_of: Mapping[str, str], phases: Mapping[str, Counter]
) -> None:
    """Add the number of patients and slices of each group of a split to the report."""
    for group in sorted(phases):
        if phases[group]:
            counts = {"patients": sum(one == group for one in group_of.values()), "slices": phases[group].total()}
            counts |= {phase: phases[group][phase if phase in PHASES else None] for phase in _COUNTED}
            report.slices.append({"split": split, "group": group} | counts)


def save_splits(splits: datasets.DatasetDict, report: PreparationReport, output_dir: str | Path) -> None:
    """Save a dataset with its report for `load_dataset`; the folder appears whole or not at all."""
    with replacing(output_dir) as temporary:
        splits.save_to_disk(temporary)
        write_text(temporary / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
        write_sums(temporary)


def prepare_dataset(
    acdc: str | Path | None,
    output_dir: str | Path,
    resolution: int = 64,
    groups: Sequence[str] | None = None,
    all_frames: bool = False,
    num_proc: int = 1,
    seed: int = 0,
    cohort: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = (),
    mask_values: Sequence[str] = (),
    segmenter: Callable | None = None,
) -> PreparationReport:
    """Build a dataset and save it with its report; `load_dataset` or `datasets.load_from_disk` opens it.

    Args:
        acdc: the ACDC folder or its .zip, with training/ and testing/ or one tree of patients.
        output_dir: a new or empty folder for the dataset.
        resolution: pixels a side of a field of view of 128 mm around the heart.
        groups: the groups to keep; by default all of them.
        all_frames: also the frames between ED and ES of patients that have the 4-D cine.
        num_proc: number of processes that read patients.
        seed: seed of the split.
        cohort: a table with a row for each volume, or a folder of M&Ms, M&Ms-2 or ACDC, which `hcm-hf inspect`
            describes; once for each cohort.
        mask_values: what the values of a table's masks stand for, such as 85:1 170:2 255:3, where 1 is the right
            ventricle's cavity, 2 myocardium and 3 the left one's; by default these three values themselves.
        segmenter: segments slices of 2 mm pixels, to find the heart where there is no mask. The command takes the
            trained one that comes with this package, which is `hcm_hf.evaluation.segmentation.find_segmenter(None)`.

    Raises:
        InputError: as `build_dataset`, and if `output_dir` is not empty or cannot be written.
    """
    require_empty(output_dir, "output_dir")
    whole = _read_cohorts(acdc, cohort, mask_values)
    chosen = _choose(whole, groups, resolution, seed)
    place = Path(output_dir).absolute()
    there = next(folder for folder in place.parents if folder.is_dir())  # on the disk that has room for the dataset
    with explained(output_dir, "write"), TemporaryDirectory(prefix=".hcm_hf-", dir=there) as folder:
        prepare = _Preparation(Path(folder), whole.group_names, resolution, all_frames, segmenter)
        report, info = _prepare(chosen, prepare, num_proc, seed)
        save_splits(_open_splits(report, info, Path(folder)), report, output_dir)
    return report


def _read_cohorts(acdc: str | Path | None, tables: Sequence[Path], mask_values: Sequence[str]) -> Cohort:
    """All patients that were named."""
    if mask_values and not tables:
        raise InputError(f"mask_values {' '.join(mask_values)} is for `cohort`; give that too.")
    if mask_values and all(Path(table).is_dir() for table in tables):
        raise InputError(
            f"mask_values {' '.join(mask_values)} is for tables, and `cohort` names folders; leave it out."
        )
    if acdc is None and not tables:
        raise InputError("Give `acdc` or `cohort`: there are no patients without.")
    mapping = dict(parse_mask_values(mask_values)) if mask_values else None
    cohorts = [] if acdc is None else [find_cohort(acdc)]
    return join_cohorts(cohorts + [read_cohort(table, mapping) for table in tables])


def _choose(cohort: Cohort, groups: Sequence[str] | None, resolution: int, seed: int) -> Cohort:
    """The cohort without the groups that were not asked for, after a check of the arguments and of their names."""
    Vocabulary(cohort.group_names).check()
    wanted = tuple(groups or cohort.group_names)
    for group in wanted:
        if group not in cohort.group_names:
            raise InputError(f"Unknown group '{group}' in groups; choose among {', '.join(cohort.group_names)}.")
    at_least("seed", seed, 0)
    at_least("resolution", resolution, 16)
    patients = [patient for patient in cohort.patients if patient.group in wanted]
    check_group_sizes(patients)
    others = Counter(patient.group for patient in cohort.patients if patient.group not in wanted)
    left_out = [f"{count} patients of group {group}, not asked for" for group, count in sorted(others.items())]
    return replace(cohort, patients=patients, left_out=cohort.left_out + left_out)


@dataclass(frozen=True)
class _Preparation:
    """What a process does with a patient: his rows and textures go to files, the facts come back."""

    folder: Path
    groups: tuple[str, ...]
    resolution: int
    all_frames: bool
    segmenter: Segmenter | None

    def __call__(self, index: int, patient: Patient) -> tuple[PreparedPatient, Counter]:
        prepared = prepare_patient(patient, self.resolution, self.all_frames, self.segmenter)
        table = to_table(prepared.rows, features(self.groups))
        stream = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        texture = io.BytesIO()
        np.save(texture, prepared.texture)
        _rows_file(self.folder, index).write_bytes(stream.getvalue())
        _texture_file(self.folder, index).write_bytes(texture.getvalue())
        phases = Counter(row["phase"] for row in prepared.rows)
        return replace(prepared, rows=[], texture=prepared.texture[:, :0]), phases


def _rows_file(folder: Path, index: int) -> Path:
    return folder / f"{index}.arrow"


def _texture_file(folder: Path, index: int) -> Path:
    return folder / f"{index}.npy"


class _Textures(Mapping[str, np.ndarray]):
    """The textures of patients, read from their files when they are asked for."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self._files = {name: _texture_file(folder, index) for index, name in enumerate(names)}

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self._files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _prepare(
    cohort: Cohort, prepare: _Preparation, num_proc: int, seed: int
) -> tuple[PreparationReport, dict[str, str | None]]:
    """Read all patients, write their rows, split them; return the report and fields of `datasets.DatasetInfo`."""
    patients = cohort.patients
    read = map_processes(prepare, range(len(patients)), patients, num_proc=num_proc)
    progress = tqdm(read, total=len(patients), desc="Reading patients", unit="patient")
    facts, phases = {}, {}
    for patient, (one, counted) in zip(patients, progress, strict=True):
        facts[patient.name], phases[patient.name] = one, counted
    drawn = [
        patient
        for patient in patients
        if all(description.startswith(phantom.DESCRIPTION) for description in facts[patient.name].descriptions)
    ]
    real = {patient.cohort for patient in patients} if len(drawn) < len(patients) else set()
    source = "other" if real - {ACDC} else "acdc" if real else "synthetic"
    spacing = FIELD_OF_VIEW / prepare.resolution
    report = PreparationReport(source, prepare.resolution, spacing, seed, cohort.split_rule)
    if drawn and real:  # the stricter licence holds for the whole
        names = ", ".join(patient.name for patient in drawn)
        report.notes.append(f"{names} are of the synthetic cohort; the dataset counts as one of real patients")
    volumes = {name: one.volumes for name, one in facts.items()}
    copies = find_copies(volumes, _Textures(prepare.folder, list(facts)))
    patients, left_out, notes = drop_copies(patients, copies)
    report.left_out += cohort.left_out + left_out
    report.notes += notes
    report.patients = split_patients(patients, seed, copies)
    for split, members in report.patients.items():
        if not members:
            raise InputError(
                f"No patient is left in the {split} split: {cohort.patients[0].source if cohort.patients else 'it'} "
                f"has too few ({len(patients)})."
            )
    _note(report, facts, prepare.all_frames)
    index_of = {name: index for index, name in enumerate(facts)}
    group_of = {patient.name: patient.group for patient in patients}
    for split, members in report.patients.items():
        counts: dict[str, Counter] = {group: Counter() for group in prepare.groups}
        with (prepare.folder / f"{split}.arrow").open("wb") as file:
            _join_files([_rows_file(prepare.folder, index_of[name]) for name in members], file)
        for name in members:
            counts[group_of[name]] += phases[name]
        count_slices(report, split, {name: group_of[name] for name in members}, counts)
    info = {
        "description": f"Short-axis cine slices, {FIELD_OF_VIEW:g} mm around the heart, clipped to percentiles "
        f"{PERCENTILES} of the volume; prepared by hcm_hf {__version__}.",
        "citation": ACDC_CITATION if ACDC in real else "",
        "license": LICENSES["acdc"] if ACDC in real else LICENSES[source],
    }
    return report, info


def _join_files(paths: Sequence[Path], file: io.BufferedWriter) -> None:
    """Write the rows of some patients into one file, one patient in memory at a time."""
    writer = None
    for path in paths:
        with pyarrow.ipc.open_stream(path.read_bytes()) as stream:
            writer = writer or pyarrow.ipc.new_stream(file, stream.schema)
            writer.write_table(stream.read_all())
        path.unlink()
    if writer is not None:
        writer.close()


def _open_splits(
    report: PreparationReport, info: Mapping, folder: Path, in_memory: bool = False
) -> datasets.DatasetDict:
    """The splits whose files `_prepare` wrote."""
    splits = datasets.DatasetDict()
    for split in report.patients:
        file = str(folder / f"{split}.arrow")
        dataset = datasets.Dataset.from_file(file, split=datasets.NamedSplit(split), in_memory=in_memory)
        for key, value in info.items():
            setattr(dataset.info, key, value)
        splits[split] = dataset
    return splits


def _note(report: PreparationReport, prepared: Mapping[str, PreparedPatient], all_frames: bool) -> None:
    """Add to the report what holds for the patients who are in a split."""
    kept = {name: prepared[name] for name in sorted(name for names in report.patients.values() for name in names)}
    report.notes += share_notes({name: one.notes for name, one in kept.items()})
    for what, by in (
        ("the heart was located by", "located_by"),
        ("axes and order of slices are known by", "oriented_by"),
    ):
        counted = Counter(vars(one)[by] for one in kept.values())
        order = sorted(counted, key=lambda one: (LOCATED_BY.index(one) if one in LOCATED_BY else 0, one))
        report.notes.append(f"{what} " + ", ".join(f"{one} in {counted[one]} patients" for one in order))
    for what, axis in (("pixels", 0), ("distances of slices", 2)):
        sizes = {name: one.spacing[axis] for name, one in kept.items()}
        low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        report.notes.append(f"{what} of {sizes[low]:.2f} mm ({low}) to {sizes[high]:.2f} mm ({high})")
    without_cine = sum(not one.has_cine for one in kept.values())
    if all_frames and without_cine:
        report.left_out.append(f"frames between ED and ES of {without_cine} patients without a 4-D cine")
    empty = sum(one.empty_masks for one in kept.values())
    report.notes.append(f"{empty} slices have an empty mask (beyond base or apex); kept")
    shares = [one.cropped for one in kept.values() if np.isfinite(one.cropped)]
    if shares:
        report.notes.append(
            f"{100 * np.mean(shares):.2f} % of the segmented heart lies outside the {FIELD_OF_VIEW:g} mm crop"
        )
