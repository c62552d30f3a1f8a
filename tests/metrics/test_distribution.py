"""Frechet and kernel distance between sets of features, and principal components."""

import math

import numpy as np
import pytest
from samples import correlated, exact_sample, rotation, scenes
from scipy import linalg

from hcm_hf.metrics import distribution, spectrum
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.metrics.distribution import (
    frechet_distance,
    kernel_distance,
    neighbour_scores,
    principal_components,
    resampled_kernel_distance,
)
from hcm_hf.metrics.spectrum import log_radial_spectra
from hcm_hf.utils.errors import InputError


ON_FEATURES = (frechet_distance, kernel_distance, neighbour_scores)


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    first = exact_sample(np.array([0.0, 1, -2]), np.diag([4.0, 1, 9]))
    second = exact_sample(np.array([3.0, 1, 2]), np.diag([1.0, 16, 9]), n=70, seed=1)
    # (3^2 + 0 + 4^2) + (2 - 1)^2 + (1 - 4)^2 + (3 - 3)^2
    assert frechet_distance(first, second) == pytest.approx(35, rel=1e-12)


def test_frechet_distance_of_one_feature():
    first, second = np.array([[0.0], [2.0]]), np.array([[1.0], [9.0], [5.0]])  # deviations sqrt 2 and 4
    assert frechet_distance(first, second) == pytest.approx(4**2 + (4 - math.sqrt(2)) ** 2, rel=1e-12)


def test_frechet_distance_equals_the_matrix_square_root():
    first, second = correlated(40), 1.5 * correlated(60, seed=1) @ rotation(6)
    root = linalg.sqrtm(np.cov(first.T) @ np.cov(second.T)).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(
        np.cov(first.T) + np.cov(second.T) - 2 * root
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_and_to_its_shift():
    for seed in range(20):
        features = correlated(40, seed=seed)
        assert 0 <= frechet_distance(features, features) < 1e-12  # rounding falls to both sides
    assert frechet_distance(features + [3, 0, 0, 4, 0, 0], features) == pytest.approx(25, rel=1e-12)


def test_frechet_distance_keeps_its_digits_where_covariances_are_singular():
    features = correlated(40)
    features[:, 4:] = features[:, :2]
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-12)
    constant = np.full((9, 6), 2.0)
    expected = np.square(features.mean(0) - 2).sum() + features.var(0, ddof=1).sum()
    assert frechet_distance(constant, features) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_is_computed_in_double_precision():
    features = (correlated(40) + 3000).astype(np.float32)
    moved = features[:, ::-1]
    exact = frechet_distance(features.astype(float), moved.astype(float))
    assert frechet_distance(features, moved) == exact > 0


def test_frechet_distance_scales_with_the_square_of_the_features():
    first, second = correlated(40), correlated(40, seed=1)
    assert frechet_distance(3 * first, 3 * second) == pytest.approx(9 * frechet_distance(first, second), rel=1e-10)


def test_kernel_distance_of_three_and_two_points_by_hand():
    generated = np.array([[1.0, 1], [1, -1], [3, -1]])
    real = np.array([[1.0, 3], [2, 0]])
    # x.y / 2 + 1, cubed. Within generated: pairs 0 1, 0 2, 1 2 give 1, 2, 3; within real: the pair gives 2.
    # Between: rows of generated with both of real give 3, 2; 0, 2; 1, 4.
    expected = (1 + 8 + 27) / 3 + 8 - 2 * (27 + 8 + 0 + 8 + 1 + 64) / 6
    assert kernel_distance(generated, real) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_zero_on_average_and_spread_around_it():
    sample = np.random.default_rng(0).standard_normal
    values = np.array([kernel_distance(sample((12, 3)), sample((9, 3))) for _ in range(1000)])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 4 * error < 0.2  # counting each row with itself would add 2
    assert 0.3 < (values < 0).mean() < 0.8


