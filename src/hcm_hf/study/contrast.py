"""Groups beside each other: slices that a model draws for each, and how thick their walls are."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from hcm_hf.data.cropping import FIELD_OF_VIEW
from hcm_hf.metrics.anatomy import THICK, closed_wall_thickness
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.study.walls import draw_request
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import replacing, require_empty
from hcm_hf.utils.pictures import draw_masks
from hcm_hf.version import __version__


if TYPE_CHECKING:
    from matplotlib.figure import Figure


_COLUMNS, _MOST_SHOWN = 8, 24  # pictures in a row, and of a group


@dataclass(frozen=True)
class Contrast:
    """The walls that were drawn for each group; `str()` is what people read.

    Attributes:
        walls: mm, by group, of each pair the greatest; not a number where the wall is no closed ring.
        figure: the picture of the pairs.
        table: all walls, as CSV.
    """

    walls: dict[str, np.ndarray]
    figure: Path
    table: Path

    def __str__(self) -> str:
        lines = []
        for group, walls in self.walls.items():
            closed = walls[np.isfinite(walls)]
            measured = f"{group}: {len(closed)} of {len(walls)} walls are closed rings"
            if len(closed):
                share = np.mean(closed >= THICK)
                measured += f", {np.median(closed):.1f} mm thick in the median, {share:.0%} of {THICK:g} mm or more"
            lines.append(measured)
        return "\n".join([*lines, f"figure: {self.figure}", f"walls: {self.table}"])


def contrast_groups(
    output_dir: str | Path,
    model: str | Path = "hcm-acgan-64",
    groups: Sequence[str] = ("HCM", "NOR"),
    num_images: int = 64,
    seed: int = 0,
) -> Contrast:
    """Draw slices of the middle of the heart at end diastole for each group, and measure their walls.

    Args:
        output_dir: a new or empty folder, for groups.png, walls.csv and groups.json, which says what drew them.
        model: a model that makes segmentations: a folder, a repository, or one that comes with the package.
        groups: what is drawn.
        num_images: for each group.
        seed: image i of each group comes from (seed, i).

    Returns:
        The walls, by the segmentations that come with the slices.

    Raises:
        InputError: on bad arguments, or if the model makes no segmentations or does not know a group.
    """
    output_dir = Path(output_dir)
    at_least("num_images", num_images, 1)
    at_least("seed", seed, 0)
    if not groups or len(set(groups)) < len(groups):
        raise InputError("groups must name one or more, each once.")
    folder = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(folder)
    if not pipeline.makes_masks:
        raise InputError(f"model {model} makes no segmentations, so its walls cannot be measured.")
    asked = {group: {"group": group, "phase": "ED", "level": "mid"} for group in groups}
    for one in asked.values():
        pipeline.conditions.complete(one)  # before the work
    require_empty(output_dir, "output_dir")
    record = {
        "model_hash": hash_model(folder),
        "groups": list(groups),
        "num_images": num_images,
        "seed": seed,
        "hcm_hf_version": __version__,
    }

    pipeline.set_progress_bar_config(disable=True)
    pairs = {
        group: draw_request(pipeline, one, num_images, seed)
        for group, one in tqdm(asked.items(), desc="Drawing pairs", unit="group")
    }
    spacing = FIELD_OF_VIEW / pipeline.sample_size
    walls = {group: closed_wall_thickness(masks, spacing) for group, (_, masks) in pairs.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "index", "wall_mm"])
    for group, values in walls.items():
        writer.writerows(
            [group, index, f"{wall:.2f}" if np.isfinite(wall) else ""] for index, wall in enumerate(values)
        )
    contrast = Contrast(walls, output_dir / "groups.png", output_dir / "walls.csv")
    with replacing(output_dir) as temporary:  # whole or not at all
        temporary.mkdir()
        (temporary / contrast.table.name).write_text(text.getvalue(), encoding="utf-8")
        (temporary / "groups.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _plot(pairs, walls).savefig(temporary / contrast.figure.name, dpi=110, format="png")
    return contrast


def _plot(pairs: dict[str, tuple[np.ndarray, np.ndarray]], walls: dict[str, np.ndarray]) -> "Figure":
    """A block of outlined slices for each group, each with its wall in mm, and below them all the walls."""
    shown = min(_MOST_SHOWN, len(next(iter(walls.values()))))
    rows = -(-shown // _COLUMNS)
    figure = new_figure(1.25 * _COLUMNS, len(pairs) * (1.45 * rows + 0.6) + 2.4)
    *blocks, below = figure.subfigures(len(pairs) + 1, 1, height_ratios=[*[1.45 * rows + 0.6] * len(pairs), 2.4])
    for block, (group, (images, masks)) in zip(blocks, pairs.items(), strict=True):
        block.suptitle(
            f"{group}: synthetic slices at end diastole; below each the wall's greatest thickness\n"
            "(open ring: the wall is not one closed ring, and is not measured)",
            fontsize=10,
        )
        panels = block.subplots(rows, _COLUMNS, squeeze=False).ravel()
        pictures = draw_masks(images[:shown], masks[:shown], scale=4)
        for panel in panels:
            panel.axis("off")
        for panel, picture, wall in zip(panels, pictures, walls[group], strict=False):
            panel.imshow(picture)
            panel.set_title(f"{wall:.0f} mm" if np.isfinite(wall) else "open ring", y=-0.17, fontsize=8)
    axes = below.subplots()
    closed = {group: values[np.isfinite(values)] for group, values in walls.items()}
    most = max((values.max() for values in closed.values() if len(values)), default=THICK)
    for group, values in closed.items():
        axes.hist(values, bins=np.arange(0, most + 2), alpha=0.6, label=f"{group} ({len(values)})")
    axes.axvline(THICK, color="black", linestyle=":", label=f"{THICK:g} mm, the criterion of HCM")
    axes.set(xlabel="greatest thickness of the wall, mm", ylabel="slices")
    axes.legend(frameon=False)
    return figure
