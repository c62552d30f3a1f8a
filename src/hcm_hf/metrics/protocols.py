"""Which real image a generated one is compared with, and how sure the mean is: statistics on matrices of pairs.

Every number has a 95 % interval by bootstrap over the patients of the real reference: patients, not slices, are the
sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from hcm_hf.metrics.pixel import cc_matrix, cc_max_shift, mse_matrix, ssim_matrix


RESAMPLES = 1000  # of the reference's patients
_CHUNK = 256  # offered images between two reports of progress


@dataclass(frozen=True)
class ImageSet:
    """Images, floats (N, H, W), and the patient of each: "" where there is none."""

    images: np.ndarray
    patients: np.ndarray

    def signed(self) -> "ImageSet":
        """The same images in [-1, 1]."""
        return ImageSet(2 * self.images - 1, self.patients)


@dataclass(frozen=True)
class Metric:
    """A pixel metric of all pairs of images; `sign` 1 where higher is more alike, -1 where lower is."""

    name: str
    matrix: Callable[..., np.ndarray]
    sign: int
    bounds: tuple[float, float]


METRICS = (
    Metric("ssim", ssim_matrix, 1, (-1.0, 1.0)),
    Metric("cc", cc_matrix, 1, (-1.0, 1.0)),
    Metric("mse", mse_matrix, -1, (0.0, np.inf)),
)
ARTEFACT_METRICS = (
    Metric("ssim", partial(ssim_matrix, data_range=255.0, value_range=(-1.0, 1.0)), 1, (-1.0, 1.0)),
    Metric("cc", partial(cc_matrix, value_range=(-1.0, 1.0)), 1, (-1.0, 1.0)),
    Metric("mse", partial(mse_matrix, value_range=(-1.0, 1.0)), -1, (0.0, np.inf)),
)


def random_pairs(allowed: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Pairs of each row with `count` of its allowed columns, or all of them where they are fewer: (P, 2)."""
    pairs = []
    for row, columns in enumerate(allowed):
        columns = np.flatnonzero(columns)
        chosen = generator.choice(columns, min(count, len(columns)), replace=False) if len(columns) else columns
        pairs.append(np.stack([np.full(len(chosen), row), chosen], axis=1))
    return np.concatenate(pairs)


