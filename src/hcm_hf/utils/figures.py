"""Pictures: grids of images and loss curves."""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from hcm_hf.pipelines.auto import LatentPipeline
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_bytes


if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Of right ventricle, myocardium and left ventricle, a mask's values 1 to 3: Okabe and Ito's, which all eyes can tell.
STRUCTURE_COLORS = {"rv": (86, 180, 233), "myo": (240, 228, 66), "lv": (213, 94, 0)}
_TINT = 0.15  # opacity within the outlines


def image_grid(rows: Sequence[np.ndarray], scale: int = 2, gap: int = 2) -> Image.Image:
    """Lay out rows of images, one array per row, on white.

    Args:
        rows: arrays (N, H, W) in [0, 1], or (N, H, W, 3) in colour, all of one image size; N may differ.
        scale: whole-number enlargement of each pixel.
        gap: white pixels between images.
    """
    height, width = (side * scale + gap for side in rows[0].shape[1:3])
    columns = max(map(len, rows))
    canvas = np.full((len(rows) * height - gap, columns * width - gap, *rows[0].shape[3:]), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
            tile = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[i * height : i * height + height - gap, j * width : j * width + width - gap] = tile
    return Image.fromarray(canvas)


def draw_masks(images: np.ndarray, masks: np.ndarray, scale: int = 2) -> np.ndarray:
    """Images with the structures of their masks outlined and tinted in `STRUCTURE_COLORS`.

    Args:
        images: (N, H, W) in [0, 1].
        masks: whole numbers (N, H, W), 0 to 3.
        scale: whole-number enlargement; outlines are half an image's pixel wide.

    Returns:
        (N, H scale, W scale, 3) in [0, 1].
    """
    images, masks = (array.repeat(scale, axis=1).repeat(scale, axis=2) for array in (images, masks))
    height, width = masks.shape[1:]
    reach = max(1, scale // 2)
    padded = np.pad(masks, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    corners = ((0, reach), (2 * reach, reach), (reach, 0), (reach, 2 * reach))
    neighbours = [padded[:, top : top + height, left : left + width] for top, left in corners]
    edges = np.any([neighbour != masks for neighbour in neighbours], axis=0)
    opacity = np.where(masks == 0, 0, np.where(edges, 1, _TINT))[..., None]
    colors = np.array([(0, 0, 0), *STRUCTURE_COLORS.values()])[masks] / 255
    return (1 - opacity) * np.clip(images, 0, 1)[..., None] + opacity * colors


def save_png(image: Image.Image, path: str | Path) -> None:
    """Save a picture as PNG, whole or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def write_grid(
    real: np.ndarray, generated: np.ndarray, figure_file: str | Path, columns: int = 10, seed: int = 0
) -> None:
    """Write a row of random real images above three rows of generated ones, the first there are: none is chosen.

    Args:
        real: (N, H, W) in [0, 1].
        generated: (M, H, W) in [0, 1], of the same size.
        figure_file: the PNG file to write.
        columns: images in a row, at most.
        seed: which real images.
    """
    chosen = np.random.default_rng(seed).permutation(len(real))[:columns]
    generated = generated[: 3 * columns]
    rows = [generated[i : i + columns] for i in range(0, len(generated), columns)]
    write_rows({"real": [real[chosen]], "generated": rows}, figure_file)


def write_rows(rows: Mapping[str, Sequence[np.ndarray]], figure_file: str | Path) -> None:
    """Write rows of images with what they are at their left, each label at the middle of its rows.

    Args:
        rows: by label, one or more arrays (N, H, W) in [0, 1], or (N, H, W, 3) in colour, all of one image size.
        figure_file: the PNG file to write.
    """
    arrays = [row for group in rows.values() for row in group]
    grid = image_grid(arrays, scale=max(1, 128 // arrays[0].shape[1]))
    row, margin = grid.height / len(arrays), 20
    canvas = Image.new(grid.mode, (grid.width + margin, grid.height), "white")
    canvas.paste(grid, (margin, 0))
    top = 0.0
    for text, group in rows.items():
        height = row * len(group)
        label = Image.new("L", (round(height), margin), 255)
        ImageDraw.Draw(label).text((height / 2, margin / 2), text, fill=0, anchor="mm", font_size=14)
        canvas.paste(label.rotate(90, expand=True), (0, round(top)))
        top += height
    save_png(canvas, figure_file)


def write_controls(pipeline: LatentPipeline, figure_file: str | Path, num_images: int = 10, seed: int = 0) -> bool:
    """Write one row for each thing that a user can control: InfoGAN's codes, AC-GAN's classes.

    Args:
        pipeline: the model.
        figure_file: the PNG file to write.
        num_images: images in a row, where the network does not say how many.
        seed: of the latents that the rows have in common.

    Returns:
        Whether there was something to write: a network without controls has no such figure.
    """
    latents = pipeline.network.sample_latents(num_images, torch.Generator().manual_seed(seed))
    rows = {
        name: [pipeline(latents=row, class_labels=label, output_type="np").images[..., 0]]
        for name, (row, label) in pipeline.network.controls(latents).items()
    }
    if rows:
        write_rows(rows, figure_file)
    return bool(rows)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure to be saved, of so many inches; it has no backend and needs none."""
    backend = os.environ.pop("MPLBACKEND", None)
    fresh = "matplotlib" not in sys.modules
    import matplotlib  # slow to import
    from matplotlib.figure import Figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        if fresh:
            with suppress(ValueError):  # a notebook names one that is installed for its own Python alone
                matplotlib.rcParams["backend"] = backend
    return Figure(figsize=(width, height), layout="constrained")


def loss_curves(metrics_file: str | Path, figure_file: str | Path) -> None:
    """Plot a run's losses by epoch: training losses together, the validation loss below with its best epoch marked.

    Args:
        metrics_file: a run's metrics.jsonl.
        figure_file: the picture to write.

    Raises:
        InputError: if the metrics hold no training loss.
    """
    records = [json.loads(line) for line in Path(metrics_file).read_text(encoding="utf-8").splitlines()]
    training = [record for record in records if "validation_loss" not in record]
    validation = [record for record in records if "validation_loss" in record]
    if not training:
        raise InputError(f"{metrics_file} holds no training loss; train for a step or more.")
    buffer = io.BytesIO()
    plot_losses(training, validation).savefig(buffer, dpi=120, format="png")
    write_bytes(figure_file, buffer.getvalue())


def plot_losses(training: list[dict], validation: list[dict]) -> "Figure":
    """The figure of `loss_curves`.

    Args:
        training: records of metrics.jsonl with the losses of a step, one or more.
        validation: records with a validation loss; may be empty.
    """
    steps_per_epoch = validation[0]["step"] / validation[0]["epoch"] if validation else 1
    unit = "epoch" if validation else "step"
    figure = new_figure(7, 5.5)
    above, below = figure.subplots(2, 1, sharex=True)
    steps = np.array([record["step"] for record in training]) / steps_per_epoch
    for name in (name for name in training[0] if name.endswith("_loss")):
        values = np.array([record[name] for record in training])
        line = above.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
        above.plot(*_means(steps, values), color=line.get_color(), label=name.removesuffix("_loss"))
    above.set_ylabel("training loss")
    above.legend()
    if validation:
        steps = np.array([record["step"] for record in validation]) / steps_per_epoch
        values = np.array([record["validation_loss"] for record in validation])
        best = values.argmin()
        label = f"best: {values[best]:.4g} at {unit} {steps[best]:g}"
        below.plot(steps, values, color="tab:green")
        below.plot(steps[best], values[best], "o", color="tab:red", label=label)
        below.set_yscale("log" if values.max() > 10 * values.min() > 0 else "linear")
        below.legend()
    below.set_ylabel("validation loss (lower is better)")
    below.set_xlabel(unit)
    return figure


def _means(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means within whole units of `steps`."""
    units = np.ceil(steps).astype(int)
    names = np.unique(units)
    return names, np.array([values[units == name].mean() for name in names])
