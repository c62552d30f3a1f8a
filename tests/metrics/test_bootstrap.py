import numpy as np
import pytest
import scipy.stats

from hcm_hf.metrics.bootstrap import (
    RESAMPLES,
    Number,
    Resampled,
    bootstrap_draws,
    mean_over_images,
    mean_over_pairs,
    ratio_over_pairs,
    resample,
    resample_biased,
)


def test_mean_over_pairs_weighs_pairs_within_resampled_patients():
    value, resampled = mean_over_pairs(
        np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1]), np.array([[0, 0], [0, 1], [1, 1]])
    )
    assert value == 3
    assert resampled.values == pytest.approx([1.5, 3, 6]) and resampled.left_out[0] == pytest.approx([6, 1.5])


def test_a_ratio_is_of_sums_within_resampled_patients():
    draws = np.array([[0, 0], [0, 1], [1, 1]])
    value, resampled = ratio_over_pairs(
        np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0, 3.0]), np.array([0, 0, 1]), draws
    )
    assert value == 1 and resampled.values == pytest.approx([0.5, 1, 2])
    assert resampled.left_out[0] == pytest.approx([2, 0.5])
    assert np.isnan(ratio_over_pairs(np.zeros(2), np.zeros(2), np.zeros(2, int), np.zeros((1, 1), int))[0])


def test_the_mean_over_images_varies_as_a_mean_does():
    values = np.random.default_rng(0).normal(2, 1, 400)
    mean, resampled = mean_over_images(values, np.random.default_rng(1))
    assert mean == values.mean() and len(resampled.values) == RESAMPLES
    assert resampled.values.std() == pytest.approx(values.std() / 20, rel=0.1)
    assert resampled.left_out[0][7] == pytest.approx(np.delete(values, 7).mean())


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
    found, expected = (
        resample(lambda rows: values[rows].mean(), codes, draws),
        mean_over_pairs(values, codes, draws)[1],
    )
    np.testing.assert_allclose(found.values, expected.values)
    np.testing.assert_allclose(found.left_out, expected.left_out)
    biased = resample_biased(lambda rows: values[rows].mean(), codes, draws)
    np.testing.assert_array_equal(biased.values, found.values)
    assert not biased.left_out


def test_resample_gives_rows_as_often_as_their_patient_is_drawn():
    seen = []
    resample(lambda rows: seen.append(rows.tolist()) or 0.0, np.array([1, 0, 1, 2]), np.array([[1, 1, 0], [2, 0, 2]]))
    left_out = [[0, 2, 3], [1, 3], [0, 1, 2]]
    assert [sorted(rows) for rows in seen] == [[0, 0, 1, 2, 2], [1, 3, 3], *left_out]


# Intervals.


def clustered(generator, patients=20, slices=8):
    """Slices of patients who differ, by normal distributions around 0: values and codes."""
    codes = np.repeat(np.arange(patients), slices)
    return generator.normal(0, 1, patients)[codes] + generator.normal(0, 0.5, len(codes)), codes


