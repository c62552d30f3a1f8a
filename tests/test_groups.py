"""A cohort with groups of its own: what is trained on it speaks its names, from the training to the card."""

import json
from dataclasses import replace

import datasets
import pytest
import torch
from tiny import tiny_families

from hcm_hf.data.slices import Slices
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.cards import render_card
from hcm_hf.pipelines.auto import HCMPipeline, read_training
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS
from hcm_hf.utils.errors import InputError


NAMES = ("HCM", "amyloid", "athlete")
CONDITIONAL = [("acgan", "paper"), ("acgan", "paired"), ("ddpm", "tuned")]


def regrouped(split: datasets.Dataset) -> datasets.Dataset:
    """Slices of HCM and NOR under other names: HCM is called amyloid, NOR athlete."""
    new_names = {"HCM": "amyloid", "NOR": "athlete"}
    names = split.features["group"].names
    labels = [NAMES.index(new_names[names[group]]) for group in split["group"]]
    features = datasets.Features(dict(split.features) | {"group": datasets.ClassLabel(names=list(NAMES))})
    return split.remove_columns("group").add_column("group", labels).cast(features)


@pytest.fixture(autouse=True)
def shrunk(monkeypatch):
    for name, family in tiny_families().items():
        monkeypatch.setitem(FAMILIES, name, family)


@pytest.fixture(scope="module")
def others(splits):
    return datasets.DatasetDict({name: regrouped(split) for name, split in splits.items()})


@pytest.fixture(scope="module")
def folder(others, tmp_path_factory):
    others.save_to_disk(path := tmp_path_factory.mktemp("others") / "dataset")
    return str(path)


@pytest.fixture
def config(folder, tmp_path):
    run = str(tmp_path / "run")
    return TrainingConfig(dataset=folder, output_dir=run, num_epochs=1, train_batch_size=64, target_group="amyloid")


@pytest.mark.parametrize(("family", "recipe"), CONDITIONAL)
def test_a_model_keeps_the_names_that_it_was_trained_with(family, recipe, config, folder, tmp_path):
    run = train(replace(config, family=family, recipe=recipe))
    pipeline, notes = HCMPipeline.from_pretrained(run), read_training(run)
    conditions = pipeline.conditions
    assert tuple(conditions.axes["group"]) == NAMES and conditions.defaults == {"group": "amyloid"}
    assert notes["groups"] == list(NAMES) and notes["target_group"] == "amyloid"
    if pipeline.makes_masks:  # HCM was never met
        met = {conditions.describe(label)["group"] for label, count in enumerate(conditions.frequencies) if count}
        assert met == {"amyloid", "athlete"}
    quick = {"num_inference_steps": 1} if pipeline.denoises else {}
    images = tmp_path / "images"
    generate_images(run, images, 4, sampling=Sampling({"group": "athlete"}, **quick))
    shown = [json.loads(line) for line in (images / "manifest.jsonl").read_text().splitlines()]
    assert all("athlete" in (line.get("group"), line["class"]) for line in shown)
    with pytest.raises(InputError, match="choose among any, HCM, amyloid, athlete"):
        generate_images(run, tmp_path / "refused", 4, sampling=Sampling({"group": "NOR"}, **quick))

    report = score(tmp_path / "report", images=images, dataset=folder, groups=("athlete",))
    assert report.dataset.groups == ["athlete"] and report.seen_groups == list(NAMES)
    if pipeline.makes_masks:
        assert report.asked_groups == ["athlete"] and "mask_thick_share_athlete_ed" in report.rows["generated"]
    card = render_card("ada/hearts", notes, "hcm_hf", report, axes=conditions.axes if pipeline.makes_masks else {})
    assert "amyloid" in card and "NOR" not in card and "DCM" not in card and "{{" not in card
    if pipeline.makes_masks:
        assert "| group | HCM, amyloid, athlete |" in card and '{"group": "amyloid", "phase": "ED"' in card
        assert "without a group it is amyloid" in card and "like those of the dataset's amyloid patients" in card


