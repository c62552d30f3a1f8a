"""The tables of an experiment: each arm with its interval and its difference from classical augmentation."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.tables import markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.evaluation.usefulness import PatientScores
from hcm_hf.metrics.anatomy import THICK
from hcm_hf.metrics.bootstrap import Number, Resampled
from hcm_hf.metrics.paired import holm, resample_hierarchy, resampled_means, signed_rank_p
from hcm_hf.metrics.ranking import resampled_roc_auc, resampled_sensitivity_at
from hcm_hf.study.usefulness.arms import ARMS, BASELINE
from hcm_hf.study.usefulness.cells import CellResult
from hcm_hf.study.usefulness.plan import CLOSED, NO_GENERATOR, PRIMARY_MEASURE, Cell, Plan
from hcm_hf.utils.files import write_text


TABLE_FILE, RECORD_FILE = "usefulness.md", "usefulness.json"
# Of values (trainings, patients), which patients are of the group (patients,), and how often each is in a resample
# (resamples, patients), to a number for each resample and training (resamples, trainings).
Reduce = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A number of a training on the held-out patients.

    Attributes:
        title: at the head of its column.
        read: a patient's value; None where there is none.
        reduce: of all patients to a number for each training.
        bounds: of the number.
        digits: in tables.
    """

    title: str
    read: Callable[[PatientScores], float | None]
    reduce: Reduce
    bounds: tuple[float, float] = (0.0, 1.0)
    digits: int = 3


@dataclass(frozen=True)
class Row:
    """An arm with a generator and a number of training patients.

    Attributes:
        patients: number of training patients.
        arm: its name.
        generator: its title.
        num_cells: cells that are done.
        num_planned: cells of the plan.
        num_synthetic: synthetic slices, the mean of the cells.
        audit_auc: the mean of the cells; None where there is none.
        numbers: by measure.
        differences: from the baseline, by measure; of the cells that both have.
        p: of the differences of patients, of the measures that are `TESTED`.
        holm_p: the same for all rows of as many training patients together.
        primary: whether this is the comparison that was named before anything was run.
    """

    patients: int
    arm: str
    generator: str
    num_cells: int
    num_planned: int
    num_synthetic: float
    audit_auc: float | None
    numbers: dict[str, Number]
    differences: dict[str, Number]
    p: dict[str, float]
    holm_p: dict[str, float]
    primary: bool


