"""Draw the study's figures: one row of images for each family, loss curves, and what codes and classes do.

python scripts/figures.py --runs runs --images images --dataset data/acdc-64 --output_dir figures
"""

import json
from pathlib import Path

import numpy as np

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.evaluation import read_images, read_split
from hcm_hf.figures import loss_curves, write_controls, write_rows
from hcm_hf.runs import LOSS_FIGURE, METRICS_FILE


def main(
    runs: Path, images: Path, output_dir: Path, dataset: str | None = None, columns: int = 10, seed: int = 0
) -> None:
    """Draw the study's figures from the runs and images of the families that are there.

    Args:
        runs: holds the families' run folders: runs/vae, runs/gan and so on.
        images: holds folders of generated images of the same names.
        output_dir: gets families.png (real slices above the first images of each family, as the study's figure 4)
            and, by family, losses.png (figures 5 to 8) and controls.png.
        dataset: folder of the prepared dataset; by default the synthetic cohort.
        columns: images in a row.
        seed: of the choice of real slices and of the latents of controls.png.
    """
    for folder in (runs, images):
        if not folder.is_dir():
            raise hcm_hf.InputError(f"{folder} does not exist; name the folder of all families' runs or images.")
    real = read_split(hcm_hf.load_dataset(dataset), "test", ("HCM",)).images
    rows = {"real": [real[np.random.default_rng(seed).permutation(len(real))[:columns]]]}
    for family in hcm_hf.FAMILIES:
        if (images / family).is_dir():
            rows[family] = [read_images(images / family)[0][:columns]]
        if (runs / family / METRICS_FILE).is_file():
            loss_curves(runs / family / METRICS_FILE, output_dir / family / LOSS_FIGURE)
            pipeline = hcm_hf.HCMPipeline.from_pretrained(runs / family)
            if isinstance(pipeline, hcm_hf.LatentPipeline):
                write_controls(pipeline, output_dir / family / "controls.png", columns, seed)
            seconds = json.loads((runs / family / "last" / "training_config.json").read_text())["progress"]["seconds"]
            print(f"{family}: trained in {seconds:.0f} s")
    write_rows(rows, output_dir / "families.png")
    print(f"figures: {output_dir}")


if __name__ == "__main__":
    run(main)
