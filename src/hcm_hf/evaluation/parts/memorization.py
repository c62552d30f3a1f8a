"""The part of a report on copies: whether images are nearer to the training slices than held-out patients are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.figures import write_closest_pairs
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.bootstrap import Number, Resampled, bootstrap_draws, mean_over_pairs, resample, resample_biased
from hcm_hf.metrics.memorization import (
    authenticity,
    best_match,
    copy_rate,
    copy_threshold,
    data_copying_z,
    nearest_neighbour_ratio,
    nearest_neighbours,
    pixel_rows,
)


DRAWS = 20  # of equally many images for C_T, over which it is averaged
_CHUNK = 1000  # images at a time
_ANY, _POSITIVE, _SHARE = (-np.inf, np.inf), (0, np.inf), (0, 1)


def memorization_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Whether images are nearer to the training slices than those of held-out patients are, in pixels.

    The row `real` offers each held-out patient in turn, and the others are then the held-out ones; for C_T it offers
    random halves of the patients.
    """
    seen, heldout = comparison.reference.seen, comparison.reference.heldout
    codes, draws = comparison.resamples
    train_rows = pixel_rows(seen.images)
    best_real, _ = best_match(seen.images, heldout.images)
    distance_real, _ = nearest_neighbours(train_rows, pixel_rows(heldout.images))
    train_draws = bootstrap_draws(seen.patients, comparison.random(8))[1]
    generator = comparison.random(9)
    slices = np.bincount(codes)
    n = int(np.sort(slices)[: len(slices) // 2].sum())  # as many as half of the patients have at least
    n = min(n, len(comparison.generated.images))

    def estimate(
        statistic: Callable[[np.ndarray], float], bounds: tuple[float, float], times: int = 1, **about: Any
    ) -> Number:
        value = float(np.mean([statistic(np.arange(len(codes))) for _ in range(times)]))
        return Number.estimate(value, resample_biased(statistic, codes, draws), bounds, **about)

    rows: Rows = {}
    for name, images in (("generated", comparison.generated.images), ("mean_image", comparison.mean_images)):
        best, index = best_match(seen.images, images)
        if name == "generated" and figures:
            write_closest_pairs(images, seen.images, best, index, figures / "closest_pairs.png")
        distance = np.concatenate([nearest_neighbours(train_rows, pixel_rows(part))[0] for part in _parts(images)])
        about = comparison.counts(images)
        rows[name] = {
            "copy_rate": estimate(lambda kept: copy_rate(best, best_real[kept]), _SHARE, **about),  # noqa: B023
            "nearest_neighbour_ratio": Number.estimate(
                nearest_neighbour_ratio(distance, distance_real),
                resample(lambda kept: nearest_neighbour_ratio(distance, distance_real[kept]), codes, draws),  # noqa: B023
                _POSITIVE,
                **about,
            ),
            "c_t": estimate(
                lambda kept: data_copying_z(distance, distance_real[kept], n, generator),  # noqa: B023
                _ANY,
                DRAWS,
                **about,
                n_each=n,
            ),
            "authenticity": _authenticity(train_rows, images, seen.patients, train_draws),
        }

    patients = np.arange(len(slices)) if len(slices) > 1 else ()  # a single one has no others to be compared with
    copied, ratios = np.full(len(codes), np.nan), np.full(len(slices), np.nan)
    for patient in patients:
        own = codes == patient
        copied[own] = best_real[own] > copy_threshold(best_real[~own])
        ratios[patient] = nearest_neighbour_ratio(distance_real[own], distance_real[~own])
    halves = [np.isin(codes, generator.permutation(patients)[: len(slices) // 2]) for _ in range(10 * DRAWS)]
    scores = np.array(
        [data_copying_z(distance_real[half], distance_real[~half], n, generator) for half in halves if half.any()]
    )
    about = comparison.counts(heldout.images)
    rows["real"] = {
        "copy_rate": Number.estimate(*mean_over_pairs(copied, codes, draws), _SHARE, **about),
        "nearest_neighbour_ratio": Number.estimate(
            ratios.mean(), mean_over_pairs(ratios, np.arange(len(slices)), draws)[1], _POSITIVE, **about
        ),
        "c_t": Number.estimate(scores.mean() if len(scores) else np.nan, Resampled(scores), _ANY, **about, n_each=n),
        "authenticity": _authenticity(train_rows, heldout.images, seen.patients, train_draws),
    }
    return rows


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]


def _authenticity(train: np.ndarray, images: np.ndarray, patients: np.ndarray, draws: np.ndarray) -> Number:
    """With its interval over the training patients; unknown where there is only one."""
    about: dict[str, Any] = {
        "protocol": "train",
        "n_generated": len(images),
        "n_real": len(train),
        "n_patients": len(np.unique(patients)),
    }
    if about["n_patients"] < 2:
        return Number.unknown(**about)
    parts = _parts(images)
    found = [authenticity(train, pixel_rows(part), patients, draws) for part in parts]
    value, resampled = (np.average(one, axis=0, weights=list(map(len, parts))) for one in zip(*found, strict=True))
    return Number.estimate(float(value), Resampled(resampled), _SHARE, **about)
