"""The encoder of the evaluation, in the same loop."""

import sys
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest
import torch
from runs import assert_same_run, metrics, signal_after, small_config, written
from tiny import ACDC, resized

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.identity import shared_patients
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.models import SliceEncoder
from hcm_hf.training.encoder import train_encoder
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import INSTRUMENTS
from hcm_hf.utils.errors import InputError, Interrupted


SCRIPT = Path(__file__).parents[2] / "scripts" / "train_encoder.py"


@pytest.fixture(scope="module", params=["features", "segmenter"])
def whole(request, shrunk, dataset_dir, tmp_path_factory):
    """The uninterrupted run of one of the two networks."""
    changes = {"family": request.param, "recipe": "default", "groups": None, "sample_epochs": 1}
    return train(small_config(dataset_dir, tmp_path_factory.mktemp("whole") / request.param, **changes))


@pytest.fixture
def encoder_config(whole, config):
    """The settings of the same run in another folder."""
    return replace(config, family=written(whole)["family"], recipe="default", groups=None, sample_epochs=1)


def test_an_interrupted_encoder_resumed_equals_an_uninterrupted_one(whole, encoder_config):
    with pytest.raises(Interrupted, match="run the same command to go on"), signal_after(3):
        train(encoder_config)
    stopped = written(Path(encoder_config.output_dir) / "last")["progress"]["step"]
    assert stopped == 3 < metrics(whole)[-1]["step"]
    assert_same_run(whole, train(encoder_config))


def test_how_often_samples_are_drawn_does_not_change_an_encoder(whole, encoder_config):
    """A look at the segmentation in the middle of training leaves no trace."""
    assert len(list((whole / "samples").iterdir())) == 2
    assert_same_run(whole, train(replace(encoder_config, sample_epochs=100)))


def test_a_trained_encoder_is_loaded_as_the_judge_that_it_was_validated_as(whole, splits):
    best, last = (SliceEncoder.from_pretrained(whole / name).eval() for name in ("best", "last"))
    validations = [record["validation_loss"] for record in metrics(whole) if "validation_loss" in record]
    objective = INSTRUMENTS[written(whole)["family"]].recipes["default"].build(16, ACDC).eval()
    validation = Slices(splits["validation"], GROUPS).batch(slice(None))
    for one, expected in ((best, min(validations)), (last, validations[-1])):
        objective.encoder.load_state_dict(one.state_dict())
        with torch.no_grad():
            assert objective.validation_loss(validation).item() == pytest.approx(expected, rel=1e-5)
    assert best.config.sample_size == 16


def test_the_configuration_says_who_the_training_patients_are_and_nobody_else(whole, splits):
    hashes = {name: Slices(split, GROUPS).identities() for name, split in splits.items()}
    for folder in (whole, whole / "best", whole / "last"):
        assert written(folder)["train_patients"] == hashes["train"]
    assert set(hashes["train"]) == set(splits["train"]["patient"])
    assert not any(shared_patients(hashes[split], hashes["train"]) for split in ("validation", "test"))


def test_the_encoders_script_trains_both_networks_and_says_where_they_are(
    shrunk, dataset_dir, tmp_path, capsys, monkeypatch
):
    options = {"dataset": dataset_dir, "output_dir": tmp_path / "encoder", "num_epochs": 1, "seed": 3}
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["train_encoder.py", *flags])
    run_path(str(SCRIPT), run_name="__main__")
    said, encoder = capsys.readouterr().out, load_encoder(tmp_path / "encoder")
    for name, label in (("features", "feature encoder"), ("segmenter", "segmenter")):
        assert f"{label}: {tmp_path / 'encoder' / name / 'best'}\n" in said
        noted = written(tmp_path / "encoder" / name)
        assert (noted["family"], noted["recipe"], noted["seed"]) == (name, "default", 3)
        assert noted["groups"] == list(GROUPS)
        assert vars(encoder)[name].train_patients == noted["train_patients"]
    with pytest.raises(InputError, match="features holds a run of one network; choose another output_dir"):
        train_encoder(tmp_path / "encoder" / "features", str(dataset_dir))


def test_an_encoder_that_does_not_fit_the_dataset_is_refused(config, monkeypatch):
    """At 16 px the recipe's four halvings just fit; five do not."""
    recipes = INSTRUMENTS["segmenter"].recipes
    recipe = resized(recipes["default"], {"encoder": {"block_out_channels": (4, 4, 4, 4, 4)}})
    monkeypatch.setitem(recipes, "default", recipe)
    with pytest.raises(InputError, match="segmenter cannot be built for this dataset: .* must be a multiple of 32"):
        train(replace(config, family="segmenter", recipe="default", groups=None))
    assert not Path(config.output_dir).exists()
