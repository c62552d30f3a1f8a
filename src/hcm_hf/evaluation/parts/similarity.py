"""The part of a report on SSIM, CC and MSE, under every protocol."""

from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.pixel import compare_images
from hcm_hf.metrics.protocols import ImageSet, compare_rows


def similarity_rows(comparison: Comparison, figures: Path | None = None, artefact: bool = False) -> Rows:
    """SSIM, CC and MSE under every protocol.

    Args:
        comparison: what is compared.
        figures: not used.
        artefact: take images in [-1, 1] for images with a data range of 255, and leave out the mean image.
    """

    def similarity(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        if artefact:
            return compare_images(2 * first - 1, 2 * second - 1, data_range=255.0, value_range=(-1.0, 1.0))
        return compare_images(first, second)

    images, heldout, training = (
        comparison.generated.images,
        comparison.reference.heldout,
        comparison.reference.training,
    )
    levels = dict.fromkeys(("generated", "real")) if artefact else comparison.levels
    offered = {
        "generated": ImageSet(images, np.full(len(images), ""), levels["generated"]),
        "real": ImageSet(heldout.images, heldout.patients, levels["real"]),
    }
    if not artefact:
        offered["mean_image"] = ImageSet(comparison.mean_image, np.full(1, ""))
    pairs = sum(len(one.images) for one in offered.values()) * (
        len(heldout.images) + min(len(heldout.images), len(training.images))
    )
    with tqdm(desc="SSIM, CC, MSE", total=pairs, unit="pair", unit_scale=True) as bar:
        return compare_rows(
            offered,
            ImageSet(training.images, training.patients),
            ImageSet(heldout.images, heldout.patients, heldout.levels),
            similarity,
            max_shift=None if artefact else images.shape[1] // 8,
            real_per_image=comparison.real_per_image,
            seed=comparison.seed,
            advance=bar.update,
        )
