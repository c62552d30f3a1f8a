"""The figures of a reproduction."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageDraw

from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.images import read_images, read_split
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training.curves import loss_curves
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.training.run import LOSS_FIGURE, METRICS_FILE
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import INSTRUMENT_FOLDERS, TARGET_GROUP
from hcm_hf.utils.pictures import save_png, write_rows


def draw_figures(
    runs: str | Path,
    images: str | Path,
    output_dir: str | Path,
    dataset: str | Path | None = None,
    families: Sequence[str] | None = None,
    columns: int = 10,
    seed: int = 0,
    target_group: str = TARGET_GROUP,
) -> Path:
    """Draw the figures of https://doi.org/10.17163/ings.n34.2025.09 for the families that are there.

    Args:
        runs: folder with the run folders of `train`, named as in `FAMILIES`, and `encoder`.
        images: folder with the folders of `generate_images`, of the same names.
        output_dir: gets `families.png` (real slices of the test split above the first images of each family; the
            study's figure 4), `losses.png` (the loss curves of each family and of the encoder; figures 5 to 8) and, in
            a folder for each family that a user can control, `controls.png`.
        dataset: the prepared dataset; by default the synthetic cohort.
        families: the families to draw; by default all.
        columns: images in a row.
        seed: seed of the choice of real slices and of the latents of `controls.png`.
        target_group: the disease of interest, of which the real slices are.

    Returns:
        `output_dir`.

    Raises:
        InputError: if no family is there, or images do not fit the dataset.
    """
    runs, images, output_dir = Path(runs), Path(images), Path(output_dir)
    wanted = [family for family in FAMILIES if families is None or family in families]
    at_least("columns", columns, 1)
    trained = [family for family in wanted if (runs / family / METRICS_FILE).is_file()]
    drawn = {family: read_images(images / family)[0] for family in wanted if (images / family).is_dir()}
    if not trained:
        raise InputError(f"runs {runs} holds no run of a family; name the folder that holds {', '.join(wanted)}.")
    if not drawn:
        raise InputError(f"images {images} holds no images of a family; name the folder that holds those of each.")
    real = read_split(load_dataset(dataset), "test", (target_group,)).images
    for family, generated in drawn.items():
        if generated.shape[1:] != real.shape[1:]:
            raise InputError(
                f"{images / family} holds images of {generated.shape[2]} px, the dataset of {real.shape[2]} px; "
                "name their dataset."
            )
    pipelines = {family: HCMPipeline.from_pretrained(runs / family) for family in trained}

    encoder = [runs / "encoder" / name for name in INSTRUMENT_FOLDERS]
    encoder = [run for run in encoder if (run / METRICS_FILE).is_file()]
    write_losses([*(runs / family for family in trained), *encoder], output_dir / LOSS_FIGURE)
    for family, pipeline in pipelines.items():
        if not pipeline.denoises:
            write_controls(pipeline, output_dir / family / "controls.png", columns, seed)
    chosen = np.random.default_rng(seed).permutation(len(real))[:columns]
    rows = {"real": [real[chosen]]} | {family: [generated[:columns]] for family, generated in drawn.items()}
    write_rows(rows, output_dir / "families.png")
    return output_dir


def write_losses(runs: Sequence[Path], figure_file: str | Path, columns: int = 3) -> None:
    """Write the loss curves of run folders into one PNG file, each under the name of its run, `columns` in a row."""
    margin = 24
    with TemporaryDirectory() as folder:
        for index, run in enumerate(runs):
            curves = Path(folder) / LOSS_FIGURE
            loss_curves(run / METRICS_FILE, curves)
            with Image.open(curves) as picture:
                tile = picture.convert("RGB").reduce(2)
            width, height = tile.width, tile.height + margin
            if not index:
                size = min(columns, len(runs)) * width, -(-len(runs) // columns) * height
                canvas = Image.new("RGB", size, "white")
            left, top = index % columns * width, index // columns * height
            ImageDraw.Draw(canvas).text((left + width / 2, top + 12), run.name, "black", anchor="mm", font_size=16)
            canvas.paste(tile, (left, top + margin))
    save_png(canvas, figure_file)


def write_controls(pipeline: HCMPipeline, figure_file: str | Path, num_images: int = 10, seed: int = 0) -> bool:
    """Write one row of images for each control of a network: InfoGAN's codes, AC-GAN's classes.

    Args:
        pipeline: the model.
        figure_file: the PNG file to write; there is none for a network without controls.
        num_images: images in a row, unless the network says how many.
        seed: seed of the latents that the rows share.

    Returns:
        Whether a figure was written.
    """
    latents = pipeline.network.sample_latents(num_images, torch.Generator().manual_seed(seed))
    rows = {
        name: [pipeline(latents=row, class_labels=label, output_type="np").images[..., 0]]
        for name, (row, label) in pipeline.network.controls(latents).items()
    }
    if rows:
        write_rows(rows, figure_file)
    return bool(rows)
