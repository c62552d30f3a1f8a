"""Is an image a copy? The training slices most like it, and how alike real patients are to them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hcm_hf.data.acdc import GROUPS, PHASES
from hcm_hf.data.dataset import load_dataset
from hcm_hf.errors import InputError
from hcm_hf.image_sets import RealSlices, read_split
from hcm_hf.metrics.memorization import best_match, copy_threshold
from hcm_hf.metrics.pixel import cc_matrix


@dataclass(frozen=True)
class Neighbours:
    """The training slices most like an image.

    Attributes:
        images: (K, H, W) in [0, 1], most alike first.
        correlations: (K,), Pearson correlation with the image, in [-1, 1].
        captions: whose slices they are, (K,).
        rank: share of held-out slices whose best match is less alike than the image's, in [0, 1].
        threshold: the correlation that 99 % of held-out slices stay below: above it lie copies.
        heldout: (N,), the best correlation of each held-out slice, sorted.
    """

    images: np.ndarray
    correlations: np.ndarray
    captions: list[str]
    rank: float
    threshold: float
    heldout: np.ndarray


def find_neighbours(image: np.ndarray, dataset: str, groups: tuple[str, ...], count: int = 5) -> Neighbours:
    """Look an image up among the training slices of a dataset.

    Args:
        image: (H, W) in [0, 1].
        dataset: folder or repository of the dataset that the generator was trained on.
        groups: the groups that it was trained on.
        count: how many slices.

    Raises:
        InputError: if the dataset is not there, or its slices have another size.
    """
    training, heldout, best = _references(dataset, groups)
    if image.shape != training.images.shape[1:]:
        size = "x".join(map(str, training.images.shape[1:]))
        raise InputError(f"The slices of {dataset} have {size} pixels, the image has {image.shape}.")
    likeness = cc_matrix(image[None].astype(np.float32), training.images)[0]
    order = np.argsort(-likeness)[:count]
    captions = [_whose(training, i, len(groups) > 1) for i in order]
    rank = float(np.searchsorted(best, likeness[order[0]]) / len(best))
    return Neighbours(training.images[order], likeness[order], captions, rank, copy_threshold(best), best)


def _whose(slices: RealSlices, index: int, with_group: bool) -> str:
    parts = [slices.patients[index], *([GROUPS[slices.groups[index]]] if with_group else [])]
    return " ".join([*parts, *([PHASES[slices.phases[index]]] if slices.phases[index] >= 0 else [])])


@lru_cache(maxsize=4)
def _references(dataset: str, groups: tuple[str, ...]) -> tuple[RealSlices, RealSlices, np.ndarray]:
    splits = load_dataset(dataset)
    training = read_split(splits, "train", groups, all_frames=True)
    heldout = read_split(splits, "test", groups)
    return training, heldout, np.sort(best_match(training.images, heldout.images)[0])
