"""Generators whose worth is known: real slices of other patients, and noise."""

from dataclasses import replace

import datasets
import numpy as np
import pytest

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.preparation import PreparationReport, save_splits
from hcm_hf.evaluation.parts.anatomy import CHAMBERS
from hcm_hf.evaluation.usefulness import read_held_out
from hcm_hf.study.usefulness import cells
from hcm_hf.study.usefulness.arms import BASELINE
from hcm_hf.study.usefulness.cells import Experiment, identities_of, of_patients, read_training_rows, training_groups
from hcm_hf.study.usefulness.plan import Cell, Comparison, GeneratorPlan, Plan, draw_patients, file_name
from hcm_hf.study.usefulness.rows import decode, encode, make_rows
from hcm_hf.study.usefulness.tables import find_rows
from hcm_hf.training import recipes
from hcm_hf.utils.errors import InputError


ARM = "synthetic_1to3"
USEFUL, USELESS = GeneratorPlan("open", "others"), GeneratorPlan("open", "noise")
PLAN = Plan(
    primary=Comparison("dice_myocardium", 2, ARM, USEFUL.title, BASELINE),
    arms=[BASELINE, ARM],
    generators=[USEFUL, USELESS],
    patients=[2],
    num_training_patients=14,
    num_draws=1,
    num_seeds=1,
    num_steps=100,
    target_group="HCM",
    split="test",
    dataset="",
    version="",
)


@pytest.fixture(scope="module")
def splits(dataset_of_twenty):
    return load_dataset(dataset_of_twenty)


@pytest.fixture
def experiment(splits, tmp_path, monkeypatch):
    """An experiment whose generators have made their slices already."""
    family = recipes.INSTRUMENTS["segmenter"]
    recipe = family.recipes["default"]
    sizes = {"encoder": recipe.sizes["encoder"] | {"block_out_channels": (16, 32, 64)}}
    small = replace(family, recipes={"default": replace(recipe, sizes=sizes, train_batch_size=16)})
    monkeypatch.setitem(recipes.INSTRUMENTS, "segmenter", small)
    monkeypatch.setattr(cells, "LEAST_EPOCH", 16 * PLAN.num_steps)
    held_out = read_held_out(splits, "test")
    training = read_training_rows(splits, held_out)
    return Experiment(PLAN, tmp_path, training, held_out, {})


def plant(experiment, generator, rows, images, masks, seen):
    """Leave slices as a generator's."""
    columns = {name: list(rows[name]) for name in rows.features if name not in ("image", "mask")}
    columns |= {"image": encode(images), "mask": encode(masks.astype(np.uint8))}
    columns["patient"] = [f"synthetic-{index:06d}" for index in range(len(rows))]
    report = PreparationReport("generated", 32, 4.0, 0, generator={"model": "", "train_patients": seen})
    place = Cell("", "", 2, 0, 0).place
    folder = experiment.work("generators", file_name(generator.title), place, "images", "dataset")
    made = make_rows(columns, rows)
    save_splits(
        datasets.DatasetDict({"train": made, "validation": made.select([0]), "test": made.select([0])}), report, folder
    )


def test_other_patients_help_and_noise_does_not(experiment):
    random, training = np.random.default_rng(0), experiment.training
    drawn = draw_patients(training_groups(training), 2, 0)
    real = of_patients(training, drawn)
    others = of_patients(training, sorted(set(training["patient"]) - set(drawn)))
    others = others.select(random.permutation(len(others))[: 3 * len(real)])
    plant(experiment, USEFUL, others, *decode(others), identities_of(training))
    copies = datasets.concatenate_datasets([real] * 3)
    images, masks = decode(copies)
    noise = random.integers(0, 256, images.shape).astype(np.uint8)
    plant(experiment, USELESS, copies, noise, random.permutation(masks.reshape(-1)).reshape(masks.shape), {})
    results = {cell: experiment.run(cell) for cell in PLAN.cells()}
    gains = {row.generator: row.differences for row in find_rows(PLAN, results) if row.arm == ARM}
    useful, useless = (
        np.mean([gains[one.title][f"dice_{chamber}"].value for chamber in CHAMBERS]) for one in (USEFUL, USELESS)
    )
    assert useful > 0.02 > 0 > useless


def test_slices_of_a_generator_that_has_seen_a_held_out_patient_are_refused(experiment, splits):
    rows = of_patients(experiment.training, draw_patients(training_groups(experiment.training), 2, 0))
    plant(experiment, USEFUL, rows, *decode(rows), identities_of(splits["test"]))
    cell = next(cell for cell in PLAN.cells() if cell.generator == USEFUL.title)
    with pytest.raises(InputError, match="open others was trained on patient .*, whom it must not have seen"):
        experiment.run(cell)
    assert experiment.read(cell) is None