def test_kernel_distance_of_known_moments():
    # With one feature, k = 1 + 3 xy + 3 x^2 y^2 + x^3 y^3: squared differences of the first three moments, weighed.
    sample = np.random.default_rng(1).standard_normal
    values = [kernel_distance(sample((40, 1)) + 1, sample((40, 1))) for _ in range(1000)]
    expected = 3 * 1**2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2  # normal around 1: moments 1, 2, 4
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / math.sqrt(len(values)))


def test_chunks_change_nothing(monkeypatch):
    features, images = (correlated(10), correlated(13, seed=1)), scenes(7, seed=0)
    before = kernel_distance(*features), log_radial_spectra(images)
    for module in (distribution, spectrum):
        monkeypatch.setattr(module, "_CHUNK", 3)
    assert kernel_distance(*features) == pytest.approx(before[0], rel=1e-12)
    np.testing.assert_allclose(log_radial_spectra(images), before[1], rtol=1e-12)


def test_resampled_kernel_distance_equals_a_loop_over_the_pairs_of_different_slices_and_drawn_patients():
    generated, real = correlated(8, 3), correlated(6, 3, seed=1)
    codes = np.array([0, 2, 0, 1, 2, 2])
    draws = np.array([[0, 1, 2], [2, 0, 2], [1, 0, 0]])
    value, resampled = resampled_kernel_distance(generated, real, codes, draws)
    assert value == pytest.approx(kernel_distance(generated, real), rel=1e-10)
    for patient, result in enumerate(resampled.left_out[0]):
        assert result == pytest.approx(kernel_distance(generated, real[codes != patient]), rel=1e-10)
    for draw, result in zip(draws, resampled.values, strict=True):
        rows = [(place, patient, i) for place, patient in enumerate(draw) for i in np.flatnonzero(codes == patient)]
        within = [
            (real[i] @ real[j] / 3 + 1) ** 3
            for place, patient, i in rows
            for other_place, other, j in rows
            if i != j and (place == other_place or patient != other)
        ]
        between = [(x @ real[i] / 3 + 1) ** 3 for x in generated for _, _, i in rows]
        itself = [(x @ y / 3 + 1) ** 3 for a, x in enumerate(generated) for b, y in enumerate(generated) if a != b]
        assert result == pytest.approx(np.mean(itself) + np.mean(within) - 2 * np.mean(between), rel=1e-10)


