"""Reproduce the study: dataset, encoder, six families, images, reports, table and figures.

python scripts/reproduce.py --acdc ACDC/database/training
python scripts/reproduce.py --dataset data/acdc-64 --families vae dcgan --num_epochs 20    # a part of it, cut short
python scripts/reproduce.py    # on the synthetic cohort
"""

from pathlib import Path
from typing import Literal

import hcm_hf
from hcm_hf.cli import run


def main(
    acdc: Path | None = None,
    dataset: Path | None = None,
    recipe: str = "paper",
    families: tuple[str, ...] = (),
    resolution: int | None = None,
    num_images: int = 1000,
    num_epochs: int | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    work_dir: Path | None = None,
    output_dir: Path | None = None,
) -> None:
    """Reproduce the study; run the same command again to go on, it skips what is done.

    Args:
        acdc: the ACDC folder or its .zip.
        dataset: a folder that prepare_dataset.py wrote, instead; with neither, the synthetic cohort.
        recipe: of the families.
        families: the families to work on; by default all that have the recipe.
        resolution: pixels a side; by default the dataset's, else 64.
        num_images: generated images of each family.
        num_epochs: cuts every training to as many epochs.
        scheduler: of diffusion models: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default the recipe's.
        num_inference_steps: of diffusion models; by default the recipe's. 1000 is the whole chain of the study's.
        seed: of training, generation and evaluation; it does not move a patient to another split.
        mixed_precision: of training, as accelerate has it; runs that are finished stay as they are.
        work_dir: dataset, runs, images and reports; by default reproduction/SOURCE-RESOLUTION-RECIPE.
        output_dir: the results; by default docs/results/SOURCE-RESOLUTION-RECIPE.
    """
    hcm_hf.reproduce(
        acdc=acdc,
        dataset=dataset,
        recipe=recipe,
        families=families,
        resolution=resolution,
        num_images=num_images,
        num_epochs=num_epochs,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        seed=seed,
        mixed_precision=mixed_precision,
        work_dir=work_dir,
        output_dir=output_dir,
    )


if __name__ == "__main__":
    run(main)
