import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from hcm_hf.metrics.ranking import (
    mann_whitney_z,
    resampled_roc_auc,
    resampled_sensitivity_at,
    roc_auc,
    sensitivity_at,
)


@pytest.mark.parametrize(("first", "second", "levels"), [(40, 40, 1e9), (12, 70, 1e9), (70, 5, 4), (9, 9, 2)])
def test_mann_whitney_z_is_scipys(first, second, levels):
    """Ties count half; with them scipy's is larger by what they take from the variance."""
    generator = np.random.default_rng(first)
    one, other = (np.floor(generator.random(n) * levels) for n in (first, second))
    test = mannwhitneyu(one, other)
    pairs = first * second
    z = (test.statistic - pairs / 2) / np.sqrt(pairs * (first + second + 1) / 12)
    assert mann_whitney_z(one, other) == pytest.approx(z, abs=1e-12) == -mann_whitney_z(other, one)
    if levels > 100:
        test = mannwhitneyu(one, other, use_continuity=False, method="asymptotic", alternative="greater")
        assert mann_whitney_z(one, other) == pytest.approx(norm.isf(test.pvalue), abs=1e-9)
    assert mann_whitney_z(one - 1e10, other) < 0 < mann_whitney_z(one + 1e10, other)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_roc_auc_is_that_of_scikit_learn(levels):
    generator = np.random.default_rng(levels)
    positive = generator.random(60) < 0.3
    scores = np.round((generator.random(60) + 0.3 * positive) * levels)  # with ties
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert roc_auc(-scores, positive) == pytest.approx(1 - roc_auc_score(positive, scores), abs=1e-12)
    assert np.isnan(roc_auc(scores, np.ones(60, bool))) and np.isnan(roc_auc(scores, np.zeros(60, bool)))


def test_sensitivity_at_a_specificity_equals_hand_computed_values():
    negatives = np.arange(20.0)  # 95 % of 20 are 19: one may be above the threshold, which is 18
    positives = np.array([17.5, 18.0, 18.5, 30.0])
    scores, positive = np.concatenate([negatives, positives]), np.repeat([False, True], [20, 4])
    assert sensitivity_at(scores, positive) == 0.5  # 18.5 and 30; a tie is not found
    assert sensitivity_at(scores, positive, specificity=1.0) == 0.25  # above 19
    assert sensitivity_at(scores, positive, specificity=0.9) == 1.0  # above 17


def test_few_negatives_may_not_be_missed_at_all():
    scores, positive = np.array([1.0, 2.0, 3.0, 2.5, 3.5]), np.array([0, 0, 0, 1, 1])
    assert sensitivity_at(scores, positive) == 0.5
    assert np.isnan(sensitivity_at(scores, np.ones(5))) and np.isnan(sensitivity_at(scores, np.zeros(5)))


@pytest.mark.parametrize(
    ("resampled", "one"), [(resampled_roc_auc, roc_auc), (resampled_sensitivity_at, sensitivity_at)]
)
def test_resamples_are_as_if_rows_were_repeated(resampled, one):
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(6, size=15).astype(float), np.arange(15) % 3 == 0
    chosen = generator.integers(15, size=(20, 15))
    weights = np.stack([np.bincount(rows, minlength=15) for rows in chosen])
    expected = [one(scores[rows], positive[rows]) for rows in chosen]
    assert resampled(scores, positive, weights) == pytest.approx(np.array(expected), nan_ok=True)
    assert np.isnan(resampled(scores, positive, positive[None].astype(float))).all()  # without a negative
