"""Damaged files of what the package wrote itself: refused in one sentence, or harmless; never another image."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny import tiny_families

from campaigns.outcomes import Outcomes
from hcm_hf.data.dataset import load_dataset, read_preparation
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.preparation import prepare_dataset
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.images import read_images, read_pairs
from hcm_hf.generation.images import generate_images
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES


FEW = 2  # images of a try
_OF_PAIRS = ("diffusion model", "images that are scored", "images that are added to")
KINDS = ("dataset", "run that goes on", "GAN", *_OF_PAIRS)


@dataclass(frozen=True)
class Kept:
    """A folder that the package wrote.

    Attributes:
        folder: the folder.
        use: what is done with it; returns what must not differ from what the whole folder gives.
    """

    folder: Path
    use: Callable[[Path], object]


def damage(folder: Path, outcomes: Outcomes, tries: int = 300, of: tuple[str, ...] = (), random_seed: int = 0) -> None:
    """Flip bits of, cut short, empty and remove files of a dataset, a run, a model and a folder of images.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        tries: for each of them.
        of: the folders; by default all.
        random_seed: of the places.
    """
    FAMILIES.update(tiny_families())
    source = random.Random(random_seed)
    for name, kept in _make(folder, of or KINDS).items():
        expected = kept.use(shutil.copytree(kept.folder, folder / "copy"))
        shutil.rmtree(folder / "copy")
        for _ in range(tries):
            copy = shutil.copytree(kept.folder, folder / "copy")
            fault, tried = _spoil(copy, source)

            def attempt(copy: Path = copy, expected: object = expected, kept: Kept = kept) -> None:
                found = kept.use(copy)
                assert _equal(found, expected), "a wrong result, and no sentence"

            outcomes.record(f"{name}: {fault}", attempt, tried)
            shutil.rmtree(copy)


def _spoil(folder: Path, source: random.Random) -> tuple[str, str]:
    """Damage one file; return how, and which at what byte."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = source.choice(files)
    data = bytearray(path.read_bytes())
    fault = source.choice(["a bit flipped", "a bit flipped", "cut short", "emptied", "zeros", "removed"])
    place = source.randrange(len(data))
    if fault == "a bit flipped":
        data[place] ^= 1 << source.randrange(8)
    elif fault == "cut short":
        del data[place:]
    elif fault == "zeros":  # as a power cut leaves it on some file systems
        data[place:] = bytes(len(data) - place)
    elif fault == "emptied":
        data.clear()
    if fault == "removed":
        path.unlink()
    else:
        path.write_bytes(data)
    return fault, f"{path.relative_to(folder)}, byte {place}"


def _equal(one: object, other: object) -> bool:
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def _make(folder: Path, of: tuple[str, ...]) -> dict[str, Kept]:
    """Some of a dataset, a run, two models and images, each tiny."""
    write_cohort(folder / "cohort", num_patients_per_group=4, groups=("HCM", "NOR"), num_proc=1)
    prepare_dataset(folder / "cohort", folder / "dataset", 16)
    settings = {"groups": ("HCM",), "num_epochs": 1, "train_batch_size": 16, "dataset": str(folder / "dataset")}
    run, pairs, images = folder / "run", folder / "pairs", folder / "images"
    train(TrainingConfig(output_dir=str(run), **settings))
    sampling = Sampling(num_inference_steps=2)
    if set(of) & set(_OF_PAIRS):
        train(TrainingConfig("ddpm", "tuned", output_dir=str(pairs), **settings))
        generate_images(pairs, images, FEW, sampling=sampling)

    def slices(place: Path) -> object:
        splits = load_dataset(place)
        chosen = Slices(splits["train"], ("HCM",))
        return [chosen.images.numpy(), chosen.masks.numpy(), chosen.patients, read_preparation(place)["source"]]

    def go_on(place: Path) -> object:
        again = train(TrainingConfig(output_dir=str(place), **settings | {"num_epochs": 2}))
        state = HCMPipeline.from_pretrained(again / "last").network.state_dict()
        return [state[name].numpy() for name in sorted(state)]

    def draw(place: Path) -> object:
        pipeline = HCMPipeline.from_pretrained(place)
        pipeline.set_progress_bar_config(disable=True)
        steps = {"num_inference_steps": 2} if pipeline.denoises else {}
        return pipeline(FEW, generator=torch.Generator().manual_seed(0), output_type="np", **steps).images

    def read(place: Path) -> object:
        made, pairs = read_images(place), read_pairs(place)
        return [made[0], made[1].model, *(list(vars(pairs).values()) if pairs else [None])]

    def add(place: Path) -> object:
        return read(generate_images(pairs, place, FEW, sampling=sampling))

    kinds = {
        "dataset": Kept(folder / "dataset", slices),
        "run that goes on": Kept(run, go_on),
        "GAN": Kept(run / "best", draw),
        "diffusion model": Kept(pairs / "best", draw),
        "images that are scored": Kept(images, read),
        "images that are added to": Kept(images, add),
    }
    return {name: kinds[name] for name in of}
