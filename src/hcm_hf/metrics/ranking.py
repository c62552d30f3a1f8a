"""How often one set of numbers lies above another."""

import numpy as np


def precedence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first, (N,), is smaller than the second, (M,), and 1/2 where both are equal: (N, M)."""
    return (first[:, None] < second) + 0.5 * (first[:, None] == second)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive's score is above a negative's, ties counted half.

    Args:
        scores: (N,).
        positive: (N,), whether each is one.

    Returns:
        In [0, 1], higher is better; not a number where one of the kinds is missing.
    """
    positive = positive.astype(bool)
    if positive.all() or not positive.any():
        return float("nan")
    return float(precedence(scores[~positive], scores[positive]).mean())


def resampled_roc_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`roc_auc` of several resamples.

    Args:
        scores: (N,).
        positive: (N,), whether each is one.
        weights: how often each is in a resample, (resamples, N).

    Returns:
        (resamples,), not a number for a resample without one of the kinds.
    """
    positive = positive.astype(bool)
    above = precedence(scores[~positive], scores[positive])
    negatives, positives = weights[:, ~positive], weights[:, positive]
    with np.errstate(invalid="ignore"):
        return ((negatives @ above) * positives).sum(1) / (negatives.sum(1) * positives.sum(1))


def sensitivity_at(scores: np.ndarray, positive: np.ndarray, specificity: float = 0.95) -> float:
    """Share of the positives that are found at the lowest threshold that has this specificity or a higher one.

    The threshold is one of the negatives' scores, and a positive is found if its own is above it.

    Args:
        scores: (N,).
        positive: (N,), whether each is one.
        specificity: least share of the negatives that must not be above the threshold, above 0.

    Returns:
        In [0, 1], higher is better; not a number where one of the kinds is missing.
    """
    return float(resampled_sensitivity_at(scores, positive, np.ones((1, len(scores))), specificity)[0])


def resampled_sensitivity_at(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray, specificity: float = 0.95
) -> np.ndarray:
    """`sensitivity_at` of several resamples.

    Args:
        scores: (N,).
        positive: (N,), whether each is one.
        weights: how often each is in a resample, (resamples, N).
        specificity: as there.

    Returns:
        (resamples,), not a number for a resample without one of the kinds.
    """
    positive = positive.astype(bool)
    if positive.all() or not positive.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(scores[~positive])
    below = weights[:, ~positive][:, order].cumsum(1)  # (resamples, negatives)
    least = np.ceil((specificity * below[:, -1:]).round(9))  # rounded: 0.95 * 20 is a little more than 19
    thresholds = scores[~positive][order][(below >= least).argmax(1)]
    positives = weights[:, positive]
    with np.errstate(invalid="ignore"):
        found = (positives * (scores[positive] > thresholds[:, None])).sum(1) / positives.sum(1)
    return np.where(below[:, -1] > 0, found, np.nan)


def mann_whitney_z(first: np.ndarray, second: np.ndarray) -> float:
    """Standardised number of pairs in which the first is larger.

    Args:
        first: (M,).
        second: (N,).

    Returns:
        About 0 where both are alike, below 0 where the first are smaller.
    """
    pairs = len(first) * len(second)
    above = precedence(second, first).sum()
    return (above - pairs / 2) / np.sqrt(pairs * (len(first) + len(second) + 1) / 12)
