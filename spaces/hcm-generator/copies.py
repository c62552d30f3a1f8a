"""Is an image a copy? The training slices most like it, and how alike real patients are to them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from huggingface_hub import HfApi

from hcm_hf.data.cohort import PHASES
from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.images import RealSlices, read_split
from hcm_hf.metrics.memorization import best_match, copy_threshold
from hcm_hf.metrics.pixel import cc_matrix
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import HUB_ERRORS


MOST_BYTES = 2**30  # of a dataset that a stranger's model names


@dataclass(frozen=True)
class Neighbours:
    """The training slices most like an image.

    Attributes:
        images: (K, H, W) in [0, 1], most alike first.
        correlations: (K,), Pearson correlation with the image, in [-1, 1].
        captions: the phase and, where there are several, the group of each, (K,); never whose slices they are.
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
    captions = [_describe(training, i, len(groups) > 1) for i in order]
    rank = float(np.searchsorted(best, likeness[order[0]]) / len(best))
    return Neighbours(training.images[order], likeness[order], captions, rank, copy_threshold(best), best)


def open_to_all(repo_id: str) -> str:
    """`repo_id@commit` of a dataset that anybody may read, as somebody without a token sees it now.

    With its commit it is a repository's name, whatever folders there are here.

    Raises:
        InputError: if nobody may without a token, or it is too large to be fetched for a visitor.
    """
    refusal = f"The training slices {repo_id} cannot be shown: no public dataset of at most {MOST_BYTES >> 20} MB"
    try:
        info = HfApi(token=False).dataset_info(repo_id, files_metadata=True, timeout=10)
    except HUB_ERRORS as error:
        raise InputError(f"{refusal} of that name can be reached.") from error
    if info.private or info.gated or sum(file.size or 0 for file in info.siblings) > MOST_BYTES:
        raise InputError(f"{refusal} has that name.")
    return f"{repo_id}@{info.sha}"


def _describe(slices: RealSlices, index: int, with_group: bool) -> str:
    group = str(slices.groups[index]) if with_group else ""
    phase = PHASES[slices.phases[index]] if slices.phases[index] >= 0 else ""
    return " ".join(filter(None, (group, phase)))


@lru_cache(maxsize=4)
def _references(dataset: str, groups: tuple[str, ...]) -> tuple[RealSlices, RealSlices, np.ndarray]:
    splits = load_dataset(dataset)
    training = read_split(splits, "train", groups, all_frames=True)
    heldout = read_split(splits, "test", groups)
    return training, heldout, np.sort(best_match(training.images, heldout.images)[0])