def _mean(values: np.ndarray, ours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return resampled_means(values, weights)


def _mean_of_target(values: np.ndarray, ours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return resampled_means(values[:, ours], weights[:, ours])


def _share_right(positive: bool, values: np.ndarray, ours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the group with a wall of 15 mm or more, or of the others without."""
    kept = ours == positive
    right = (values[:, kept] >= THICK) == positive
    return resampled_means(right.astype(float), weights[:, kept])


def _each(
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    values: np.ndarray,
    ours: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    return np.stack([measure(row, ours, weights) for row in values], axis=1)


def _chamber(kind: str, chamber: str, scores: PatientScores) -> float | None:
    return {"dice": scores.dice, "hd95": scores.hd95}[kind][chamber]


def _odds(scores: PatientScores) -> float:
    return scores.log_odds


def _wall(scores: PatientScores) -> float:
    return scores.wall


_CHAMBERS = {"myocardium": "wall", "rv": "RV", "lv": "LV"}
_SEGMENTATION = {
    f"{kind}_{chamber}{ending}": Measure(
        f"{title} {shown}{of}",
        partial(_chamber, kind, chamber),
        reduce,
        bounds,
        digits,
    )
    for kind, title, bounds, digits in (("dice", "Dice", (0.0, 1.0), 3), ("hd95", "HD95 mm", (0.0, np.inf), 1))
    for ending, of, reduce in (("", "", _mean), ("_target", ", {target}", _mean_of_target))
    for chamber, shown in _CHAMBERS.items()
}
_DIAGNOSIS = {
    "auc": Measure("AUC", _odds, partial(_each, resampled_roc_auc)),
    "sensitivity": Measure("sensitivity at 95 % specificity", _odds, partial(_each, resampled_sensitivity_at)),
    "rule_auc": Measure("AUC of wall thickness", _wall, partial(_each, resampled_roc_auc)),
    "rule_sensitivity": Measure("15 mm rule, sensitivity", _wall, partial(_share_right, True)),
    "rule_specificity": Measure("15 mm rule, specificity", _wall, partial(_share_right, False)),
}
MEASURES = _SEGMENTATION | _DIAGNOSIS
# The tables, and the measures whose difference from the baseline each shows first.
TABLES = {
    "Dice": ("dice_myocardium", [name for name in _SEGMENTATION if name.startswith("dice")]),
    "HD95": ("hd95_myocardium", [name for name in _SEGMENTATION if name.startswith("hd95")]),
    "{target} against the rest": ("auc", list(_DIAGNOSIS)),
}
TESTED = ("dice_myocardium", "hd95_myocardium")  # means over all patients, whose differences are tested by patient


def write_tables(plan: Plan, results: Mapping[Cell, CellResult], output_dir: Path) -> list[Row]:
    """Write `usefulness.md` and `usefulness.json`; of nothing, they say so.

    Args:
        plan: the plan.
        results: the cells that are done.
        output_dir: the folder.

    Returns:
        The rows.
    """
    rows = list(find_rows(plan, results))
    record = {"plan": plain(plan) | {"hash": plan.hash}, "cells_done": len(results), "rows": plain(rows)}
    write_text(output_dir / RECORD_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_text(output_dir / TABLE_FILE, render(plan, rows, len(results)))
    return rows


def find_rows(plan: Plan, results: Mapping[Cell, CellResult]) -> Iterator[Row]:
    """Yield the rows that have a cell, in the order of the plan: by number of patients, arm and generator."""
    for patients in sorted(plan.patients):
        baseline = _runs(results, patients, BASELINE, NO_GENERATOR)
        rows = []
        for arm in plan.arms:
            for generator in plan.generators_of(arm):
                if runs := _runs(results, patients, arm, generator):
                    rows.append(_row(plan, patients, arm, generator, runs, baseline))
        for measure in TESTED:
            tested = [row for row in rows if measure in row.p]
            for row, adjusted in zip(tested, holm([row.p[measure] for row in tested]).tolist(), strict=True):
                row.holm_p[measure] = adjusted
        yield from rows


def _runs(
    results: Mapping[Cell, CellResult], patients: int, arm: str, generator: str
) -> dict[tuple[int, int], CellResult]:
    """The cells of a row that are done, by draw and seed."""
    return {
        (cell.draw, cell.seed): result
        for cell, result in results.items()
        if (cell.patients, cell.arm, cell.generator) == (patients, arm, generator)
    }


def _row(
    plan: Plan,
    patients: int,
    arm: str,
    generator: str,
    runs: Mapping[tuple[int, int], CellResult],
    baseline: Mapping[tuple[int, int], CellResult],
) -> Row:
    ours = np.array([one.group == plan.target_group for _, one in sorted(next(iter(runs.values())).scores.items())])
    audits = [run.audit_auc for run in runs.values() if run.audit_auc is not None]
    both = [one for one in runs if one in baseline] if arm != BASELINE else []
    numbers, differences, p = {}, {}, {}
    resamples, resamples_of_both = (_resample(tuple(draw for draw, _ in one), len(ours)) for one in (runs, both))
    for name, measure in MEASURES.items():
        values = _values(measure, [runs[one] for one in runs])
        numbers[name] = _estimate(measure, [values], ours, resamples)
        if both:
            pair = [_values(measure, [one[key] for key in both]) for one in (runs, baseline)]
            differences[name] = _estimate(measure, pair, ours, resamples_of_both)
            if name in TESTED:
                p[name] = signed_rank_p((pair[0] - pair[1]).mean(0))
    primary = plan.primary
    return Row(
        patients=patients,
        arm=arm,
        generator=generator,
        num_cells=len(runs),
        num_planned=plan.draws_of(patients) * plan.num_seeds,
        num_synthetic=float(np.mean([run.num_synthetic for run in runs.values()])),
        audit_auc=float(np.mean(audits)) if audits else None,
        numbers=numbers,
        differences=differences,
        p=p,
        holm_p={},
        primary=(patients, arm, generator) == (primary.patients, primary.arm, primary.generator),
    )


@lru_cache(maxsize=8)
def _resample(draws: tuple[int, ...], num_patients: int) -> tuple[np.ndarray, np.ndarray]:
    """The resamples of trainings of these draws, the same for all measures and arms."""
    return resample_hierarchy(draws, num_patients, np.random.default_rng((0, 14)))


def _values(measure: Measure, runs: Sequence[CellResult]) -> np.ndarray:
    """Each patient's value in each training, (trainings, patients); not a number where there is none."""
    read = [[measure.read(scores) for _, scores in sorted(run.scores.items())] for run in runs]
    return np.array(read, float)  # None becomes NaN


def _estimate(
    measure: Measure, arms: Sequence[np.ndarray], ours: np.ndarray, resamples: tuple[np.ndarray, np.ndarray]
) -> Number:
    """The mean over trainings of a measure of one arm, or of its difference between two, with its interval.

    Args:
        measure: what is measured.
        arms: values of one arm or of two, (trainings, patients) each.
        ours: which patients are of the group of interest, (patients,).
        resamples: of `resample_hierarchy`.
    """

    def statistic(trainings: np.ndarray, patients: np.ndarray) -> np.ndarray:
        reduced = [measure.reduce(arm, ours, patients) for arm in arms]
        of_each = reduced[0] - reduced[1] if len(reduced) > 1 else reduced[0]
        return np.where(trainings > 0, trainings * of_each, 0).sum(1) / trainings.sum(1)

    value = statistic(*(np.ones((1, one.shape[1])) for one in resamples))[0]
    low, high = measure.bounds
    bounds = (low - high, high - low) if len(arms) > 1 else (low, high)
    return Number.estimate(value, Resampled(statistic(*resamples)), bounds, n_patients=len(ours))


def render(plan: Plan, rows: Sequence[Row], num_done: int) -> str:
    """The tables in Markdown."""
    primary, target = plan.primary, plan.target_group
    measure = MEASURES[primary.measure]
    named = (
        f"Named before anything was run (plan {plan.hash}): {measure.title.format(target=target)}, {primary.patients} "
        f"training patients, {ARMS[primary.arm].title} with the generator {primary.generator}, against "
        f"{ARMS[primary.against].title}."
    )
    found = next((row for row in rows if row.primary and primary.measure in row.differences), None)
    result = "No result yet." if found is None else f"Difference: {_difference(found, primary.measure)}."
    blocks = [
        "# Do synthetic slices help?",
        f"{num_done} of {len(plan.cells())} cells are done.",
        "## Primary comparison",
        f"{named} {result}",
    ]
    for patients in sorted({row.patients for row in rows}):
        own = [row for row in rows if row.patients == patients]
        for title, (first, names) in TABLES.items():
            blocks += [
                f"## {title.format(target=target)}, {patients} training patients",
                _table(own, first, names, target),
            ]
    seen = [
        f"{one.title}: trained on the drawn patients alone"
        if one.kind == CLOSED
        else f"{one.title}: a public model, has seen {one.num_seen} patients"
        for one in plan.generators
    ]
    blocks.append(
        f"Dataset {plan.dataset}, split {plan.split}; {plan.num_steps} optimiser steps in each arm; plan {plan.hash}; "
        f"hcm_hf {plan.version}. Generators: {'; '.join(seen) or 'none'}. In brackets: 95 % interval over patients, "
        "draws and seeds. Differences are from classical augmentation, in the cells that both have; p is Wilcoxon's "
        "over patients, after Holm's correction for all rows of the table. A closed and an open generator answer "
        "different questions and are not compared. * marks the primary comparison."
    )
    return "\n\n".join(blocks) + "\n"


def _table(rows: Sequence[Row], first: str, names: Sequence[str], target: str) -> str:
    """A table with a line for each row; `first` is the measure whose difference is shown."""
    head = ["arm", "generator", "cells", f"{MEASURES[first].title} against augmentation"]
    head += [MEASURES[name].title.format(target=target) for name in names] + ["synthetic slices", "audit AUC"]
    lines = []
    for row in rows:
        mark = " *" if row.primary and first == PRIMARY_MEASURE else ""
        line = [ARMS[row.arm].title + mark, row.generator, f"{row.num_cells} of {row.num_planned}"]
        line += [_difference(row, first), *(_cell(row.numbers[name], name) for name in names)]
        line += [f"{row.num_synthetic:.0f}", "" if row.audit_auc is None else f"{row.audit_auc:.2f}"]
        lines.append(line)
    return markdown_table(head, lines)


def _difference(row: Row, name: str) -> str:
    if name not in row.differences:
        return ""
    tested = f", p = {row.holm_p[name]:.3f}" if name in row.holm_p else ""
    return _cell(row.differences[name], name, sign="+") + tested


def _cell(number: Number, name: str, sign: str = "") -> str:
    if number.value is None:
        return "too few"
    value, low, high = (f"{one:{sign}.{MEASURES[name].digits}f}" for one in (number.value, number.low, number.high))
    return f"{value} [{low}, {high}]"
