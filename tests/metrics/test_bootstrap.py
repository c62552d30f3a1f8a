import numpy as np
import pytest

from hcm_hf.metrics.bootstrap import (
    RESAMPLES,
    Number,
    bootstrap_draws,
    mean_over_images,
    mean_over_pairs,
    ratio_over_pairs,
    resample,
)


def test_mean_over_pairs_weighs_pairs_within_resampled_patients():
    value, resampled = mean_over_pairs(
        np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1]), np.array([[0, 0], [0, 1], [1, 1]])
    )
    assert value == 3
    assert resampled == pytest.approx([1.5, 3, 6])


def test_a_ratio_is_of_sums_within_resampled_patients():
    draws = np.array([[0, 0], [0, 1], [1, 1]])
    value, resampled = ratio_over_pairs(
        np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0, 3.0]), np.array([0, 0, 1]), draws
    )
    assert value == 1 and resampled == pytest.approx([0.5, 1, 2])
    assert np.isnan(ratio_over_pairs(np.zeros(2), np.zeros(2), np.zeros(2, int), np.zeros((1, 1), int))[0])


def test_the_mean_over_images_varies_as_a_mean_does():
    values = np.random.default_rng(0).normal(2, 1, 400)
    mean, resampled = mean_over_images(values, np.random.default_rng(1))
    assert mean == values.mean() and len(resampled) == RESAMPLES
    assert resampled.std() == pytest.approx(values.std() / 20, rel=0.1)


def test_draws_are_seeded_patients_each_as_likely():
    patients = np.array(["b", "a", "c", "a"])
    codes, draws = bootstrap_draws(patients, np.random.default_rng(0))
    assert codes.tolist() == [1, 0, 2, 0]
    assert draws.shape == (RESAMPLES, 3) and draws.min() == 0 and draws.max() == 2
    np.testing.assert_allclose(np.bincount(draws.flatten()) / draws.size, 1 / 3, atol=0.03)
    assert (bootstrap_draws(patients, np.random.default_rng(0))[1] == draws).all()


def test_resample_of_a_mean_is_that_of_the_pairs():
    generator = np.random.default_rng(0)
    values, patients = generator.random(40), generator.integers(0, 7, 40)
    codes, draws = bootstrap_draws(patients, generator)
    np.testing.assert_allclose(
        resample(lambda rows: values[rows].mean(), codes, draws), mean_over_pairs(values, codes, draws)[1]
    )


def test_resample_gives_rows_as_often_as_their_patient_is_drawn():
    seen = []
    resample(lambda rows: seen.append(rows.tolist()) or 0.0, np.array([1, 0, 1, 2]), np.array([[1, 1, 0], [2, 0, 2]]))
    assert [sorted(rows) for rows in seen] == [[0, 0, 1, 2, 2], [1, 3, 3]]


# Numbers.


def test_a_number_has_the_quantiles_without_the_bootstraps_bias():
    resampled = np.linspace(1, 3, 1001)  # around 2, where the value is 5
    found = Number.estimate(5.0, resampled, (0, 100), protocol="random", n_real=3)
    assert found == Number(5, pytest.approx(4.05), pytest.approx(5.95), "random", n_real=3)
    assert (
        Number.estimate(5.0, resampled, (4.5, 5.5)).low == 4.5
        and Number.estimate(5.0, resampled, (4.5, 5.5)).high == 5.5
    )


def test_resamples_that_are_no_numbers_do_not_count():
    resampled = np.array([1.0, np.nan, 3.0, np.inf])
    assert Number.estimate(2.0, resampled, (0, 9)) == Number.estimate(2.0, np.array([1.0, 3.0]), (0, 9))
    nothing = Number.estimate(float("nan"), np.full(3, np.nan), (0, 1), n_real=0)
    assert nothing == Number(None, None, None, n_real=0) == Number.unknown(n_real=0)
