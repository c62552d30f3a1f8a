import numpy as np
import pytest
from scipy.stats import wilcoxon

from hcm_hf.metrics import bootstrap
from hcm_hf.metrics.paired import holm, resample_hierarchy, resampled_means, signed_rank_p


def test_holm_equals_hand_computed_values():
    # Sorted: .01 * 4, .02 * 3, .04 * 2 (not below .06), .3 * 1; each is as large as those before it.
    assert holm([0.04, 0.01, 0.3, 0.02]) == pytest.approx([0.08, 0.04, 0.3, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([]).shape == (0,)


def test_the_signed_rank_test_passes_over_patients_without_a_value():
    differences = np.array([0.1, 0.2, -0.05, 0.3, 0.15, np.nan])
    assert signed_rank_p(differences) == wilcoxon(differences[:-1]).pvalue
    assert signed_rank_p(np.zeros(5)) == 1
    assert signed_rank_p(np.full(6, 0.1)) == pytest.approx(2 / 2**6)


def test_resamples_keep_trainings_in_their_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    trainings, patients = resample_hierarchy([0, 0, 1, 1, 1, 1], 4, np.random.default_rng(0))
    assert trainings.shape == (50, 6) and patients.shape == (50, 4)
    assert (patients.sum(1) == 4).all() and (patients.std(1) > 0).any()
    first, second = trainings[:, :2].sum(1), trainings[:, 2:].sum(1)
    assert (first / 2 + second / 4 == 2).all()  # draws are drawn as a whole, two of two
    assert set(first) == {0, 2, 4}


def test_the_interval_grows_with_the_spread_of_draws():
    values = np.array([[0.5] * 30, [0.9] * 30])
    trainings, patients = resample_hierarchy([0, 1], 30, np.random.default_rng(0))
    means = (resampled_means(values, patients) * trainings).sum(1) / 2
    low, high = bootstrap.Resampled(means).interval(0.7)
    assert low == pytest.approx(0.5, abs=0.02) and high == pytest.approx(0.9, abs=0.02)


def test_means_of_resamples_pass_over_what_is_missing():
    values = np.array([[1.0, 2.0, np.nan], [4.0, 4.0, 7.0]])
    weights = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 3]])
    means = resampled_means(values, weights)
    assert means[:2] == pytest.approx(np.array([[1.5, 5], [4 / 3, 4]]))
    assert np.isnan(means[2, 0]) and means[2, 1] == 7
