"""Does a model draw the wall that it is asked for? Thicknesses asked for against those measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import linregress, pearsonr
from tqdm.auto import tqdm

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.tables import markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.generation.images import image_generator
from hcm_hf.metrics.anatomy import LEFT, chamber_areas, closed_wall_thickness
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.pipelines.conditions import Answers
from hcm_hf.pipelines.pairs import WALL
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import replacing, require_empty, write_text
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.utils.pictures import draw_masks, image_grid, save_png
from hcm_hf.version import __version__


ASKED = (8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0)  # mm
LEAST = 3  # measured walls that a correlation needs
SHOWN = 6  # rows of the picture
_BATCH_SIZE = 25


@dataclass(frozen=True)
class Obedience:
    """How well measurements follow what was asked for.

    Attributes:
        n: pairs in which it could be measured: of walls those of closed rings.
        n_asked: pairs that were drawn.
        r: Pearson's correlation with what was asked for; 1 is best for walls, 0 for what is not to move with them.
        low: lower end of its 95 % interval.
        high: upper end.
        slope: of the measurement for each mm asked for; 1 is best for walls.
        error: mean absolute error in mm; None for what was not asked for.
    """

    n: int
    n_asked: int
    r: float | None = None
    low: float | None = None
    high: float | None = None
    slope: float | None = None
    error: float | None = None


def examine_walls(
    model: str | Path,
    output_dir: str | Path,
    encoder: str | Path | None = None,
    groups: Sequence[str] | None = None,
    walls: Sequence[float] | None = None,
    num_images: int = 50,
    seed: int = 0,
) -> dict[str, dict[str, Obedience]]:
    """Ask a model for walls from thin to thick in end diastole, and measure them in its masks and in its images.

    For each thickness the same random numbers are used, so that only the request differs.

    Args:
        model: a model that can be asked for a wall thickness: a folder, a repository, or one that comes with the
            package.
        output_dir: a new or empty folder, for walls.json, walls.md, walls.png and pairs.png.
        encoder: whose segmenter measures the images too; without one the masks alone are measured.
        groups: to ask for; by default HCM and NOR, or all that the model knows if it lacks one of them.
        walls: mm; by default 8 to 22 in steps of 2, as far as the model was trained.
        num_images: for each group and thickness.
        seed: image i comes from (seed, i).

    Returns:
        By group and by measurement, `mask` (mm), `segmenter` (mm), `left_cavity` (mm^2) and `brightness`, how it
        follows what was asked for.

    Raises:
        InputError: on bad arguments, or if the model cannot be asked for a wall thickness.
    """
    output_dir = Path(output_dir)
    at_least("num_images", num_images, 2)
    at_least("seed", seed, 0)
    folder = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(folder)
    if WALL not in pipeline.conditions.ranges:
        raise InputError(f"model {model} cannot be asked for a wall thickness.")
    least, most = pipeline.conditions.ranges[WALL]
    walls = [wall for wall in ASKED if least <= wall <= most] if walls is None else list(walls)
    if len(walls) < 2:
        raise InputError(f"walls has fewer than two thicknesses from {least:g} to {most:g} mm; name more of them.")
    known = pipeline.conditions.axes["group"]
    chosen = groups or [group for group in (TARGET_GROUP, "NOR") if group in known]
    groups = chosen if groups or len(chosen) == 2 else known
    asked: list[Answers] = [
        {"group": group, "phase": "ED", "level": "mid", WALL: wall} for group in groups for wall in walls
    ]
    for one in asked:
        pipeline.conditions.complete(one)  # before the long work
    segmenter = None if encoder is None else load_encoder(encoder).segmenter
    if segmenter is not None and (own := segmenter.network.config.sample_size) != pipeline.sample_size:
        raise InputError(f"encoder {encoder} is for images of {own} px, model {model} makes {pipeline.sample_size}.")
    require_empty(output_dir, "output_dir")

    pipeline.set_progress_bar_config(disable=True)
    spacing = FIELD_OF_VIEW / pipeline.sample_size
    found: dict[str, dict[str, list[np.ndarray]]] = {group: {} for group in groups}
    pictures: dict[str, list[np.ndarray]] = {group: [] for group in groups}
    for one in tqdm(asked, desc="Walls", unit="request"):
        images, masks = draw_request(pipeline, one, num_images, seed)
        measured = {
            "mask": closed_wall_thickness(masks, spacing),
            "left_cavity": chamber_areas(masks, spacing)[:, LEFT - 1],
            "brightness": images.mean((1, 2)),
        }
        if segmenter is not None:
            measured["segmenter"] = closed_wall_thickness(segmenter.predict(images).masks, spacing)
        for name, values in measured.items():
            found[one["group"]].setdefault(name, []).append(values)
        pictures[one["group"]].append(draw_masks(images[:SHOWN], masks[:SHOWN]))
    result = {
        group: {name: follow(walls, np.stack(values), name in ("mask", "segmenter")) for name, values in each.items()}
        for group, each in found.items()
    }
    record = {
        "model_hash": hash_model(folder),
        "segmenter": segmenter and segmenter.hash,
        "walls": walls,
        "num_images": num_images,
        "seed": seed,
        "hcm_hf_version": __version__,
        "groups": plain(result),
    }
    write_text(output_dir / "walls.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "walls.md", render_walls(result, record))
    _plot(walls, found, output_dir / "walls.png")
    rows = [np.stack(same) for requests in pictures.values() for same in zip(*requests, strict=True)]
    save_png(image_grid(rows, 1), output_dir / "pairs.png")
    return result


def follow(walls: Sequence[float], measured: np.ndarray, wanted: bool) -> Obedience:
    """How measurements follow the thickness that was asked for.

    Args:
        walls: mm, (W,).
        measured: (W, N); what is not a number does not count.
        wanted: whether the measurement is that of the wall, in mm, so that there is an error.
    """
    asked = np.repeat(np.asarray(walls, float)[:, None], measured.shape[1], axis=1)[np.isfinite(measured)]
    values = measured[np.isfinite(measured)]
    if len(values) < LEAST or np.ptp(asked) == 0 or np.ptp(values) == 0:
        return Obedience(len(values), measured.size)
    correlation = pearsonr(asked, values)
    low, high = correlation.confidence_interval()
    return Obedience(
        n=len(values),
        n_asked=measured.size,
        r=float(correlation.statistic),
        low=float(low),
        high=float(high),
        slope=float(linregress(asked, values).slope),
        error=float(np.abs(values - asked).mean()) if wanted else None,
    )


def render_walls(result: dict[str, dict[str, Obedience]], record: dict) -> str:
    """The table in Markdown."""
    lines = [
        [
            group,
            name.replace("_", " "),
            f"{one.n} of {one.n_asked}",
            "" if one.r is None else f"{one.r:.2f} [{one.low:.2f}, {one.high:.2f}]",
            "" if one.slope is None else f"{one.slope:.3g}",
            "" if one.error is None else f"{one.error:.1f}",
        ]
        for group, each in result.items()
        for name, one in each.items()
    ]
    table = markdown_table(["group", "measurement", "measured", "r", "slope", "error, mm"], lines)
    walls = ", ".join(f"{wall:g}" for wall in record["walls"])
    below = (
        f"Model {record['model_hash']} was asked for walls of {walls} mm in end diastole, {record['num_images']} "
        f"pairs each, seed {record['seed']}; hcm_hf {record['hcm_hf_version']}. r is Pearson's correlation with what "
        "was asked for, in brackets its 95 % interval over pairs; the slope is per mm asked for. Walls are the "
        "greatest radial thickness of closed rings, in the masks that the model draws and in a segmenter's "
        "of its images. The area of the left cavity (mm^2) and the brightness are not to move with the wall: r near 0."
    )
    return f"# The wall on request\n\n{table}\n\n{below}\n"


def draw_request(pipeline: HCMPipeline, asked: Answers, num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) in [0, 1] and masks (N, H, W) for one request; image i comes from (seed, i)."""
    images, masks = [], []
    for start in range(0, num_images, _BATCH_SIZE):
        generators = [image_generator(seed, index) for index in range(start, min(start + _BATCH_SIZE, num_images))]
        output = pipeline(len(generators), generator=generators, conditions=asked, output_type="np")
        images.append(output.images[..., 0])
        masks.append(output.masks)
    return np.concatenate(images), np.concatenate(masks)


def _plot(walls: Sequence[float], found: dict[str, dict[str, list[np.ndarray]]], path: Path) -> None:
    """Asked against measured, a panel for each group and each measurement of walls."""
    names = [name for name in ("mask", "segmenter") if name in next(iter(found.values()))]
    figure = new_figure(3.6 * len(names), 3.2 * len(found))
    panels = figure.subplots(len(found), len(names), squeeze=False, sharex=True, sharey=True)
    for row, (group, each) in zip(panels, found.items(), strict=True):
        for panel, name in zip(row, names, strict=True):
            for wall, values in zip(walls, each[name], strict=True):
                panel.plot(np.full(len(values), wall), values, ".", color="tab:blue", alpha=0.4)
            panel.plot([min(walls), max(walls)], [min(walls), max(walls)], color="grey", linewidth=0.8)
            panel.set_title(f"{group}, by {'its mask' if name == 'mask' else 'the segmenter'}")
            panel.set_xlabel("asked for, mm")
            panel.set_ylabel("measured, mm")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