def mean_over_pairs(values: np.ndarray, codes: np.ndarray, draws: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of the pairs' values, (P,), and the same for every resample of patients; `codes` (P,) is each pair's."""
    sums, counts = (np.bincount(codes, weights, minlength=draws.shape[1]) for weights in (values, None))
    with np.errstate(invalid="ignore"):  # no pair at all: not a number
        return float(sums.sum() / counts.sum()), sums[draws].sum(1) / counts[draws].sum(1)


def mean_of_best(
    likeness: np.ndarray, allowed: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean over the rows of the highest allowed value, and the same for every resample of the columns' patients.

    Args:
        likeness: (N, M), higher is more alike.
        allowed: (N, M), whether the pair may count.
        codes: (M,), the index of each column's patient.
        draws: (resamples, patients), indices of patients.

    Returns:
        The mean, and (resamples,); not a number where no pair may count.
    """
    likeness = np.where(allowed, likeness, -np.inf)
    best = np.full((draws.shape[1], len(likeness)), -np.inf)  # of every patient, for every row
    for patient in np.unique(codes):
        best[patient] = likeness[:, codes == patient].max(1)
    return _finite_mean(best.max(0)), np.array([_finite_mean(best[np.unique(draw)].max(0)) for draw in draws])


def compare_rows(
    offered: dict[str, ImageSet],
    training: ImageSet,
    heldout: ImageSet,
    *,
    metrics: Sequence[Metric] = METRICS,
    max_shift: int | None = None,
    real_per_image: int = 50,
    seed: int = 0,
    device: str | torch.device = "cpu",
    advance: Callable[[int], object] = int,
) -> dict[str, dict]:
    """Every row's numbers under the protocols random, best_train, best_heldout and copy_gap.

    A protocol is a matrix of the pairs that may be compared and a statistic over them. Images of a patient are never
    compared with the same patient's, and get as many training slices to match as held-out ones remain.

    Args:
        offered: the rows, each a set of images to compare with real ones.
        training: slices of the patients that a generator has seen.
        heldout: slices of other patients.
        metrics: the metrics to compute of all pairs.
        max_shift: also compute `cc_max_shift` of the random pairs, with shifts up to this.
        real_per_image: real images per offered one under `random`; a single offered image meets all of them.
        seed: of the random pairs, subsamples and resamples.
        device: where to compute.
        advance: called with the number of pairs done.

    Returns:
        Row to flat name to number: value, 95 % interval, protocol, n_generated, n_real, n_patients.
    """
    train, held = (_Reference(split, np.random.default_rng((seed, i))) for i, split in enumerate((training, heldout)))
    size = min(len(train.codes), len(held.codes))
    n_train, n_held = (len(np.unique(reference.codes[:size])) for reference in (train, held))
    rows = {}
    for name, one in offered.items():
        count = real_per_image if len(one.images) > 1 else len(held.codes)
        other = one.patients[:, None] != held.patients
        pairs = random_pairs(other, count, np.random.default_rng((seed, 2)))
        codes = held.codes[pairs[:, 1]]
        as_many = np.arange(size) < other[:, :size].sum(1, keepdims=True)
        n = {"n_generated": len(one.images)}
        n_random = {"protocol": "random", **n, "n_real": len(held.codes), "n_patients": held.draws.shape[1]}
        rows[name] = row = {}
        for metric in metrics:
            label, sign, bounds = metric.name, metric.sign, metric.bounds
            to_train = _in_chunks(metric.matrix, one.images, train.images[:size], device, advance)
            to_held = _in_chunks(metric.matrix, one.images, held.images, device, advance)
            value, resampled = mean_over_pairs(to_held[tuple(pairs.T)], codes, held.draws)
            row[f"{label}_random"] = _number(value, resampled, bounds, **n_random)
            best = mean_of_best(sign * to_train, as_many, train.codes[:size], train.draws)
            counts = {"protocol": "best_train", **n, "n_real": size, "n_patients": n_train}
            row[f"{label}_best_train"] = _number(sign * best[0], sign * best[1], bounds, **counts)
            other_best = mean_of_best(sign * to_held[:, :size], other[:, :size], held.codes[:size], held.draws)
            counts = {"protocol": "best_heldout", **n, "n_real": size, "n_patients": n_held}
            row[f"{label}_best_heldout"] = _number(sign * other_best[0], sign * other_best[1], bounds, **counts)
            counts = {"protocol": "copy_gap", **n, "n_real": 2 * size, "n_patients": n_train + n_held}
            gap = best[0] - other_best[0], best[1] - other_best[1]
            row[f"{label}_copy_gap"] = _number(*gap, (-np.inf, np.inf), **counts)
        if max_shift is not None:
            value, resampled = mean_over_pairs(
                cc_max_shift(one.images, held.images, pairs, max_shift, device), codes, held.draws
            )
            row["cc_max_shift_random"] = _number(value, resampled, (-1.0, 1.0), **n_random)
    return rows


class _Reference:
    """Real images in random order, the index of each one's patient, and resamples of the patients."""

    def __init__(self, slices: ImageSet, generator: np.random.Generator):
        order = generator.permutation(len(slices.images))
        self.images, self.patients = slices.images[order], slices.patients[order]
        names, self.codes = np.unique(self.patients, return_inverse=True)
        self.draws = generator.integers(len(names), size=(RESAMPLES, len(names)))


def _in_chunks(
    matrix: Callable[..., np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    device: str | torch.device,
    advance: Callable[[int], object],
) -> np.ndarray:
    parts = []
    for start in range(0, len(first), _CHUNK):
        parts.append(matrix(first[start : start + _CHUNK], second, device=device))
        advance(parts[-1].size)
    return np.concatenate(parts)


def _number(value: float, resampled: np.ndarray, bounds: tuple[float, float], **counts: int | str) -> dict:
    """A number of the report; null where nothing may be compared.

    The interval is shifted by the bootstrap's own bias: a resample misses a third of the patients, so its best matches
    are worse than those among all of them.
    """
    low = high = None
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled):
        interval = np.quantile(resampled, (0.025, 0.975)) + (value - resampled.mean())
        low, high = (float(end) for end in interval.clip(*bounds))
    return {"value": value if len(resampled) else None, "low": low, "high": high, **counts}


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
