"""Draw the study's figures: a row of images for each family, loss curves, and what codes and classes do.

python scripts/figures.py --runs runs --images images --dataset data/acdc-64 --output_dir figures
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    runs: Path, images: Path, output_dir: Path, dataset: str | None = None, columns: int = 10, seed: int = 0
) -> None:
    """Draw the study's figures: a row of images for each family, loss curves, and what codes and classes do.

    Args:
        runs: holds the families' run folders: runs/vae, runs/gan and so on.
        images: holds folders of generated images of the same names.
        output_dir: gets families.png and, by family, losses.png and controls.png.
        dataset: folder of the prepared dataset; by default the synthetic cohort.
        columns: images in a row.
        seed: of the choice of real slices and of the latents of controls.png.
    """
    hcm_hf.draw_figures(runs, images, output_dir, dataset, columns, seed)
    print(f"figures: {output_dir}")


if __name__ == "__main__":
    run(main)
