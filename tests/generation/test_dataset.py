import json
import tracemalloc

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image
from tiny import ACDC, build_tiny, notes, tiny_families

import hcm_hf
from hcm_hf.data import parquet
from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.dataset import read_preparation
from hcm_hf.data.schema import SPLITS, features
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.images import read_pairs, read_split
from hcm_hf.generation.dataset import plan_dataset, write_dataset
from hcm_hf.generation.images import generate_images, image_generator
from hcm_hf.hub.cards import render_card
from hcm_hf.hub.push import push_dataset
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.objectives.paired import find_labels
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


FEW_STEPS = {"sampling": Sampling({"group": "any"}, num_inference_steps=2)}
ONE_STEP = {"sampling": Sampling(num_inference_steps=1)}


@pytest.fixture(scope="module")
def images(paired_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "pairs"
    return generate_images(paired_model, folder, 60, seed=3, save_dataset=True, **FEW_STEPS)


def index_of(patient):
    assert patient.startswith("synthetic-") and len(patient) == len("synthetic-000000")
    return int(patient.removeprefix("synthetic-"))


def test_every_slice_is_there_once_as_its_own_patient(images):
    splits = hcm_hf.load_dataset(images / "dataset", resolution=16)
    assert tuple(splits) == SPLITS and all(split.features == features(GROUPS) for split in splits.values())
    patients = [row["patient"] for split in splits.values() for row in split]
    assert sorted(map(index_of, patients)) == list(range(60))
    shares = {name: len(split) / 60 for name, split in splits.items()}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.04)
    for row in (row for split in splits.values() for row in split):
        name = f"{index_of(row['patient']):06}"
        for column, suffix in (("image", ".png"), ("mask", "_mask.png")):
            with Image.open(images / f"{name}{suffix}") as picture:
                np.testing.assert_array_equal(np.asarray(row[column]), np.asarray(picture))
        assert row["pixel_spacing"] == 8 and {
            row[key] for key in ("frame", "slice_thickness", "height", "weight")
        } == {None}


