"""Generated slices with their segmentations as a dataset, which whatever reads slices of patients reads too."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from huggingface_hub import DatasetCardData, constants
from PIL import Image

from hcm_hf.data.cohort import LEVELS, PHASES, Patient
from hcm_hf.data.identity import hash_voxels
from hcm_hf.data.parquet import write_split
from hcm_hf.data.preparation import LICENSES, REPORT_FILE, PreparationReport, count_slices
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.data.schema import features
from hcm_hf.data.splits import split_patients
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.citations import ACDC_CITATION
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import replacing, write_sums, write_text
from hcm_hf.utils.hub import parse_repository
from hcm_hf.version import __version__


_PREFIX = "synthetic-"  # of a slice's patient, before the number of the slice
_LEAST = 2  # slices in a split, as training asks of the one for validation


def check_labels(pipeline: HCMPipeline, sampling: Sampling) -> None:
    """Raise an `InputError` unless slices of the pipeline come with masks and with labels that it was trained on."""
    if not pipeline.makes_masks:
        raise InputError("save_dataset needs a model that makes masks, as the tuned ddpm; leave it out.")
    conditions = pipeline.conditions
    words = {"group": conditions.axes.get("group", ()), "phase": PHASES, "level": LEVELS}
    for axis, names in words.items():
        if axis not in conditions.axes or not set(conditions.axes[axis]) <= set(names):
            known = "; ".join(f"{axis}: {', '.join(names)}" for axis, names in conditions.axes.items()) or "nothing"
            raise InputError(f"save_dataset needs the {axis} of each slice, and this model knows {known}.")
    asked = conditions.allowed(sampling.conditions).tolist()
    met = [label for label, frequency in enumerate(conditions.frequencies) if frequency > 0]
    if not any(asked[label] for label in met):
        groups = sorted({str(conditions.describe(label)["group"]) for label in met})
        raise InputError(
            f"save_dataset with class_labels '{sampling.noted['class']}': this model has met no such slice, so that "
            f"the labels would be wrong; it has met those of {', '.join(groups) or 'no group'}."
        )


def plan_dataset(
    groups: Sequence[str], resolution: int, seed: int, sampling: Mapping, training: Mapping
) -> PreparationReport:
    """Deal out slices to splits as patients are; each stands for one.

    `groups` are those of the slices, in their order, `sampling` what the manifest says of all, and `training` what the
    model's training run wrote of itself. The seed is that of the images and of the split.

    Raises:
        InputError: if they are too few.
    """
    source, name = training.get("dataset_source"), sampling["model"]
    generator = dict(sampling) | {
        "model": name if parse_repository(name) else Path(name).resolve().name,
        "dataset_source": source,
        "license": LICENSES.get(source or "") or training.get("dataset_license") or "unknown",
        "train_patients": training.get("train_patients", {}),  # whoever trains on these slices has seen them too
    }
    rule = "70/10/20 of the slices of each group, each of which stands for a patient"
    report = PreparationReport("generated", resolution, FIELD_OF_VIEW / resolution, seed, rule, generator=generator)
    patients = [Patient(_patient(index), "", group, ()) for index, group in enumerate(groups)]
    report.patients = split_patients(patients, seed)
    if min(map(len, report.patients.values())) < _LEAST:
        sizes = ", ".join(f"{len(names)} for {split}" for split, names in report.patients.items())
        raise InputError(
            f"save_dataset puts {_LEAST} slices or more in each split, and {len(groups)} make {sizes}; raise "
            "num_images."
        )
    report.notes.append(
        "every slice is generated and stands for a patient; group, phase and third of the heart are what was asked for"
    )
    return report


def write_dataset(
    image_dir: Path,
    entry_of: Callable[[int], Mapping],
    report: PreparationReport,
    groups: Sequence[str],
    output_dir: Path,
) -> None:
    """Write slices as a prepared dataset, whole or not at all; an earlier one gives way.

    `entry_of` returns what the manifest says of a slice, by its number, and `image_dir` holds the files that it names;
    `report`, of `plan_dataset`, gets the counts; `groups` are all that the model knows. The slices are read one by
    one.
    """
    assert report.generator is not None  # `plan_dataset` wrote it
    license_name = report.generator["license"]
    card = DatasetCardData(license=license_name, tags=["hcm_hf", "synthetic-data"]).to_yaml()
    made = (
        f"Synthetic short-axis cine slices, {FIELD_OF_VIEW:g} mm around the heart, generated by "
        f"{report.generator['model']} with hcm_hf {__version__}."
    )
    if license_name == LICENSES["acdc"]:
        made += f" The model was trained on ACDC:\n\n{ACDC_CITATION}"
    with replacing(output_dir) as temporary:
        temporary.mkdir()
        for split, names in report.patients.items():
            rows = _Rows(image_dir, entry_of, report.pixel_spacing)
            write_split(temporary, split, map(rows, names), len(names), features(groups))
            count_slices(report, split, rows.group_of, rows.phases)
        write_text(temporary / constants.REPOCARD_NAME, f"---\n{card}\n---\n\n{made}\n")
        # Without the names, which are in the rows: there may be a million.
        write_text(temporary / REPORT_FILE, json.dumps(asdict(report) | {"patients": {}}, indent=2) + "\n")
        write_sums(temporary)


def _patient(index: int) -> str:
    return f"{_PREFIX}{index:06d}"


class _Rows:
    """Makes the row of each slice by its patient's name, and counts what the slices show.

    Attributes:
        group_of: the group of each patient.
        phases: by group, how many slices there are of each phase.
    """

    def __init__(self, image_dir: Path, entry_of: Callable[[int], Mapping], pixel_spacing: float):
        self.image_dir, self.entry_of, self.pixel_spacing = image_dir, entry_of, pixel_spacing
        self.group_of: dict[str, str] = {}
        self.phases: dict[str, Counter] = defaultdict(Counter)

    def __call__(self, patient: str) -> dict:
        entry = self.entry_of(int(patient.removeprefix(_PREFIX)))
        group, phase = entry["group"], entry["phase"]
        self.group_of[patient] = group
        self.phases[group][phase] += 1
        image = (self.image_dir / entry["file"]).read_bytes()
        with Image.open(io.BytesIO(image)) as picture:
            pixels = np.asarray(picture)
        return {
            "image": image,
            "mask": (self.image_dir / entry["mask"]).read_bytes(),
            "patient": patient,
            "group": group,
            "phase": phase,
            "frame": None,
            "slice_index": LEVELS.index(entry["level"]),  # the first, middle or last of three slices
            "num_slices": len(LEVELS),
            "pixel_spacing": self.pixel_spacing,
            "slice_thickness": None,
            "height": None,
            "weight": None,
            "volume_sha256": hash_voxels(pixels),
            "cohort": "generated",
        }
