"""Runs that are stopped, killed or continued equal those that are not."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import WEIGHTS, assert_same_run, metrics, of_model, signal_after, small_config, tensors, written
from safetensors.torch import load_file
from tiny import MODELS, build_tiny, sample

from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training import run as runs
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError, Interrupted


every_model = pytest.mark.parametrize(("family", "recipe"), MODELS)


@pytest.fixture(scope="module")
def whole(shrunk, dataset_dir, teachers, tmp_path_factory):
    """The uninterrupted run of a model, with averaged weights, each trained once."""
    folder, trained = tmp_path_factory.mktemp("whole"), {}

    def train_once(family, recipe):
        if (family, recipe) not in trained:
            config = small_config(dataset_dir, folder / family / recipe, ema_decay=0.9)
            trained[family, recipe] = train(of_model(config, family, recipe, teachers))
        return trained[family, recipe]

    return train_once


@every_model
def test_a_run_leaves_what_it_promises(family, recipe, whole):
    output_dir = whole(family, recipe)
    steps = [record for record in metrics(output_dir) if "validation_loss" not in record]
    validations = [record for record in metrics(output_dir) if "validation_loss" in record]
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    assert [record["epoch"] for record in validations] == [1, 2]
    length = len(steps) // 2
    assert [record["epoch"] for record in steps] == [1] * length + [2] * length
    best = min(validations, key=lambda record: record["validation_loss"])
    assert written(output_dir / "best")["progress"]["best_step"] == best["step"]
    assert written(output_dir / "best")["family"] == family
    assert [path.name for path in (output_dir / "samples").iterdir()] == ["epoch-0002.png"]
    assert (output_dir / "losses.png").exists()
    for name in ("best", "last"):
        assert sample(family, HCMPipeline.from_pretrained(output_dir / name)).shape == (3, 16, 16, 1)
    assert not [path for path in output_dir.rglob("*") if path.name.endswith((".tmp", ".previous", ".bin", ".pt"))]
    files = [path for path in output_dir.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.stat().st_mode for path in files} == {(output_dir / "metrics.jsonl").stat().st_mode}


@pytest.mark.parametrize("family", FAMILIES)
def test_averaged_weights_are_saved_and_sampled(family, whole):
    state, sampled = tensors(whole(family, "paper")), build_tiny(family).sampled
    saved = load_file(next((whole(family, "paper") / "last").rglob(WEIGHTS)))
    assert all(torch.equal(saved[name], state[f"average.{name}"]) for name in saved)
    assert any(not torch.equal(saved[name], state[f"objective.{sampled}.{name}"]) for name in saved)


@every_model
def test_killed_and_resumed_equals_uninterrupted(family, recipe, whole, config, teachers, monkeypatch):
    """A crash between checkpoints: the steps after the last one are made again, and logged once."""
    config = replace(of_model(config, family, recipe, teachers), ema_decay=0.9)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(runs.Run, "sample", crash)
        train(config)
    assert metrics(Path(config.output_dir))[-1]["epoch"] == 2
    assert (
        written(Path(config.output_dir) / "last")["progress"]["step"] == len(metrics(whole(family, recipe))) // 2 - 1
    )
    assert_same_run(whole(family, recipe), train(config))


def crash(run, epoch):
    raise MemoryError


@pytest.mark.parametrize(
    ("family", "recipe", "number"), [("dcgan", "paper", signal.SIGTERM), ("ddpm", "tuned", signal.SIGINT)]
)
def test_interrupted_and_resumed_equals_uninterrupted(family, recipe, number, whole, config):
    config = replace(config, family=family, recipe=recipe, ema_decay=0.9)
    with pytest.raises(Interrupted, match="run the same command to go on") as stop, signal_after(2, number):
        train(config)
    assert stop.value.signal_number == number
    assert (
        written(Path(config.output_dir) / "last")["progress"]["step"] == 2 < metrics(whole(family, recipe))[-1]["step"]
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_run(whole(family, recipe), train(config))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_terminal_that_closes_and_a_scheduler_stop_a_run_with_its_state_saved(number, config):
    """And a second signal acts as it did before the training."""
    received, before = [], signal.getsignal(number)
    signal.signal(number, lambda number, frame: received.append(number))
    try:
        with pytest.raises(Interrupted) as stop, signal_after(1, number):
            train(replace(config, num_epochs=100_000))
        assert stop.value.signal_number == number and not received
        os.kill(os.getpid(), number)
        assert received == [number]
    finally:
        signal.signal(number, before)
    saved = written(Path(config.output_dir) / "last")
    assert saved["progress"]["step"] == metrics(Path(config.output_dir))[-1]["step"]


def test_more_epochs_go_on_and_a_finished_run_stays(config):
    output_dir = train(replace(config, num_epochs=1))
    before = metrics(output_dir)
    assert metrics(train(replace(config, num_epochs=1))) == before
    after = metrics(train(config))
    assert after[: len(before)] == before and after[-1]["epoch"] == 2


@pytest.mark.parametrize("family", ["dcgan", "acgan"])
def test_a_run_from_before_there_was_a_target_group_goes_on(family, whole, config):
    config = replace(config, family=family, ema_decay=0.9)
    output_dir = train(replace(config, num_epochs=1))
    for folder in (output_dir, output_dir / "last", output_dir / "best"):
        noted = written(folder)
        assert noted.pop("target_group") == "HCM"
        (folder / "training_config.json").write_text(json.dumps(noted | {"sizes": {}}))
    with pytest.raises(InputError, match="holds a run with target_group HCM, not NOR"):
        train(replace(config, target_group="NOR"))
    assert_same_run(whole(family, "paper"), train(config))
    assert written(output_dir)["target_group"] == "HCM"