def test_the_disease_of_interest_is_what_a_model_of_one_group_learns_and_is_compared_with(config, folder, tmp_path):
    run = train(replace(config, family="dcgan"))
    notes = read_training(run)
    assert notes["groups"] == ["amyloid"] and notes["target_group"] == "amyloid"
    images = generate_images(run, tmp_path / "images", 4)
    assert score(tmp_path / "report", images=images, dataset=folder).dataset.groups == ["amyloid"]
    chosen = score(tmp_path / "chosen", images=images, dataset=folder, target_group="athlete")
    assert chosen.dataset.groups == ["athlete"]
    assert "images of class amyloid are compared with slices of athlete" in chosen.to_markdown()


def test_a_dataset_without_the_disease_of_interest_is_one_sentence_before_anything_is_written(config, tmp_path):
    for family, recipe in (("dcgan", "paper"), *CONDITIONAL):
        refused = replace(config, family=family, recipe=recipe, target_group="NOR")
        with pytest.raises(InputError, match="^The dataset has no group 'NOR'; name one of HCM, amyloid, athlete as"):
            train(refused)
    with pytest.raises(InputError, match="^Unknown group 'NOR' in groups; choose among HCM, amyloid, athlete"):
        train(replace(config, family="dcgan", groups=("NOR",)))
    assert not (tmp_path / "run").exists()


def test_a_model_of_other_groups_is_compared_by_name_or_not_at_all(others, folder, dataset_dir, config, tmp_path):
    """ACDC's HCM is this dataset's second group, and this one's HCM, of whom there are no patients, its first."""
    images = generate_images(train(replace(config, family="dcgan")), tmp_path / "images", 4)
    with pytest.raises(InputError, match="no group 'amyloid'; name one of DCM, HCM"):
        score(tmp_path / "report", images=images, dataset=dataset_dir)
    with pytest.raises(InputError, match="trained on amyloid, and the dataset has only DCM, HCM, MINF, NOR, RV; name"):
        score(tmp_path / "report", images=images, dataset=dataset_dir, groups=("HCM",), target_group="HCM")
    with pytest.raises(InputError, match="'train' has no slices of HCM in ED or ES"):
        score(tmp_path / "report", images=images, dataset=folder, target_group="HCM")
    assert not (tmp_path / "report").exists()


def test_an_encoder_has_the_groups_of_its_dataset(others):
    vocabulary = Vocabulary.of(others)
    for family in INSTRUMENTS.values():
        objective = family.recipes["default"].build(16, vocabulary)
        assert tuple(objective.encoder.config.groups) == NAMES
        assert objective.encoder(torch.zeros(2, 1, 16, 16)).group_logits.shape == (2, 3)
    train_slices = Slices(others["train"], NAMES)
    assert train_slices.groups == NAMES and set(train_slices.class_labels.tolist()) == {1, 2}


def test_scores_against_one_cohort_of_several(others, tmp_path, config):
    """The patients of the test split are of two hospitals; images are compared with those of one."""
    two = others["test"]
    labels = ["here" if group == NAMES.index("amyloid") else "there" for group in two["group"]]
    two = two.remove_columns("cohort").add_column("cohort", labels).cast(two.features)
    datasets.DatasetDict(dict(others) | {"test": two}).save_to_disk(dataset := tmp_path / "two")
    images = generate_images(train(replace(config, family="dcgan")), tmp_path / "images", 4)
    report = score(tmp_path / "report", images=images, dataset=dataset, cohort="here")
    assert report.dataset.cohort == "here" and ", cohort here" in report.to_markdown().splitlines()[0]
    assert Report.load(tmp_path / "report").dataset == report.dataset
    with pytest.raises(InputError, match="'test' has no slices of amyloid in ED or ES"):
        score(tmp_path / "other", images=images, dataset=dataset, cohort="there")
    with pytest.raises(InputError, match="no slices of the cohort 'elsewhere'; its cohorts are here, there"):
        score(tmp_path / "other", images=images, dataset=dataset, cohort="elsewhere")
