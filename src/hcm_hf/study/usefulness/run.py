"""The command: plan once, run what is left, write the tables."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.tables import brief
from hcm_hf.evaluation.usefulness import HeldOut, read_held_out
from hcm_hf.study.usefulness.arms import ARMS, BASELINE, PRIMARY
from hcm_hf.study.usefulness.cells import CellResult, Experiment, read_training_rows, training_groups
from hcm_hf.study.usefulness.figure import draw_gain
from hcm_hf.study.usefulness.generators import plan_closed, plan_open
from hcm_hf.study.usefulness.plan import (
    PRIMARY_MEASURE,
    Cell,
    Comparison,
    Plan,
    check_draws,
    keep_plan,
    parse_shard,
    take_shard,
)
from hcm_hf.study.usefulness.tables import write_tables
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import count_cores, map_processes
from hcm_hf.version import __version__


NUMBERS = (5, 10, 25)  # of training patients, beside all of them


def usefulness(
    output_dir: str | Path,
    dataset: str | Path | None = None,
    closed: Sequence[str] = ("acgan/paired",),
    open_models: Sequence[str] = (),
    arms: Sequence[str] | None = None,
    patients: Sequence[int] | None = None,
    primary_patients: int = 10,
    num_draws: int = 3,
    num_seeds: int = 3,
    num_steps: int = 2000,
    generator_steps: int | None = None,
    target_group: str = "HCM",
    split: str = "test",
    shard: str = "1/1",
    num_proc: int = 1,
    max_cells: int | None = None,
) -> Path:
    """Test whether synthetic slices help to segment held-out patients and to tell one group from the others.

    The same small network is trained on few patients with and without synthetic slices, in the same number of
    optimiser steps and on the same draws of patients, and measured on the held-out patients. The plan is written
    before anything is run. Run the same command again to go on: what is done is kept. Several machines that share
    `output_dir` can each take a shard.

    Args:
        output_dir: gets plan.json, a file for each cell in `cells`, the generators in `work`, usefulness.md,
            usefulness.json and gain.png.
        dataset: folder or repository of a prepared dataset with segmentations; by default the synthetic cohort.
        closed: families and recipes, FAMILY/RECIPE, of generators that are trained on each draw of patients alone;
            they must make segmentations.
        open_models: folders or repositories of trained generators, which may have seen any training patient.
        arms: what is compared, which must hold augmented and synthetic_1to1; by default real, augmented,
            warped_1to1, synthetic_1to1, synthetic_1to3, filtered_1to1, synthetic_alone and pretrained.
        patients: numbers of training patients; by default 5, 10, 25 and all.
        primary_patients: number of training patients of the primary comparison.
        num_draws: draws of training patients of each number.
        num_seeds: trainings on each draw.
        num_steps: optimiser steps of each training.
        generator_steps: optimiser steps of each closed generator's training; by default as many as its recipe takes
            on all training patients.
        target_group: the group to tell from the others.
        split: the split of the held-out patients.
        shard: the part of the cells that this call runs: 1/3, 2/3 or 3/3 for three machines.
        num_proc: processes of this machine that run cells.
        max_cells: cells to run in this call at most; 0 writes plan and tables only. By default all that are left.

    Returns:
        The folder.

    Raises:
        InputError: on bad arguments or data, a folder with another plan, a damaged cell, too few patients for a draw,
            or a generator that has seen a held-out patient or does not say whom it has seen.
    """
    output_dir = Path(output_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Cells are trained one by one; start without `accelerate launch`, and set num_proc or shard.")
    at_least("num_proc", num_proc, 1)
    at_least("max_cells", 0 if max_cells is None else max_cells, 0)
    parse_shard(shard)
    splits = load_dataset(dataset)
    one_of("target_group", target_group, splits["train"].features["group"].names)
    held_out = read_held_out(splits, split)
    training = read_training_rows(splits, held_out)
    groups = training_groups(training)
    for name, found in (("train", groups), (split, held_out.groups)):
        if not {target_group} < set(found.values()):
            raise InputError(
                f"Split '{name}' lacks patients of {target_group} or of other groups; name another `target_group`."
            )

    # The plan.
    generators = [plan_closed(name, len(training), generator_steps) for name in closed]
    size, seen = held_out.images.shape[-1], held_out.identities
    opened = [(plan_open(str(model), size, seen), str(model)) for model in open_models]
    generators += [one for one, _ in opened]
    if not generators:
        raise InputError("closed and open_models name no generator; name one or more.")
    numbers = sorted({one for one in NUMBERS if one < len(groups)} | {len(groups)}) if patients is None else patients
    plan = Plan(
        primary=Comparison(PRIMARY_MEASURE, primary_patients, PRIMARY, generators[0].title, BASELINE),
        arms=list(ARMS if arms is None else arms),
        generators=generators,
        patients=list(numbers),
        num_training_patients=len(groups),
        num_draws=num_draws,
        num_seeds=num_seeds,
        num_steps=num_steps,
        target_group=target_group,
        split=split,
        dataset=fingerprint(training, held_out),
        version=__version__,
    )
    plan.check()
    check_draws(plan, groups)
    keep_plan(plan, output_dir)

    # The cells.
    experiment = Experiment(plan, output_dir, training, held_out, {one.name: model for one, model in opened})
    cells = plan.cells()
    results = read_results(experiment, cells)
    left = [cell for cell in take_shard(cells, shard) if cell not in results]
    print(describe_rest(len(cells), list(results.values()), len(left), num_proc), flush=True)
    to_run = left[:max_cells]
    threads = max(count_cores() // num_proc, 1) if num_proc > 1 else None
    run = partial(_run, experiment, threads)
    for done, result in enumerate(map_processes(run, to_run, num_proc=num_proc), 1):
        results[to_run[done - 1]] = result
        print(f"{to_run[done - 1].key}: {brief(result.seconds)} s", flush=True)
        print(describe_rest(len(cells), list(results.values()), len(left) - done, num_proc), flush=True)
    rows = write_tables(plan, read_results(experiment, cells), output_dir)  # with what other machines have done since
    if any(row.differences for row in rows):
        draw_gain(plan, rows, output_dir)
    return output_dir


def read_results(experiment: Experiment, cells: Sequence[Cell]) -> dict[Cell, CellResult]:
    """The cells that are done.

    Raises:
        InputError: if one is damaged, or of another plan.
    """
    read = ((cell, experiment.read(cell)) for cell in cells)
    return {cell: result for cell, result in read if result is not None}


def describe_rest(num_cells: int, done: Sequence[CellResult], num_left: int, num_proc: int) -> str:
    """A sentence on what is done and left, with an estimate by the cells that are done.

    Args:
        num_cells: of the plan.
        done: all that are done.
        num_left: of this call's shard.
        num_proc: processes that share them.
    """
    sentence = f"{len(done)} of {num_cells} cells are done, {num_left} are left to do here"
    if not done or not num_left:
        return f"{sentence}."
    minutes = sum(one.seconds for one in done) / len(done) * num_left / num_proc / 60
    expected = f"{minutes / 60:.1f} h" if minutes >= 60 else f"{minutes:.1f} min"
    return f"{sentence}, about {expected} at the mean speed so far."


def fingerprint(training: datasets.Dataset, held_out: HeldOut) -> str:
    """Of the pixels, masks and groups of training and held-out slices, the first 16 digits."""
    slices = Slices(training, training.features["group"].names)
    digest = hashlib.sha256(slices.fingerprint().encode())
    for array in (slices.masks.numpy(), held_out.images, held_out.masks):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps(sorted(held_out.groups.items())).encode())
    return digest.hexdigest()[:16]


def _run(experiment: Experiment, threads: int | None, cell: Cell) -> CellResult:
    """Run a cell, in a process of several on some of the cores."""
    if threads is not None:
        torch.set_num_threads(threads)
    return experiment.run(cell)
