"""python scripts/draw_pairs.py --models runs/ddpm-tuned --dataset data/acdc-64 --output_file pairs.png"""

python scripts/draw_pairs.py --models runs/ddpm-tuned --dataset data/acdc-64 --output_file pairs.png
"""

from pathlib import Path

import numpy as np
import torch

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.data.acdc import AXES, LEVELS
from hcm_hf.evaluation.images import read_split
from hcm_hf.generation.images import image_generator
from hcm_hf.pipelines.conditions import join_labels
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.pictures import draw_masks, write_rows


def main(
    models: tuple[str, ...],
    output_file: Path,
    dataset: str | None = None,
    class_labels: tuple[str, ...] = ("HCM ED mid", "NOR ED mid"),
    columns: int = 8,
    seed: int = 0,
) -> None:
    """Draw slices with their segmentations, real and generated, as rows of one figure.

    Args:
        models: folders or repositories of models that make segmentations, or of their runs.
        output_file: the PNG file to write.
        dataset: folder of a prepared dataset, for rows of real slices of held-out patients; by default the synthetic
            cohort.
        class_labels: what each model is asked for, a row of slices and one with segmentations for each.
        columns: slices in a row; the first of the seed, none chosen.
        seed: slice i of a seed is that of generate.py; also which real slices.
    """
    if not models or len({Path(name).name for name in models}) < len(models):
        raise InputError("Name one or more models with --models, each with another folder name.")
    pipelines = {Path(name).name: hcm_hf.HCMPipeline.from_pretrained(name) for name in models}
    for name, pipeline in pipelines.items():
        if not pipeline.makes_masks:
            raise InputError(
                f"--models {name} makes no segmentations; name a ddpm of recipe tuned or a student of it."
            )
        pipeline.set_progress_bar_config(disable=True)
    real = read_split(hcm_hf.load_dataset(dataset), "test")
    answers = (real.groups, real.phases, real.levels % len(LEVELS))
    labels = join_labels(AXES, dict(zip(AXES, map(torch.tensor, answers), strict=True)))
    rows = {}
    for asked in class_labels:
        fitting = np.flatnonzero(pipeline.conditions.allowed(asked)[labels])
        chosen = np.random.default_rng(seed).permutation(fitting)[:columns]
        rows[f"real {asked}"] = pair_rows(real.images[chosen], np.maximum(real.masks[chosen], 0))
        for name, pipeline in pipelines.items():
            generators = [image_generator(seed, index) for index in range(columns)]
            output = pipeline(columns, generators, conditions=pipeline.conditions.complete(asked), output_type="np")
            rows[f"{name} {asked}"] = pair_rows(output.images[..., 0], output.masks)
    write_rows(rows, output_file)
    print(f"figure: {output_file}")


def pair_rows(images: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """Slices (N, H, W), and the same with their segmentations, in colour."""
    return [draw_masks(images, shown) for shown in (np.zeros_like(masks), masks)]


if __name__ == "__main__":
    main("draw_pairs")
