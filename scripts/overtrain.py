"""A control for the test of copies: the tuned model over-trained on a few slices, which has to fail it.

python scripts/overtrain.py --dataset data/acdc-64 --output_dir overtrained
"""

from pathlib import Path

import datasets
import numpy as np

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import replacing


REPEATS = 64  # of each slice, so that an epoch is many steps


def main(
    output_dir: Path,
    dataset: str | None = None,
    num_slices: int = 20,
    num_epochs: int = 40,
    num_images: int = 200,
    seed: int = 0,
) -> None:
    """A control for the test of copies: the tuned model over-trained on a few slices, which has to fail it.

    Args:
        output_dir: gets the dataset of these slices, the run, its last model's images and their report.
        dataset: folder of a prepared dataset; by default the synthetic cohort.
        num_slices: HCM slices of training patients to learn by heart.
        num_epochs: passes over 64 times these slices.
        num_images: images to be tested.
        seed: of the choice of slices, of training and images.
    """
    splits = hcm_hf.load_dataset(dataset)
    groups = splits["train"].features["group"]
    rows = [row for row, group in enumerate(splits["train"]["group"]) if groups.int2str(group) == "HCM"]
    if not 1 <= num_slices <= len(rows):
        raise InputError(f"--num_slices is {num_slices}; choose from 1 to {len(rows)}.")
    chosen = np.random.default_rng(seed).choice(rows, num_slices, replace=False)
    folder = output_dir / f"dataset-{num_slices}-{seed}"
    if not folder.exists():
        with replacing(folder) as temporary:
            few = splits["train"].select(np.tile(np.sort(chosen), REPEATS))
            datasets.DatasetDict(dict(splits) | {"train": few}).save_to_disk(temporary)
    config = hcm_hf.TrainingConfig(
        family="ddpm",
        recipe="tuned",
        dataset=str(folder),
        output_dir=str(output_dir / "run"),
        groups=("HCM",),
        num_epochs=num_epochs,
        seed=seed,
    )
    model = hcm_hf.train(config) / "last"  # the best one is not over-trained
    images = hcm_hf.generate_images(model, output_dir / "images", num_images, seed=seed)
    report = hcm_hf.score(output_dir / "report", images=images, dataset=folder, seed=seed)
    rate, real = (report["rows"][row]["copy_rate"]["value"] for row in ("generated", "real"))
    print(f"copy rate {rate:.3f} of {num_images} images, {real:.3f} of held-out slices: {output_dir / 'report'}")


if __name__ == "__main__":
    run(main)
