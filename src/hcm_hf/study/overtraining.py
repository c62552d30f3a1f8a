"""A positive control for the test for copies: the tuned model, over-trained on a few slices."""

from pathlib import Path

import datasets
import numpy as np

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import replacing
from hcm_hf.utils.names import TARGET_GROUP


REPEATS = 64  # of each slice, so that an epoch is many steps


def overtrain(
    output_dir: str | Path,
    dataset: str | Path | None = None,
    num_slices: int = 20,
    num_epochs: int = 40,
    num_images: int = 200,
    seed: int = 0,
    target_group: str = TARGET_GROUP,
) -> str:
    """Over-train the tuned model on a few slices: its images must fail the test for copies.

    Args:
        output_dir: gets the dataset of these slices, the run, the images of its last model and their report.
        dataset: folder of a prepared dataset; by default the synthetic cohort.
        num_slices: number of the target group's slices of training patients to memorise.
        num_epochs: passes over 64 times these slices.
        num_images: number of images to test.
        seed: seed of the choice of slices, of training and images.
        target_group: the disease of interest.

    Returns:
        The copy rates in a sentence.

    Raises:
        InputError: if the dataset has no such group, or fewer slices of it than `num_slices`.
    """
    output_dir, splits = Path(output_dir), load_dataset(dataset)
    vocabulary = Vocabulary.of(splits, target_group)
    index = vocabulary.groups.index(vocabulary.target)
    rows = [row for row, group in enumerate(splits["train"]["group"]) if group == index]
    if not 1 <= num_slices <= len(rows):
        raise InputError(f"num_slices is {num_slices}; choose from 1 to {len(rows)}.")
    chosen = np.random.default_rng(seed).choice(rows, num_slices, replace=False)
    folder = output_dir / f"dataset-{num_slices}-{seed}"
    if not folder.exists():
        with replacing(folder) as temporary:
            few = splits["train"].select(np.tile(np.sort(chosen), REPEATS))
            datasets.DatasetDict(dict(splits) | {"train": few}).save_to_disk(temporary)
    config = TrainingConfig(
        family="ddpm",
        recipe="tuned",
        dataset=str(folder),
        output_dir=str(output_dir / "run"),
        groups=(target_group,),
        target_group=target_group,
        num_epochs=num_epochs,
        seed=seed,
    )
    model = train(config) / "last"  # the best one is not over-trained
    images = generate_images(model, output_dir / "images", num_images, seed=seed)
    report = score(output_dir / "report", images=images, dataset=folder, target_group=target_group, seed=seed)
    rate, real = (report.rows[row]["copy_rate"].value for row in ("generated", "real"))
    return f"copy rate {rate:.3f} of {num_images} images, {real:.3f} of held-out slices: {output_dir / 'report'}"
