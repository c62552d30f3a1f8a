"""Quality and time of a model, of a diffusion model by sampler and number of denoising steps; run again to go on.

python scripts/sweep_steps.py --model runs/ddpm --dataset data/acdc-64 --encoder runs/encoder --output_dir steps
python scripts/sweep_steps.py --model runs/ddpm-tuned --dataset data/acdc-64 --encoder runs/encoder --output_dir walls
    --split validation --seeds 0 1 2 --groups HCM NOR --schedulers ddim dpmsolver++ sde-dpmsolver++ --steps 4 10 20
python scripts/sweep_steps.py --model runs/dcgan --dataset data/acdc-64 --encoder runs/encoder --output_dir seeds
    --num_images 1000 --seeds 0 1 2
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    model: str,
    output_dir: Path,
    dataset: str | None = None,
    encoder: Path | None = None,
    schedulers: tuple[str, ...] | None = None,
    steps: tuple[int, ...] | None = None,
    num_images: int = 200,
    seeds: tuple[int, ...] = (0,),
    split: str = "test",
    groups: tuple[str, ...] = ("HCM",),
) -> None:
    """Quality and time of a model, of a diffusion model by the number of denoising steps; run again to go on.

    Args:
        model: folder or repository (user/name) of a model or of its training run.
        output_dir: gets a report for each setting, steps.json and steps.md.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        encoder: folder of the encoder trained on that dataset.
        schedulers: of a diffusion model: ddpm, ddim, dpmsolver++, sde-dpmsolver++, unipc; by default ddpm and unipc.
        steps: of a diffusion model: calls of the network per image, by default 1 2 4 10 20 50; 1000 with ddpm is the
            whole chain.
        num_images: images of each.
        seeds: of images and evaluation; of several the table has the mean, the lowest and the highest.
        split: the held-out split; choose settings on "validation".
        groups: of the images and the real slices; beyond the first, walls alone are in the table.
    """
    hcm_hf.sweep_steps(model, output_dir, dataset, encoder, schedulers, steps, num_images, seeds, split, groups)
    print(f"table: {output_dir / 'steps.md'}")


if __name__ == "__main__":
    run(main)
