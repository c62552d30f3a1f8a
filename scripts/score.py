"""python scripts/score.py --images images/dcgan --dataset data/acdc-64 --output_dir reports/dcgan"""

python scripts/score.py --images images/dcgan --dataset data/acdc-64 --encoder runs/encoder --output_dir reports/dcgan
python scripts/score.py --model runs/dcgan --dataset data/acdc-64 --output_dir reports/dcgan    # generates 1,000 first
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    output_dir: Path,
    images: Path | None = None,
    model: str | None = None,
    dataset: str | None = None,
    split: str = "test",
    groups: tuple[str, ...] = ("HCM",),
    encoder: Path | None = None,
    num_images: int = 1000,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    paper_compat: bool = False,
    seed: int = 0,
) -> None:
    """Score generated images against real slices of training and held-out patients.

    Args:
        output_dir: gets report.json, report.md and figures.
        images: folder of generated images.
        model: folder or repository (user/name) of a model to generate them with, into OUTPUT_DIR/images; with
            --images the model that made them. Only with the study's DDPM at hand can it be tested for what it
            remembers.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        split: the held-out split.
        groups: the ACDC groups to compare with.
        encoder: folder of the encoder trained on that dataset, see train_encoder.py; without one distances of
            distributions and anatomy are left out.
        num_images: number of images to generate with --model.
        class_labels: their class, where the model is conditional.
        scheduler: of a diffusion model: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default the model's own.
        num_inference_steps: calls of a diffusion model per image; by default the model's own number for its own
            scheduler, else 1000 for ddpm, 50 for ddim and 20 for the others.
        guidance_scale: of a diffusion model with classes: above 1, which is none, these are followed more closely.
        paper_compat: also score with a wrong data range, labelled as an artefact, to show what it gives.
        seed: of generation, pairs and resamples.
    """
    hcm_hf.score(
        output_dir,
        images=images,
        model=model,
        dataset=dataset,
        split=split,
        groups=groups,
        encoder=encoder,
        num_images=num_images,
        sampling=hcm_hf.Sampling(None, class_labels, scheduler, num_inference_steps, guidance_scale),
        paper_compat=paper_compat,
        seed=seed,
    )
    print(f"report: {output_dir / 'report.md'}\ngrid: {output_dir / 'grid.png'}")


if __name__ == "__main__":
    main("score")