@pytest.mark.parametrize("spread", [0.3, 1.2])
def test_the_interval_is_scipys(spread):
    """Of a skewed ratio; scipy resamples the indices of the patients, and is given the same draws."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(5, 15, 12).astype(float)
    values = sizes * np.exp(generator.normal(0, spread, 12))
    codes, draws = bootstrap_draws(np.arange(12), generator)
    value, resampled = ratio_over_pairs(values, sizes, codes, draws)

    def ratio(chosen, axis=-1):
        return values[chosen].sum(axis) / sizes[chosen].sum(axis)

    given = scipy.stats.bootstrap((np.arange(12),), ratio, vectorized=True, n_resamples=2, method="percentile")
    given.bootstrap_distribution = resampled.values
    expected = scipy.stats.bootstrap(
        (np.arange(12),), ratio, vectorized=True, n_resamples=0, bootstrap_result=given, method="BCa"
    ).confidence_interval
    assert resampled.interval(value) == pytest.approx((expected.low, expected.high), rel=1e-12)
    plain = np.quantile(resampled.values, (0.025, 0.975))
    assert expected.low > plain[0] and expected.high > plain[1]  # a skewed statistic reaches up


def test_two_sets_of_patients_have_the_interval_of_scipy():
    generator = np.random.default_rng(1)
    first, second = generator.exponential(1, 9), generator.exponential(2, 14)
    value = first.mean() - second.mean()

    def difference(ours, theirs, axis=-1):
        return ours.mean(axis) - theirs.mean(axis)

    found = scipy.stats.bootstrap((first, second), difference, vectorized=True, method="BCa", rng=generator)
    left_out = [(one.sum() - one) / (len(one) - 1) for one in (first, second)]
    resampled = Resampled(found.bootstrap_distribution, (left_out[0] - second.mean(), first.mean() - left_out[1]))
    expected = found.confidence_interval
    assert resampled.interval(value) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_an_interval_over_patients_holds_the_truth_about_as_often_as_it_says():
    """One that takes slices for patients does not."""
    generator, covered = np.random.default_rng(0), {"patients": 0, "slices": 0}
    for _ in range(200):
        values, codes = clustered(generator)
        for name, owners in (("patients", codes), ("slices", np.arange(len(codes)))):
            value, resampled = mean_over_pairs(values, *bootstrap_draws(owners, generator))
            low, high = resampled.interval(value)
            assert low < value < high
            covered[name] += low <= 0 <= high
    assert 180 <= covered["patients"] <= 196
    assert covered["slices"] < 140


def test_of_a_distance_the_shifted_percentiles_hold_the_truth_more_often_than_bca():
    generator, covered = np.random.default_rng(0), {"shifted": 0, "BCa": 0}
    for _ in range(100):
        sets = [clustered(generator) for _ in range(10)]  # a mean in ten dimensions, all nearly the same as the other
        values, codes = np.stack([values for values, _ in sets], axis=1), sets[0][1]

        def distance(rows, values=values):
            return np.abs(values[rows].mean(0) - 0.1).mean()

        draws = np.random.default_rng(1).integers(20, size=(200, 20))
        found = resample(distance, codes, draws)
        for name, one in (("shifted", Resampled(found.values)), ("BCa", found)):
            low, high = one.interval(distance(slice(None)))
            covered[name] += low <= 0.1 <= high
    assert covered["shifted"] > 1.2 * covered["BCa"]


def test_statistics_that_resampling_biases_have_quantiles_without_that_bias():
    resampled = np.linspace(1, 3, 1001)  # around 2, where the value is 5
    assert Resampled(resampled).interval(5.0) == pytest.approx((4.05, 5.95))
    outside = Resampled(resampled, (np.array([4.0, 5.0, 6.0]),))
    assert outside.interval(5.0) == Resampled(resampled).interval(5.0)  # where BCa has nothing to take its ends from


def test_one_patient_and_constant_values_have_an_interval_without_width():
    for values, patients in ((np.array([0.2, 0.4]), np.zeros(2)), (np.full(6, 0.3), np.arange(6))):
        found = Number.estimate(*mean_over_pairs(values, *bootstrap_draws(patients, np.random.default_rng(0))), (0, 1))
        assert found.low == found.value == found.high == pytest.approx(0.3)
    alone = resample(np.median, *bootstrap_draws(np.zeros(3), np.random.default_rng(0)))
    assert alone.interval(1.0) == (1, 1)


def test_a_resample_of_all_patients_in_another_order_is_the_value_itself():
    """Sums round by their order: of two patients half of the resamples are the value, and so on neither side."""
    values, codes = np.array([0.1, 0.2, 0.3, 0.7, 0.15, 0.35]), np.array([0, 0, 0, 1, 1, 1])
    value, resampled = mean_over_pairs(values, codes, np.array([[0, 1], [1, 0], [0, 0], [1, 1]] * 25))
    moved = Resampled(resampled.values + np.tile([1e-17, 5e-17, 0, 0], 25), resampled.left_out)
    assert moved.interval(value) == pytest.approx((0.2, 0.4)) == resampled.interval(value)


# Numbers.


def test_a_number_has_its_interval_within_bounds():
    resampled = Resampled(np.linspace(1, 3, 1001))
    found = Number.estimate(5.0, resampled, (0, 100), protocol="random", n_real=3)
    assert found == Number(5, pytest.approx(4.05), pytest.approx(5.95), "random", n_real=3)
    assert (
        Number.estimate(5.0, resampled, (4.5, 5.5)).low == 4.5
        and Number.estimate(5.0, resampled, (4.5, 5.5)).high == 5.5
    )


def test_resamples_that_are_no_numbers_do_not_count():
    resampled = Resampled(np.array([1.0, np.nan, 3.0, np.inf]))
    assert Number.estimate(2.0, resampled, (0, 9)) == Number.estimate(2.0, Resampled(np.array([1.0, 3.0])), (0, 9))
    nothing = Number.estimate(float("nan"), Resampled(np.full(3, np.nan)), (0, 1), n_real=0)
    assert nothing == Number(None, None, None, n_real=0) == Number.unknown(n_real=0)
    assert Number.estimate(float("nan"), Resampled(np.array([1.0, 2.0])), (0, 1)) == Number.unknown()


def test_a_patient_without_whom_nothing_can_be_measured_leaves_no_acceleration():
    values = np.random.default_rng(0).exponential(1, 500)
    known = Resampled(values, (np.array([0.5, 1.0, 1.5]),))  # without skewness there is none either
    assert Resampled(values, (np.array([0.5, np.nan, 5.0]),)).interval(1.0) == known.interval(1.0)
