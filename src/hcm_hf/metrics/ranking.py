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
