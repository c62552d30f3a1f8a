"""Which real image a generated one is compared with: statistics on matrices of pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hcm_hf.metrics.bootstrap import Number, Resampled, bootstrap_draws, mean_over_pairs
from hcm_hf.metrics.pixel import cc_max_shift


_CHUNK = 256  # offered images between two reports of progress


@dataclass(frozen=True)
class ImageSet:
    """Images of which some may be compared with some.

    Attributes:
        images: floats (N, H, W).
        patients: the patient of each, (N,), "" where there is none.
        levels: the phase and part of the heart that each shows, (N,), whole numbers; None where that is not known.
    """

    images: np.ndarray
    patients: np.ndarray
    levels: np.ndarray | None = None


class Metric(NamedTuple):
    """A pixel metric; `sign` 1 where higher is more alike, -1 where lower is."""

    sign: int
    bounds: tuple[float, float]


METRICS = {"ssim": Metric(1, (-1.0, 1.0)), "cc": Metric(1, (-1.0, 1.0)), "mse": Metric(-1, (0.0, np.inf))}


def random_pairs(allowed: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Pairs of each row with `count` of its allowed columns, or all of them where they are fewer: (P, 2)."""
    pairs = []
    for row, columns in enumerate(allowed):
        columns = np.flatnonzero(columns)
        chosen = generator.choice(columns, min(count, len(columns)), replace=False) if len(columns) else columns
        pairs.append(np.stack([np.full(len(chosen), row), chosen], axis=1))
    return np.concatenate(pairs)


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


def reference_size(training: np.ndarray, heldout: np.ndarray) -> int:
    """How many training and how many held-out slices an image gets to match: those that every held-out slice can have.

    Args:
        training: the patient of each training slice, (L,).
        heldout: the patient of each held-out slice, (M,).

    Returns:
        The held-out slices without those of the patient who has most, at most L; M where there is one patient only.
    """
    most = np.unique(heldout, return_counts=True)[1].max()
    return min(len(training), int(len(heldout) - most) or len(heldout))


def compare_rows(
    offered: dict[str, ImageSet],
    training: ImageSet,
    heldout: ImageSet,
    similarity: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    *,
    max_shift: int | None = None,
    real_per_image: int = 50,
    seed: int = 0,
    advance: Callable[[int], object] = int,
) -> dict[str, dict[str, Number]]:
    """Every row's numbers under the protocols random, matched, best_train, best_heldout and copy_gap.

    A protocol is a matrix of the pairs that may be compared and a statistic over them. Images of a patient are never
    compared with the same patient's; every image gets `reference_size` training slices to match, and as many held-out
    ones. The protocol matched needs levels on both sides.

    Args:
        offered: the rows, each a set of images to compare with real ones.
        training: slices of the patients that a generator has seen.
        heldout: slices of other patients.
        similarity: gives all pairs of two sets of images by the name of the metric in `METRICS`, each (N, M).
        max_shift: also compute `cc_max_shift` of the random pairs, with shifts up to this.
        real_per_image: real images per offered one under `random`; a single offered image meets all of them.
        seed: of the random pairs, subsamples and resamples.
        advance: called with the number of pairs done.

    Returns:
        Row to flat name to number.
    """
    train, held = (_Reference(split, np.random.default_rng((seed, i))) for i, split in enumerate((training, heldout)))
    size = reference_size(training.patients, heldout.patients)
    n_train, n_held = len(np.unique(train.codes[:size])), held.draws.shape[1]
    rows: dict[str, dict] = {}
    for name, one in offered.items():
        count = real_per_image if len(one.images) > 1 else len(held.codes)
        other = one.patients[:, None] != held.patients
        pairs = random_pairs(other, count, np.random.default_rng((seed, 2)))
        matched = other & (other.cumsum(1) <= size)  # the first so many of other patients
        as_many = np.broadcast_to(matched.any(1, keepdims=True), (len(other), size))
        n: dict[str, int] = {"n_generated": len(one.images)}
        n_random = {**n, "n_real": len(held.codes), "n_patients": held.draws.shape[1]}
        to_train = _in_chunks(similarity, one.images, train.images[:size], advance)
        to_held = _in_chunks(similarity, one.images, held.images, advance)
        sampled = {"random": pairs}
        if one.levels is not None and held.levels is not None:
            same = other & (one.levels[:, None] == held.levels)
            sampled["matched"] = random_pairs(same, count, np.random.default_rng((seed, 3)))
        rows[name] = row = {}
        for label, (sign, bounds) in METRICS.items():
            for protocol, chosen in sampled.items():
                mean, means = mean_over_pairs(to_held[label][tuple(chosen.T)], held.codes[chosen[:, 1]], held.draws)
                compared = {"n_generated": len(np.unique(chosen[:, 0]))}  # without those that match no real slice
                row[f"{label}_{protocol}"] = Number.estimate(
                    mean, means, bounds, protocol=protocol, **n_random | compared
                )
            nearest = {
                "best_train": mean_of_best(sign * to_train[label], as_many, train.codes[:size], train.draws),
                "best_heldout": mean_of_best(sign * to_held[label], matched, held.codes, held.draws),
            }
            for protocol, n_patients in (("best_train", n_train), ("best_heldout", n_held)):
                best, resampled = nearest[protocol]
                about: dict[str, Any] = {"protocol": protocol, **n, "n_real": size, "n_patients": n_patients}
                row[f"{label}_{protocol}"] = Number.estimate(sign * best, Resampled(sign * resampled), bounds, **about)
            (ours, ours_resampled), (theirs, theirs_resampled) = nearest.values()
            about = {"protocol": "copy_gap", **n, "n_real": 2 * size, "n_patients": n_train + n_held}
            gaps = Resampled(ours_resampled - theirs_resampled)
            row[f"{label}_copy_gap"] = Number.estimate(ours - theirs, gaps, (-np.inf, np.inf), **about)
        if max_shift is not None:
            peaks = cc_max_shift(one.images, held.images, pairs, max_shift)
            mean, means = mean_over_pairs(peaks, held.codes[pairs[:, 1]], held.draws)
            row["cc_max_shift_random"] = Number.estimate(mean, means, (-1.0, 1.0), protocol="random", **n_random)
    return rows


class _Reference:
    """Real images in random order, the index of each one's patient, and resamples of the patients."""

    def __init__(self, slices: ImageSet, generator: np.random.Generator):
        order = generator.permutation(len(slices.images))
        self.images, self.patients = slices.images[order], slices.patients[order]
        self.levels = None if slices.levels is None else slices.levels[order]
        self.codes, self.draws = bootstrap_draws(self.patients, generator)


def _in_chunks(
    similarity: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    first: np.ndarray,
    second: np.ndarray,
    advance: Callable[[int], object],
) -> dict[str, np.ndarray]:
    parts = []
    for start in range(0, len(first), _CHUNK):
        parts.append(similarity(first[start : start + _CHUNK], second))
        advance(len(first[start : start + _CHUNK]) * len(second))
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