def test_many_slices_become_several_files_that_datasets_streams(images, paired_model, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_OF_FILE", 16)
    monkeypatch.setattr(parquet, "_ROWS", 5)
    folder = generate_images(paired_model, tmp_path / "images", 60, seed=3, save_dataset=True, **FEW_STEPS) / "dataset"
    assert len(list(folder.glob("data/train-0000?-of-00003.parquet"))) == 3
    whole = hcm_hf.load_dataset(images / "dataset")
    for name, split in datasets.load_dataset(str(folder), streaming=True).items():
        assert list(split) == list(whole[name]) and split.features == whole[name].features
    moved = folder.rename(tmp_path / "draws [1] of *")  # no pattern
    assert list(hcm_hf.load_dataset(moved)["test"]) == list(whole["test"])
    (moved / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match="train-00001-of-00003.parquet is missing, and train-00000-of-00003.parquet"):
        hcm_hf.load_dataset(moved)


def test_the_slices_are_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS", 50)
    Image.effect_noise((64, 64), 50).save(tmp_path / "image.png")
    Image.new("L", (64, 64)).save(tmp_path / "mask.png")
    count, size = 2000, (tmp_path / "image.png").stat().st_size
    entry = {"file": "image.png", "mask": "mask.png", "group": "HCM", "phase": "ED", "level": "mid"}
    report = plan_dataset(["HCM"] * count, 64, 0, {"model": "ada/hearts"}, {})
    tracemalloc.start()
    try:
        write_dataset(tmp_path, lambda index: entry, report, GROUPS, tmp_path / "dataset")
        assert tracemalloc.get_traced_memory()[1] < count * size / 4
    finally:
        tracemalloc.stop()
    assert sum(map(len, hcm_hf.load_dataset(tmp_path / "dataset").values())) == count


def test_a_cache_that_cannot_be_written_is_named(images, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    with pytest.raises(InputError, match=r"Cannot write .*file/datasets"):
        hcm_hf.load_dataset(images / "dataset")


def test_labels_come_back_as_the_pipeline_drew_them(images, paired_model):
    pipeline, pairs = HCMPipeline.from_pretrained(paired_model), read_pairs(images)
    for name, split in hcm_hf.load_dataset(images / "dataset").items():
        slices = Slices(split, GROUPS)
        indices = [index_of(patient) for patient in slices.patients]
        drawn = pipeline.draw_labels(len(indices), [image_generator(3, index) for index in indices], "any")
        assert torch.equal(find_labels(slices.batch(slice(None)), ACDC), drawn)
        real = read_split({name: split}, name)
        np.testing.assert_array_equal(real.levels, 3 * pairs.phases[indices] + pairs.thirds[indices])
        np.testing.assert_array_equal(real.groups, pairs.groups[indices])
        np.testing.assert_array_equal(real.masks, pairs.masks[indices])


def test_the_preparation_says_where_the_slices_come_from(images, paired_model):
    preparation = read_preparation(images / "dataset")
    assert (preparation["source"], preparation["resolution"], preparation["seed"]) == ("generated", 16, 3)
    settings = json.loads((images / "manifest.jsonl").read_text().splitlines()[0])
    generator = preparation["generator"]
    assert all(
        generator[key] == settings[key] for key in ("model_hash", "seed", "class", "scheduler", "guidance_scale")
    )
    assert (generator["model"], generator["dataset_source"]) == ("paired", "acdc")  # and no path of this machine
    assert sum(row["slices"] for row in preparation["slices"]) == 60
    assert "10.1109/TMI.2018.2837502" in (images / "dataset" / "README.md").read_text()
    license_of = {split.info.license for split in hcm_hf.load_dataset(images / "dataset").values()}
    assert generator["license"] == "cc-by-nc-sa-4.0" and license_of == {"cc-by-nc-sa-4.0"}


@pytest.mark.parametrize("family, recipe", [("ddpm", "tuned"), ("segmenter", "default")])
def test_models_train_on_it_and_inherit_its_licence(images, tmp_path, monkeypatch, family, recipe):
    for name, tiny in tiny_families().items():
        monkeypatch.setitem(FAMILIES, name, tiny)
    dataset = str(images / "dataset")
    options = {"num_epochs": 1, "train_batch_size": 16, "seed": 1}
    output_dir = train(TrainingConfig(family, recipe, dataset, str(tmp_path / "run"), groups=GROUPS, **options))
    written = json.loads((output_dir / "training_config.json").read_text())
    assert written["finished"] and written["num_train_slices"] == len(hcm_hf.load_dataset(dataset)["train"])
    assert (written["dataset_source"], written["dataset_license"]) == ("generated", "cc-by-nc-sa-4.0")
    assert written["train_patients"]["generator:patient001"] == ["0123456789abcdef"]  # who must not be held out
    if family == "ddpm":
        card = render_card("user/hearts", written, "hcm_hf")
        assert "license: cc-by-nc-sa-4.0" in card and "Synthetic slices of" in card and "One hospital" not in card


def test_it_goes_to_the_hub_under_the_licence_of_its_model(hub, images):
    push_dataset(images / "dataset", "ada/drawn", private=False)  # like its model: no patient is in it
    card = hub.files("dataset", "ada/drawn")["README.md"].decode()
    assert DatasetCard(card).data.license == "cc-by-nc-sa-4.0" and "10.1109/TMI.2018.2837502" in card
    assert "all of them generated" in card and "seed 3 and i, class any; sde-dpmsolver++, 2 steps" in card
    assert "as the patients that the model learnt from" in card and "{{" not in card
    after = hcm_hf.load_dataset("ada/drawn")
    assert after["train"].info.license == "cc-by-nc-sa-4.0" and after["train"].features == features(GROUPS)


def test_more_images_make_a_new_dataset(paired_model, tmp_path):
    for num_images in (30, 40):
        generate_images(paired_model, tmp_path / "images", num_images, save_dataset=True, **FEW_STEPS)
        splits = hcm_hf.load_dataset(tmp_path / "images" / "dataset")
        assert sum(map(len, splits.values())) == num_images


def test_a_model_of_the_synthetic_cohort_gives_free_slices_and_one_of_nowhere_unknown_ones(paired_model, tmp_path):
    pipeline = HCMPipeline.from_pretrained(paired_model)
    for source, shown in (("synthetic", "apache-2.0"), (None, "unknown")):
        pipeline.save_pretrained(tmp_path / shown)
        if source:
            (tmp_path / shown / "training_config.json").write_text(json.dumps(notes(dataset_source=source)))
        else:
            (tmp_path / shown / "training_config.json").unlink()
        folder = generate_images(tmp_path / shown, tmp_path / f"of-{shown}", 20, save_dataset=True, **ONE_STEP)
        split = hcm_hf.load_dataset(folder / "dataset")["train"]
        assert split.info.license == shown and not split.info.citation
        assert "10.1109/TMI" not in (folder / "dataset" / "README.md").read_text()


@pytest.mark.parametrize(
    ("num_images", "class_labels", "message"),
    [
        (10, "HCM", "save_dataset puts 2 slices or more in each split, and 10 make 7 for train, 1 for validation"),
        (100, "RV", "with class_labels 'RV': .* labels would be wrong; it has met those of DCM, HCM, MINF, NOR."),
    ],
)
def test_what_makes_no_dataset_is_said_before_anything_is_made(
    paired_model, tmp_path, num_images, class_labels, message
):
    asked = Sampling(class_labels=class_labels)
    with pytest.raises(InputError, match=message):
        generate_images(paired_model, tmp_path / "images", num_images, sampling=asked, save_dataset=True)
    assert not (tmp_path / "images").exists()


def test_labels_that_a_model_does_not_know_are_not_invented(paired_model, tmp_path):
    index = json.loads((paired_model / "model_index.json").read_text())
    axes = {
        "phase": ["ED", "ES"],
        "level": ["base", "mid", "apex"],
        "scanner": ["one", "two", "three", "four", "five"],
    }
    HCMPipeline.from_pretrained(paired_model).save_pretrained(tmp_path / "model")
    changed = index | {"axes": [[name, answers] for name, answers in axes.items()], "defaults": {}}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="save_dataset needs the group of each slice, and this model knows phase: ED"):
        generate_images(tmp_path / "model", tmp_path / "images", 60, save_dataset=True, **ONE_STEP)
    assert not (tmp_path / "images").exists()
    folder = generate_images(tmp_path / "model", tmp_path / "images", 2, **ONE_STEP)
    assert read_pairs(folder).groups.tolist() == ["", ""] and (read_pairs(folder).phases >= 0).all()
    untrained = build_tiny("ddpm", recipe="tuned").pipeline()
    untrained.save_pretrained(tmp_path / "untrained")
    with pytest.raises(InputError, match="it has met those of no group"):
        generate_images(tmp_path / "untrained", tmp_path / "none", 60, save_dataset=True)
    assert not (tmp_path / "none").exists()
