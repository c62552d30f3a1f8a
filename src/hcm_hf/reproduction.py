"""The study's figures, drawn from the runs and images of all families."""

from pathlib import Path

import numpy as np

from hcm_hf.data.dataset import load_dataset
from hcm_hf.errors import InputError
from hcm_hf.evaluation import read_images, read_split
from hcm_hf.families import FAMILIES
from hcm_hf.figures import loss_curves, write_controls, write_rows
from hcm_hf.pipeline import HCMPipeline, LatentPipeline
from hcm_hf.runs import LOSS_FIGURE, METRICS_FILE


def draw_figures(
    runs: str | Path,
    images: str | Path,
    output_dir: str | Path,
    dataset: str | Path | None = None,
    columns: int = 10,
    seed: int = 0,
) -> Path:
    """Draw the figures of https://doi.org/10.17163/ings.n34.2025.09 for the families that are there.

    The folder gets `families.png` (real HCM slices of the test split above the first images of each family; the
    study's figure 4) and, in a folder for each family, `losses.png` (figures 5 to 8) and, where a user can control
    more than noise, `controls.png`.

    Args:
        runs: holds the run folders of `train`, one for each family, named as in `FAMILIES`.
        images: holds the folders of `generate_images`, of the same names.
        output_dir: the folder to write to.
        dataset: the prepared dataset; by default the synthetic cohort.
        columns: images in a row.
        seed: of the choice of real slices and of the latents of `controls.png`.

    Returns:
        The folder.

    Raises:
        InputError: if no family is there, or images do not fit the dataset.
    """
    runs, images, output_dir = Path(runs), Path(images), Path(output_dir)
    if columns < 1:
        raise InputError(f"--columns is {columns}; it must be at least 1.")
    trained = [family for family in FAMILIES if (runs / family / METRICS_FILE).is_file()]
    drawn = {family: read_images(images / family)[0] for family in FAMILIES if (images / family).is_dir()}
    if not trained:
        raise InputError(f"--runs {runs} holds no run of a family; name the folder that holds {', '.join(FAMILIES)}.")
    if not drawn:
        raise InputError(f"--images {images} holds no images of a family; name the folder that holds those of each.")
    real = read_split(load_dataset(dataset), "test", ("HCM",)).images
    for family, generated in drawn.items():
        if generated.shape[1:] != real.shape[1:]:
            raise InputError(
                f"{images / family} holds images of {generated.shape[2]} px, the dataset of {real.shape[2]} px; "
                "name their --dataset."
            )
    pipelines = {family: HCMPipeline.from_pretrained(runs / family) for family in trained}

    for family, pipeline in pipelines.items():
        loss_curves(runs / family / METRICS_FILE, output_dir / family / LOSS_FIGURE)
        if isinstance(pipeline, LatentPipeline):
            write_controls(pipeline, output_dir / family / "controls.png", columns, seed)
    chosen = np.random.default_rng(seed).permutation(len(real))[:columns]
    rows = {"real": [real[chosen]]} | {family: [generated[:columns]] for family, generated in drawn.items()}
    write_rows(rows, output_dir / "families.png")
    return output_dir
