"""Slices with their segmentations, real and generated, in one figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hcm_hf.data.cohort import LEVELS, PHASES
from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.images import THIRDS, read_split
from hcm_hf.generation.images import image_generator
from hcm_hf.metrics.anatomy import closed_wall_thickness
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import OPEN
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.pictures import draw_masks, write_captions, write_rows


def draw_pairs(
    models: Sequence[str],
    output_file: str | Path,
    dataset: str | Path | None = None,
    class_labels: Sequence[str] = ("HCM ED mid", "NOR ED mid"),
    columns: int = 8,
    seed: int = 0,
) -> None:
    """Draw slices with their segmentations, real and generated, as rows of one figure.

    The greatest radial thickness of the wall, in mm, stands in each segmentation that has a closed ring.

    Args:
        models: folders or repositories of models that make segmentations, or of their runs.
        output_file: the PNG file to write.
        dataset: folder of a prepared dataset, for rows of real slices of held-out patients; by default the synthetic
            cohort.
        class_labels: the conditions; each adds a row of slices and a row with segmentations for each model.
        columns: slices in a row, the first of the seed.
        seed: seed of the generated slices, which are those of `generate_images`, and of the choice of real slices.

    Raises:
        InputError: if no model is named, or one makes no segmentations.
    """
    if not models or len({Path(name).name for name in models}) < len(models):
        raise InputError("models must name one or more, each with another folder name.")
    pipelines = {Path(name).name: HCMPipeline.from_pretrained(name) for name in models}
    for name, pipeline in pipelines.items():
        if not pipeline.makes_masks:
            raise InputError(
                f"models has {name}, which makes no segmentations; name a ddpm of recipe tuned or a student of it."
            )
        pipeline.set_progress_bar_config(disable=True)
    real = read_split(load_dataset(dataset), "test")
    shown = {
        "group": real.groups,
        "phase": np.array(PHASES)[real.phases],
        "level": np.array(LEVELS)[real.levels % THIRDS],
    }
    rows = {}
    for condition in class_labels:
        asked = next(iter(pipelines.values())).conditions.complete(condition)
        fits = [shown[axis] == answer for axis, answer in asked.items() if axis in shown and answer != OPEN]
        chosen = np.flatnonzero(np.all(fits, axis=0)) if fits else np.arange(len(real.images))
        chosen = np.random.default_rng(seed).permutation(chosen)[:columns]
        rows[f"real {condition}"] = _pair_rows(real.images[chosen], np.maximum(real.masks[chosen], 0))
        for name, pipeline in pipelines.items():
            generators = [image_generator(seed, index) for index in range(columns)]
            asked = pipeline.conditions.complete(condition)
            output = pipeline(columns, generators, conditions=asked, output_type="np")
            rows[f"{name} {condition}"] = _pair_rows(output.images[..., 0], output.masks)
    write_rows(rows, output_file)


def _pair_rows(images: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """Slices (N, H, W) in colour, without and with their segmentations and the walls measured in these."""
    walls = closed_wall_thickness(masks, FIELD_OF_VIEW / masks.shape[-1])
    plain, outlined = (draw_masks(images, shown) for shown in (np.zeros_like(masks), masks))
    return [plain, write_captions(outlined, ["" if np.isnan(wall) else f"{wall:.0f} mm" for wall in walls])]
