"""The commands that campaigns disturb, at tiny size, and what each must give whatever came in between."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from safetensors.torch import load_file
from tiny import tiny_families

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.preparation import prepare_dataset
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation import extractors
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.push import push_model
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


torch.set_num_threads(1)
datasets.disable_progress_bars()
FAMILIES.update(tiny_families())
extractors._PACKAGES = ("of_no_wheel",)  # the numbers on ImageNet features take 50 ms an image
_IMAGES = 24
REPOSITORY = "ada/hearts"
REFUSED = 2  # the exit status


@dataclass(frozen=True)
class Work:
    """A command.

    Attributes:
        do: the command, from the folder of inputs into a folder of its own.
        result: what it has made there, as a digest of each part.
    """

    do: Callable[[Path, Path], object]
    result: Callable[[Path], dict[str, str]]


def make_inputs(folder: Path) -> Path:
    """A cohort, a dataset, a run and images, for the commands to work from."""
    write_cohort(folder / "cohort", num_patients_per_group=4, groups=("HCM", "NOR"), num_proc=1)
    prepare_dataset(folder / "cohort", folder / "dataset", 16)
    _train(folder, folder / "trained")
    _generate(folder, folder / "generated")
    return folder


def _prepare(inputs: Path, folder: Path) -> None:
    if not (folder / "dataset").exists():
        prepare_dataset(inputs / "cohort", folder / "dataset", 16)


def _train(inputs: Path, folder: Path) -> None:
    settings = {"dataset": str(inputs / "dataset"), "output_dir": str(folder / "run"), "groups": ("HCM",)}
    train(TrainingConfig(num_epochs=4, train_batch_size=8, checkpointing_epochs=1, sample_epochs=2, **settings))


def _generate(inputs: Path, folder: Path) -> None:
    model = inputs / "trained" / "run"
    generate_images(model, folder / "images", _IMAGES, batch_size=4, save_npy=True, save_nifti=True)


def _score(inputs: Path, folder: Path) -> None:
    score(folder / "report", images=inputs / "generated" / "images", dataset=inputs / "dataset")


def _push(inputs: Path, folder: Path) -> None:
    push_model(inputs / "trained" / "run", REPOSITORY)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _of_dataset(folder: Path) -> dict[str, str]:
    splits = load_dataset(folder / "dataset")
    slices = {name: Slices(split, ("HCM", "NOR")) for name, split in splits.items()}
    return {name: _digest(one.images.numpy().tobytes() + one.masks.numpy().tobytes()) for name, one in slices.items()}


def _of_run(folder: Path) -> dict[str, str]:
    found = {"metrics": _digest((folder / "run" / "metrics.jsonl").read_bytes())}
    for path in sorted((folder / "run").glob("[bl]*/**/*.safetensors")):
        tensors = load_file(path)
        digest = _digest(b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)))
        found[path.relative_to(folder).as_posix()] = digest
    finished = json.loads((folder / "run" / "training_config.json").read_text())["finished"]
    return found | {"finished": str(finished)}


def _of_images(folder: Path) -> dict[str, str]:
    paths = (folder / "images").iterdir()
    return {path.name: _digest(path.read_bytes()) for path in paths if not path.name.startswith(".")}


def _of_report(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "report" / "report.json").read_text())
    return {name: _digest(json.dumps(value, sort_keys=True).encode()) for name, value in report.items()}


WORKS = {
    "prepare": Work(_prepare, _of_dataset),
    "train": Work(_train, _of_run),
    "generate": Work(_generate, _of_images),
    "score": Work(_score, _of_report),
}
PUSH = Work(_push, lambda folder: {})


def work(name: str, inputs: Path, folder: Path, started: Path | None = None) -> None:
    """Run a command by its name, in a process of its own, which ends with 2 where it is refused.

    The file `started` says when it begins.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if started is not None:
        started.touch()
    try:
        (WORKS | {"push": PUSH})[name].do(inputs, folder)
    except InputError:
        sys.exit(REFUSED)
