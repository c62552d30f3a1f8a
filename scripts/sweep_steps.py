"""Quality and time of a diffusion model by the number of denoising steps; run again to go on.

python scripts/sweep_steps.py --model runs/ddpm --dataset data/acdc-64 --encoder runs/encoder --output_dir steps
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    model: str,
    output_dir: Path,
    dataset: str | None = None,
    encoder: Path | None = None,
    schedulers: tuple[str, ...] = ("ddpm", "unipc"),
    steps: tuple[int, ...] = (1, 2, 4, 10, 20, 50),
    num_images: int = 200,
    seed: int = 0,
) -> None:
    """Quality and time of a diffusion model by the number of denoising steps; run again to go on.

    Args:
        model: folder or repository (user/name) of a diffusion model or of its training run.
        output_dir: gets a report for each setting, steps.json and steps.md.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        encoder: folder of the encoder trained on that dataset.
        schedulers: ddpm, ddim, dpmsolver++, unipc.
        steps: calls of the network per image; 1000 with ddpm is the whole chain.
        num_images: images of each.
        seed: of images and evaluation.
    """
    hcm_hf.sweep_steps(model, output_dir, dataset, encoder, schedulers, steps, num_images, seed)
    print(f"table: {output_dir / 'steps.md'}")


if __name__ == "__main__":
    run(main)