def test_the_interval_over_patients_holds_the_truth_more_often_than_one_over_slices():
    generator = np.random.default_rng(3)
    generated = 1.4 * generator.standard_normal((60, 2)) + 1
    truth = kernel_distance(generated, math.sqrt(2) * generator.standard_normal((4000, 2)))
    covered = {"patients": 0, "slices": 0}
    for _ in range(100):
        centres = generator.standard_normal((12, 1, 2))
        real = (centres + generator.standard_normal((12, 10, 2))).reshape(-1, 2)  # 12 patients of 10 slices
        for unit, size in (("patients", 10), ("slices", 1)):
            codes = np.arange(120) // size
            draws = generator.integers(120 // size, size=(200, 120 // size))
            value, resampled = resampled_kernel_distance(generated, real, codes, draws)
            found = Number.estimate(value, resampled, (-np.inf, np.inf))
            assert found.low < value < found.high
            covered[unit] += found.low <= truth <= found.high
    assert covered["patients"] > 80
    assert covered["slices"] < 75


def test_a_resample_without_a_pair_is_not_a_number():
    real = correlated(3, 2)
    _, resampled = resampled_kernel_distance(
        correlated(4, 2), real, np.array([0, 1, 1]), np.array([[0, 0], [1, 1], [0, 1]])
    )
    assert np.isnan(resampled.values).tolist() == [True, False, False]


@pytest.mark.parametrize("distance", ON_FEATURES)
def test_distances_ignore_rotation_and_order(distance):
    first, second = correlated(40), correlated(40, seed=1)
    turned, order = rotation(6), np.random.default_rng(0).permutation(40)
    expected = pytest.approx(distance(first, second), rel=1e-9)
    assert distance(first @ turned, second @ turned) == expected
    assert distance(first[order], second) == expected
    assert distance(first, second[order]) == expected
    assert distance(first @ turned, second) != expected


@pytest.mark.parametrize("distance", (frechet_distance, kernel_distance))
def test_distances_are_symmetric(distance):
    first, second = correlated(40), correlated(50, seed=1)
    assert distance(first, second) == pytest.approx(distance(second, first), rel=1e-9)


def test_principal_components_are_those_of_the_reference_in_order():
    turned = rotation(3)
    reference = exact_sample(np.array([1.0, 2, 3]), turned @ np.diag([9.0, 4, 1]) @ turned.T)
    components = principal_components(reference, 2)
    np.testing.assert_allclose(components.mean, [1, 2, 3], atol=1e-12)
    np.testing.assert_allclose(np.abs(components.basis.T @ turned), np.eye(2, 3), atol=1e-10)
    np.testing.assert_allclose(np.cov(components.project(reference).T), np.diag([9, 4]), atol=1e-10)
    np.testing.assert_allclose(components.project(reference[:1] + turned[:, 2])[0], components.project(reference)[0])


def test_all_components_keep_every_distance():
    first, second = correlated(40), correlated(40, seed=1)
    components = principal_components(second, 6)
    projected = components.project(first), components.project(second)
    assert frechet_distance(*projected) == pytest.approx(frechet_distance(first, second), rel=1e-9)
    assert neighbour_scores(*projected) == neighbour_scores(first, second)


@pytest.mark.parametrize("distance", ON_FEATURES)
@pytest.mark.parametrize(
    "generated, message",
    [
        (np.zeros((40, 5)), "generated has 5 features per image, but real has 6"),
        (np.zeros(40), r"generated must be floats of shape \(N, D\), not float64 of shape \(40,\)"),
        (np.zeros((40, 0)), "shape"),
        (np.zeros((40, 6), int), "int64"),
        (np.full((40, 6), np.nan), "generated holds NaN or infinite"),
        (np.full((40, 6), np.inf), "generated holds NaN or infinite"),
        (np.zeros((0, 6)), "generated has 0 rows, but at least [26] are needed"),
    ],
)
def test_malformed_features_are_refused(distance, generated, message):
    with pytest.raises(InputError, match=message):
        distance(generated, correlated(40))
    if "generated has 5" not in message:
        with pytest.raises(InputError, match=message.replace("generated", "real")):
            distance(correlated(40), generated)


@pytest.mark.parametrize("distance, least", [(frechet_distance, 7), (kernel_distance, 2), (neighbour_scores, 6)])
def test_too_few_images_are_refused(distance, least):
    enough, few = correlated(least), correlated(least - 1)
    distance(enough, correlated(least, seed=1))
    with pytest.raises(InputError, match=f"generated has {least - 1} rows, but at least {least} are needed"):
        distance(few, enough)
    with pytest.raises(InputError, match=f"real has {least - 1} rows, but at least {least} are needed"):
        distance(enough, few)


def test_degenerate_references_are_refused():
    with pytest.raises(InputError, match="count is 7; features with 6 columns have 1 to 6"):
        principal_components(correlated(40), 7)
    with pytest.raises(InputError, match="count is 0"):
        principal_components(correlated(40), 0)
    with pytest.raises(InputError, match="reference has 5 rows; at least 6 are needed for 5 components"):
        principal_components(correlated(5), 5)
    with pytest.raises(InputError, match="NaN"):
        principal_components(np.full((40, 6), np.nan), 2)
    flat = correlated(40) @ np.diag([1, 1, 1, 0, 0, 0]) @ rotation(6) + 1000
    assert principal_components(flat, 3).basis.shape == (6, 3)
    with pytest.raises(InputError, match="reference varies in 3 directions only, fewer than the 4"):
        principal_components(flat, 4)
    with pytest.raises(InputError, match="reference varies in 0 directions"):
        principal_components(np.full((40, 6), 0.1), 1)
    with pytest.raises(InputError, match="features have 5 columns, but the components 6"):
        principal_components(correlated(40), 2).project(correlated(40, 5))
    with pytest.raises(InputError, match="features holds NaN"):
        principal_components(correlated(40), 2).project(np.full((1, 6), np.nan))
