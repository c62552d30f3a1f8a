import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from hcm_hf.metrics.ranking import mann_whitney_z, roc_auc


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
