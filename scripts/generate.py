"""python scripts/generate.py --model runs/dcgan --output_dir images/dcgan"""

python scripts/generate.py --model runs/dcgan --output_dir images/dcgan
python scripts/generate.py --model runs/ddpm --output_dir images/ddpm --scheduler ddim --num_inference_steps 50
python scripts/generate.py --model runs/tuned --output_dir images/tuned --class_labels any --save_nifti --save_dataset
torchrun --nproc_per_node 2 scripts/generate.py --model runs/dcgan --output_dir images/dcgan    # two processes
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    model: str,
    output_dir: Path,
    num_images: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    save_npy: bool = False,
    save_nifti: bool = False,
    save_dataset: bool = False,
) -> None:
    """Generate images into a folder; run the same command again to continue.

    Args:
        model: folder or repository (user/name) of a saved pipeline or of a training run.
        output_dir: a new folder, or one that an earlier call with the same model and seed began.
        num_images: number of images.
        batch_size: images per call of the model; it does not change the images.
        seed: image i of a seed is always the same.
        class_labels: what the images show, where the model is conditional: NOR, or where it makes segmentations also
            "HCM ED mid", or any (all groups as in training); by default HCM.
        scheduler: of a diffusion model: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default its own.
        num_inference_steps: calls of a diffusion model per image; by default the model's own number, with another
            scheduler 1000 for ddpm, 50 for ddim, else 20.
        guidance_scale: how closely a diffusion model with classes follows them; by default 1, no guidance.
        save_npy: also save each image as float32 in [0, 1].
        save_nifti: also save all images as one NIfTI volume, and all segmentations as another.
        save_dataset: also save images and segmentations as a prepared dataset, which train.py --dataset reads.
    """
    hcm_hf.generate_images(
        model,
        output_dir,
        num_images,
        batch_size,
        seed,
        sampling=hcm_hf.Sampling(None, class_labels, scheduler, num_inference_steps, guidance_scale),
        save_npy=save_npy,
        save_nifti=save_nifti,
        save_dataset=save_dataset,
    )
    print(f"images: {output_dir}")
    if save_dataset:
        print(f"dataset: {output_dir / 'dataset'}")


if __name__ == "__main__":
    main("generate")
