"""What tests read off the folder of a training run, and how they stop one."""

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from hcm_hf.training import checkpoint
from hcm_hf.training import run as runs
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.recipes import FAMILIES


WEIGHTS = "diffusion_pytorch_model.safetensors"


def small_config(dataset, output_dir, **changes):
    """A training on the cohort's patients with HCM: three steps an epoch."""
    settings = {"groups": ("HCM",), "num_epochs": 2, "train_batch_size": 16, "checkpointing_epochs": 1}
    return TrainingConfig(
        dataset=str(dataset), output_dir=str(output_dir), **settings | {"sample_epochs": 2} | changes
    )


def of_model(config, family, recipe, teachers):
    """The configuration for a family's recipe; students get their teacher."""
    taught = FAMILIES[family].recipes[recipe].taught_by
    return replace(config, family=family, recipe=recipe, teacher=teachers[taught] if taught else None)


def metrics(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def written(folder):
    return json.loads((folder / "training_config.json").read_text())


def tensors(output_dir, name="last"):
    return load_file(output_dir / name / checkpoint.STATE_FILE)


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    for name in ("best", "last"):
        weights = [load_file(next((run / name).rglob(WEIGHTS))) for run in (one, other)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@contextmanager
def signal_after(step, number=signal.SIGTERM):
    """Deliver a real signal to this process when a run has logged a step."""
    log = runs.Run.log

    def logged(run, record, epoch):
        log(run, record, epoch)
        if run.state.progress.step == step and "validation_loss" not in record:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "log", logged)
        yield
