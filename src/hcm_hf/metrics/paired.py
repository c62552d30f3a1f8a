"""Differences of trainings on the same patients: intervals over patients, draws and seeds, and many tests at once."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon

from hcm_hf.metrics import bootstrap


def resample_hierarchy(
    draws: Sequence[int], num_patients: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hierarchical resamples: of the draws, of the trainings within each draw, and of the patients.

    All trainings are measured on the same patients, so that the patients are resampled once for all of them.

    Args:
        draws: of which draw of training patients each training is, (trainings,).
        num_patients: patients that are measured.
        generator: of the resamples.

    Returns:
        How often each training and each patient is in a resample, (resamples, trainings) and (resamples, patients).
    """
    rows_of = [np.flatnonzero(np.asarray(draws) == draw) for draw in np.unique(draws)]
    trainings = np.zeros((bootstrap.RESAMPLES, len(draws)))
    patients = np.zeros((bootstrap.RESAMPLES, num_patients))
    for resample in range(bootstrap.RESAMPLES):
        for index in generator.integers(len(rows_of), size=len(rows_of)):
            np.add.at(trainings[resample], generator.choice(rows_of[index], len(rows_of[index])), 1)
        np.add.at(patients[resample], generator.integers(num_patients, size=num_patients), 1)
    return trainings, patients


def resampled_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means over patients of several resamples.

    Args:
        values: (trainings, patients); those that are not finite do not count.
        weights: how often each patient is in a resample, (resamples, patients).

    Returns:
        (resamples, trainings), not a number where there is no value.
    """
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(known, values, 0).T) / (weights @ known.T.astype(float))


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired differences, (patients,), lie around 0.

    Returns:
        In [0, 1]; 1 where all differences are 0. Differences that are not finite do not count.
    """
    differences = differences[np.isfinite(differences)]
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction (https://www.jstor.org/stable/4615733) of several p, (tests,): p for all of them together."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted
