"""Say what a folder or a table of patients holds, before it is prepared."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from hcm_hf.data.checks import examine, share_notes
from hcm_hf.data.cohort import PHASES, Cohort, Patient, parse_mask_values, write_table
from hcm_hf.data.layouts import read_cohort
from hcm_hf.data.splits import check_group_sizes
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import map_processes


_HEAD = 5  # rows that are shown
_SHOWN = ("patient", "group", "phase", "frame", "half", "image", "mask")


@dataclass(frozen=True)
class Inspection:
    """What was found; `str()` is what people read."""

    path: Path
    cohort: Cohort
    problems: list[str]  # a sentence for each patient or group that would be refused
    notes: list[str]  # a sentence for each oddity

    def __str__(self) -> str:
        patients = self.cohort.patients
        rows = [
            (one.name, one.group, scan.phase or "", str(scan.frame or ""), one.half, scan.image, scan.mask or "")
            for one in patients
            for scan in one.scans
        ]
        lines = [f"layout: {self.cohort.layout}, {len(patients)} patients, {len(rows)} rows in {self.path}"]
        lines += _aligned([_SHOWN, *rows[:_HEAD]]) + (["..."] if len(rows) > _HEAD else [])
        counts = Counter((one.group, one.half) for one in patients)
        head = ("group", "half", "patients", *PHASES, "masks", "no phase")
        lines += ["", *_aligned([head, *(_count(patients, *key) for key in sorted(counts))])]
        lines += [f"split: {self.cohort.split_rule}"]
        lines += [f"left out: {sentence}" for sentence in self.cohort.left_out]
        lines += [f"note: {sentence}" for sentence in self.notes]
        lines += [f"problem: {sentence}" for sentence in self.problems or ["none"]]
        return "\n".join(lines)


def inspect(
    folder: Annotated[Path, tyro.conf.Positional],
    output: Path | None = None,
    mask_values: tuple[str, ...] = (),
    num_proc: int = 1,
) -> Inspection:
    """Say which layout a folder of patients has, what is in it, and what is wrong with it.

    Args:
        folder: a folder of ACDC, M&Ms or M&Ms-2, ACDC's .zip, or a table.
        output: a new file for the cohort's table, which can be edited and given to prepare_dataset as `cohort`.
        mask_values: what the values of a table's masks stand for, as prepare_dataset takes them.
        num_proc: number of processes that read patients.

    Raises:
        InputError: if the folder is in no known layout, the output exists, or `mask_values` is given for a folder.
    """
    if output is not None and output.exists():
        raise InputError(f"output {output} exists; name a new file.")
    if mask_values and folder.is_dir():
        raise InputError(
            f"mask_values {' '.join(mask_values)} is for a table, and {folder} is a folder; leave it out."
        )
    cohort = read_cohort(folder, dict(parse_mask_values(mask_values)) if mask_values else None)
    found = list(map_processes(_examine, cohort.patients, num_proc=num_proc))
    notes = {patient.name: noted for patient, (noted, _) in zip(cohort.patients, found, strict=True)}
    problems = [problem for _, problem in found if problem]
    checks: list[Callable[[], None]] = [
        Vocabulary(cohort.group_names).check,
        partial(check_group_sizes, cohort.patients),
    ]
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    if output is not None:
        write_table(cohort, output)
    return Inspection(folder, cohort, problems, share_notes(notes))


def _examine(patient: Patient) -> tuple[list[str], str | None]:
    """A patient's notes, and why he would be refused, if he would."""
    try:
        return [*patient.notes, *examine(patient.name, list(read_volumes(patient)))[1]], None
    except InputError as error:
        return list(patient.notes), f"{patient.name}: {error}"


def _count(patients: list[Patient], group: str, half: str) -> tuple[str, ...]:
    chosen = [one for one in patients if (one.group, one.half) == (group, half)]
    scans = [scan for one in chosen for scan in one.scans]
    phases = Counter(scan.phase for scan in scans)
    masks = sum(scan.mask is not None for scan in scans)
    numbers = (len(chosen), *(phases[phase] for phase in PHASES), masks, phases[None])
    return group, half or "-", *map(str, numbers)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
