"""Training in two processes, under `accelerate launch`, and in mixed precision."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from parallel import in_two_processes, needs_a_fork
from runs import assert_same_run, metrics, small_config, tensors, written
from tiny import build_tiny, files_of

from hcm_hf.generation.images import generate_images
from hcm_hf.training.loop import _agreed, _average_gradients, batch_indices, train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.devices import make_accelerator
from hcm_hf.utils.errors import InputError


SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
SHARED = [*((family, "paper") for family in FAMILIES), ("ddpm", "tuned"), ("vae", "tuned")]
RESUMED = [("dcgan", "paper"), ("vae", "tuned")]


def test_processes_share_the_batch():
    whole = batch_indices(10, 8, 3, seed=0)
    parts = [batch_indices(10, 8, 3, seed=0, process_index=rank, num_processes=2) for rank in (0, 1)]
    assert (np.stack(parts, axis=1).flatten() == whole).all()


def train_all(dataset, folder):
    """Every family for a step, and two models for two epochs, at once and one by one."""
    for family, recipe in SHARED:
        length = {"num_epochs": 2} if (family, recipe) in RESUMED else {"num_steps": 1}
        config = small_config(dataset, folder / f"{family}-{recipe}", family=family, recipe=recipe, **length)
        train(replace(config, train_batch_size=8))
    for family, recipe in RESUMED:
        config = small_config(dataset, folder / f"{family}-{recipe}-in-halves", family=family, recipe=recipe)
        for num_epochs in (1, 2):
            train(replace(config, train_batch_size=8, num_epochs=num_epochs))


@needs_a_fork
def test_two_processes_share_the_batch_stay_equal_and_resume(config, tmp_path):
    """Every family runs in two processes; its first loss is that of one process with the same batch.

    Where batch normalisation sees half of the batch, in DCGAN, AC-GAN and InfoGAN, the losses are only alike.
    """
    in_two_processes(train_all, config.dataset, tmp_path / "two")
    for family, recipe in SHARED:
        name = f"{family}-{recipe}"
        output_dir = str(tmp_path / "one" / name)
        one = train(replace(config, family=family, recipe=recipe, num_steps=1, output_dir=output_dir))
        first, expected = (metrics(folder)[0] for folder in (tmp_path / "two" / name, one))
        mixes_slices = any(isinstance(module, torch.nn.BatchNorm2d) for module in build_tiny(family).modules())
        assert first == pytest.approx(expected, rel=0.3 if mixes_slices else 1e-4)
        assert written(tmp_path / "two" / name)["num_processes"] == 2
    for family, recipe in RESUMED:
        assert_same_run(tmp_path / "two" / f"{family}-{recipe}", tmp_path / "two" / f"{family}-{recipe}-in-halves")
    # What they remember of the slices is of all of them.
    one, two = (tensors(tmp_path / number / "ddpm-tuned")["objective.label_counts"] for number in ("one", "two"))
    assert torch.equal(one, two)
    with pytest.raises(InputError, match="holds a run with"):  # one process would not go on from the same batches
        train(replace(config, output_dir=str(tmp_path / "two" / "dcgan-paper"), train_batch_size=8))


def average_gradients():
    accelerator = make_accelerator()
    assert accelerator.num_processes == 2
    network = torch.nn.Linear(2, 3)
    for parameter in network.parameters():
        gradient = 4.0 * accelerator.process_index + torch.arange(parameter.numel())
        parameter.grad = gradient.reshape(parameter.shape)
    reduce, messages = accelerator.reduce, []
    accelerator.reduce = lambda tensor, how: messages.append(tensor.shape) or reduce(tensor, how)
    _average_gradients(network, accelerator)
    assert torch.equal(network.weight.grad, 2 + torch.arange(6.0).reshape(3, 2))
    assert torch.equal(network.bias.grad, 2 + torch.arange(3.0))
    assert len(messages) == 1  # of all parameters together
    assert _agreed(15 * accelerator.process_index, accelerator) == 15


@needs_a_fork
def test_gradients_of_two_processes_are_averaged():
    in_two_processes(average_gradients)


def test_the_processes_of_torchrun_share_the_images(tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "model")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    asked = ["--model", str(tmp_path / "model"), "--num_images", "3", "--output_dir", str(tmp_path / "two")]
    result = subprocess.run(
        [*torchrun, str(SCRIPT.with_name("generate.py")), *asked],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    assert result.returncode == 0 and "2/2" in result.stderr, result.stderr  # the first makes two of three
    generate_images(tmp_path / "model", tmp_path / "one", 3)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_trains_every_family_and_is_not_mixed_with_full_precision(family, config):
    config = replace(config, family=family, num_steps=1)
    assert written(train(replace(config, mixed_precision="bf16")))["mixed_precision"] == "bf16"
    with pytest.raises(InputError, match="holds a run with mixed_precision bf16, not no"):
        train(config)


def test_a_call_knows_nothing_of_the_precision_of_the_one_before(config, tmp_path, monkeypatch):
    config = replace(config, family="vae", num_epochs=1)

    def precision(name, **told):
        return written(train(replace(config, output_dir=str(tmp_path / name), **told)))["mixed_precision"]

    def images(name):
        generate_images(tmp_path / "full", tmp_path / name, num_images=4)
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))]

    assert precision("full") == "no"
    before = images("before")
    assert precision("half", mixed_precision="bf16") == "bf16"
    assert images("after") == before
    assert precision("again") == "no" and precision("told", mixed_precision="no") == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # what `accelerate launch` was told
    assert precision("launched") == "bf16"
    generate_images(tmp_path / "full", tmp_path / "fast", 1)
    assert '"mixed_precision": "bf16"' in (tmp_path / "fast" / "generation.json").read_text()


def test_a_signal_to_accelerate_launch_stops_the_run_with_its_state_saved(config):
    output_dir = Path(config.output_dir)
    flags = [f"--dataset={config.dataset}", f"--output_dir={output_dir}", "--train_batch_size=8", "--groups", "HCM"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", str(SCRIPT), *flags]
    launcher = subprocess.Popen(
        [*command, "--num_epochs=100000", "--checkpointing_epochs=1"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: (output_dir / "metrics.jsonl").exists() and len(metrics(output_dir)) > 3)
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(30)
    lock = FileLock(output_dir / ".lock", timeout=30)
    with lock:  # the training process has let go
        steps = [record["step"] for record in metrics(output_dir)]
    assert written(output_dir / "last")["progress"]["step"] == steps[-1]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
