"""Generate images into a folder; run the same command again to continue.

python scripts/generate.py --model runs/dcgan --output_dir images/dcgan
python scripts/generate.py --model runs/ddpm --output_dir images/ddpm --scheduler ddim --num_inference_steps 50
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
    save_npy: bool = False,
    save_nifti: bool = False,
) -> None:
    """Generate images into a folder; run the same command again to continue.

    Args:
        model: folder or repository (user/name) of a saved pipeline or of a training run.
        output_dir: a new folder, or one that an earlier call with the same model and seed began.
        num_images: number of images.
        batch_size: images per call of the model; it does not change the images.
        seed: image i of a seed is always the same.
        class_labels: the class of the images, where the model is conditional.
        scheduler: of a diffusion model: ddpm (the default), ddim, dpmsolver++ or unipc.
        num_inference_steps: calls of a diffusion model per image; by default 1000 for ddpm, 50 for ddim, else 20.
        save_npy: also save each image as float32 in [0, 1].
        save_nifti: also save all images as one NIfTI volume.
    """
    hcm_hf.generate_images(
        model,
        output_dir,
        num_images,
        batch_size,
        seed,
        class_labels=class_labels,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        save_npy=save_npy,
        save_nifti=save_nifti,
    )
    print(f"images: {output_dir}")


if __name__ == "__main__":
    run(main)
