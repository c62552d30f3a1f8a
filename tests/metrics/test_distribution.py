import math

import numpy as np
import pytest
from scipy import linalg, ndimage, stats

from hcm_hf.metrics import distribution
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.metrics.distribution import (
    frechet_distance,
    kernel_distance,
    neighbour_scores,
    precision_recall_curve,
    principal_components,
    resampled_kernel_distance,
    resampled_neighbour_scores,
)
from hcm_hf.metrics.spectrum import POWER_FLOOR, brightness_outliers, log_radial_spectra, spectrum_distance
from hcm_hf.utils.errors import InputError


ON_FEATURES = (frechet_distance, kernel_distance, neighbour_scores)


def correlated(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    """Rows of a Gaussian with a dense covariance and a mean away from 0."""
    mixing = np.random.default_rng(99).standard_normal((d, d))
    return np.random.default_rng(seed).standard_normal((n, d)) @ mixing + 2


def exact_sample(mean: np.ndarray, covariance: np.ndarray, n: int = 50, seed: int = 0) -> np.ndarray:
    """Rows whose mean and covariance over n - 1 are the given ones, not only nearly."""
    rows = np.random.default_rng(seed).standard_normal((n, len(mean)))
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def rotation(d: int, seed: int = 5) -> np.ndarray:
    return stats.ortho_group.rvs(d, random_state=seed)


def scenes(n: int, seed: int, size: int = 32) -> np.ndarray:
    """Grainy discs of varied place, size and brightness."""
    generator = np.random.default_rng(seed)
    y, x, radius, brightness = generator.uniform((12, 12, 5, 0.4), (20, 20, 10, 0.8), (n, 4)).T[:, :, None, None]
    grid = np.arange(size)
    inside = 1 / (1 + np.exp(np.hypot(grid[:, None] - y, grid - x) - radius))
    return (0.1 + brightness * inside + 0.03 * generator.standard_normal((n, size, size))).clip(0, 1)


def describe(images: np.ndarray) -> np.ndarray:
    """Mean and log standard deviation of 8 x 8 blocks: features that see place, brightness and texture."""
    blocks = images.reshape(len(images), 4, 8, 4, 8).swapaxes(2, 3).reshape(len(images), 16, 64)
    return np.concatenate([blocks.mean(2), np.log(blocks.std(2))], axis=1)


# Frechet distance


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


# Kernel distance


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
    monkeypatch.setattr(distribution, "_CHUNK", 3)
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


# Precision, recall, density, coverage


def test_neighbour_scores_equal_a_loop():
    generated, real = correlated(30, 2) * 0.6 + 1, correlated(30, 2, seed=1)

    def radius(rows, i):
        return sorted(math.dist(rows[i], other) for j, other in enumerate(rows) if j != i)[4]

    held = [[math.dist(x, y) <= radius(real, j) for j, y in enumerate(real)] for x in generated]
    holds = [[math.dist(x, y) <= radius(generated, i) for y in real] for i, x in enumerate(generated)]
    expected = (
        sum(any(row) for row in held) / 30,
        sum(any(row) for row in zip(*holds, strict=True)) / 30,
        sum(sum(row) for row in held) / (5 * 30),
        sum(any(row) for row in zip(*held, strict=True)) / 30,
    )
    assert neighbour_scores(generated, real) == pytest.approx(expected)
    assert len(set(expected)) == 4  # none is another by accident


def test_neighbour_scores_of_points_on_a_line_by_hand():
    real = np.array([[0.0], [1], [2], [3], [4], [5], [100]])  # radii 5, 4, 3, 3, 4, 5, 99
    generated = np.array([[-3.0], [-3], [-3], [-3], [-3], [-3], [2.5]])  # radii 0 six times, and 5.5
    scores = neighbour_scores(generated, real)
    # -3 lies in the balls around 0 and 1; 2.5 in all seven.
    assert scores == pytest.approx((1, 6 / 7, (6 * 2 + 7) / (5 * 7), 1))


def test_a_set_against_itself_and_against_a_distant_one():
    features = correlated(40)
    assert neighbour_scores(features, features) == pytest.approx((1, 1, 1.2, 1))
    assert neighbour_scores(features + 1000, features) == (0, 0, 0, 0)


def test_density_of_real_data_is_one_on_average():
    pairs = [(correlated(60, 3, seed), correlated(60, 3, 1000 + seed)) for seed in range(100)]
    densities = [neighbour_scores(*pair).density for pair in pairs]
    assert np.mean(densities) == pytest.approx(1, abs=4 * np.std(densities) / 10)
    assert np.std(densities) < 0.1


def test_a_narrow_generator_is_precise_and_recalls_little():
    real = correlated(200, 4)
    narrow = neighbour_scores(0.2 * (correlated(200, 4, seed=1) - 2) + 2, real)
    assert narrow.precision > 0.95
    assert narrow.recall < 0.3 and narrow.coverage < 0.5


# and for resamples of patients


CODES = np.random.default_rng(7).integers(0, 5, 30)


def test_the_resample_of_every_patient_once_is_the_set_itself():
    generated, real = correlated(30, 2) * 0.6 + 1, correlated(30, 2, seed=1)
    scores, _ = resampled_neighbour_scores(generated, real, CODES, np.array([[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]]))
    expected = neighbour_scores(generated, real)
    np.testing.assert_allclose(scores, [expected, expected], rtol=1e-12)


def test_resampled_neighbour_scores_equal_a_loop_that_keeps_the_balls():
    generated, real = correlated(30, 2) * 0.6 + 1, correlated(30, 2, seed=1)
    draws = np.array([[0, 1, 2, 2, 4], [3, 3, 3, 3, 3], [1, 0, 4, 0, 0]])

    def radius(rows, i):
        return sorted(math.dist(rows[i], other) for other in rows)[5]

    held = np.array([[math.dist(x, y) <= radius(real, j) for j, y in enumerate(real)] for x in generated])
    holds = np.array([[math.dist(x, y) <= radius(generated, i) for y in real] for i, x in enumerate(generated)])
    found = resampled_neighbour_scores(generated, real, CODES, draws)
    others = [np.delete(np.arange(5), patient) for patient in range(5)]
    for draw, scores in zip([*draws, *others], np.concatenate(found), strict=True):
        rows = np.concatenate([np.flatnonzero(CODES == patient) for patient in draw])
        expected = (
            held[:, rows].any(1).mean(),
            holds[:, rows].any(0).mean(),
            held[:, rows].sum() / (5 * 30) * 30 / len(rows),  # per ball, and the resample may hold more or fewer
            held[:, rows].any(0).mean(),
        )
        assert scores == pytest.approx(expected)
    scores, _ = found
    assert not np.allclose(scores[0], scores[2]) and not np.allclose(scores, neighbour_scores(generated, real))


def test_a_resample_without_a_real_row_has_no_scores():
    features = correlated(12)
    scores, left_out = resampled_neighbour_scores(features, features, np.zeros(12, int), np.array([[1, 1], [0, 1]]))
    assert np.isnan(scores).all(1).tolist() == [True, False] == np.isnan(left_out).all(1).tolist()
    assert scores[1] == pytest.approx((1, 1, 1.2, 1))


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (correlated(29, 2), "generated has 29 rows and real has 30"),
        (correlated(30, 3), "generated has 3 features per image, but real has 2"),
        (correlated(4, 2), "generated has 4 rows, but at least 6"),
        (np.full((30, 2), np.nan), "generated holds NaN"),
    ],
)
def test_resampled_neighbour_scores_refuse_what_neighbour_scores_do(generated, message):
    for scores in (neighbour_scores, lambda *rows: resampled_neighbour_scores(*rows, CODES, np.arange(5)[None])):
        with pytest.raises(InputError, match=message):
            scores(generated, correlated(30, 2, seed=1))


# Precision-recall curves


SLOPES = np.tan(np.linspace(0, np.pi / 2, 103)[1:-1])


def modes(*counts: int) -> np.ndarray:
    """Rows in narrow groups, of these numbers, that are far apart."""
    centres = 100 * np.eye(len(counts)).repeat(counts, axis=0)
    return centres + np.random.default_rng(sum(counts)).standard_normal(centres.shape)


def test_a_set_against_itself_has_the_curve_through_one_one():
    features = correlated(60)
    precision, recall = precision_recall_curve(features, features[::-1])
    np.testing.assert_allclose(precision, np.minimum(SLOPES, 1), rtol=1e-12)
    np.testing.assert_allclose(recall, np.minimum(1 / SLOPES, 1), rtol=1e-12)
    assert (precision[50], recall[50]) == pytest.approx((1, 1)) and max(precision.max(), recall.max()) <= 1


def test_disjoint_sets_have_neither_precision_nor_recall():
    assert not np.any(precision_recall_curve(correlated(60), correlated(60, seed=1) + 1000))


def test_a_generator_of_one_of_two_modes_is_precise_up_to_half_the_recall():
    precision, recall = precision_recall_curve(modes(80, 0), modes(40, 40), num_clusters=2)
    np.testing.assert_allclose(precision, np.minimum(SLOPES / 2, 1), rtol=1e-12)
    np.testing.assert_allclose(recall, np.minimum(1 / SLOPES, 1 / 2), rtol=1e-12)


def test_a_generator_that_invents_a_mode_recalls_all_with_half_the_precision():
    precision, recall = precision_recall_curve(modes(40, 40), modes(80, 0), num_clusters=2)
    assert precision.max() == pytest.approx(1 / 2) and recall.max() == pytest.approx(1)


def test_the_curve_is_the_sum_of_minima_over_the_modes():
    p, q = np.array([40, 30, 10]) / 80, np.array([10, 20, 50]) / 80
    curve = precision_recall_curve(modes(10, 20, 50), modes(40, 30, 10), num_clusters=3)
    np.testing.assert_allclose(curve.precision, np.minimum(SLOPES[:, None] * p, q).sum(1), rtol=1e-12)
    np.testing.assert_allclose(curve.recall, np.minimum(p, q / SLOPES[:, None]).sum(1), rtol=1e-12)
    assert np.diff(curve.precision).min() > -1e-12 and np.diff(curve.recall).max() < 1e-12


def test_exchanging_the_sets_exchanges_precision_and_recall():
    first, second = correlated(60), 1.2 * correlated(60, seed=1)
    curve, exchanged = precision_recall_curve(first, second), precision_recall_curve(second, first)
    np.testing.assert_allclose(exchanged.precision, curve.recall[::-1], rtol=1e-9)
    np.testing.assert_allclose(exchanged.recall, curve.precision[::-1], rtol=1e-9)
    assert 0.2 < curve.precision[50] < 0.95


def test_the_curve_depends_on_the_seed_and_not_on_the_order_of_rows():
    first, second = correlated(60), correlated(60, seed=1)
    order = np.random.default_rng(0).permutation(60)
    curve = precision_recall_curve(first, second, seed=3)
    np.testing.assert_array_equal(precision_recall_curve(first[order], second[order[::-1]], seed=3), curve)
    assert (precision_recall_curve(first, second, seed=4).precision != curve.precision).any()
    assert precision_recall_curve(first, second, num_points=7).recall.shape == (7,)


def test_precision_recall_curves_of_malformed_sets_are_refused():
    features = correlated(40)
    for generated, message in [
        (correlated(39), "generated has 39 rows and real has 40, but .* equally many: draw 39 of"),
        (correlated(40, 5), "generated has 5 features per image, but real has 6"),
        (np.full((40, 6), np.nan), "generated holds NaN"),
        (features.astype(int), "int64"),
    ]:
        with pytest.raises(InputError, match=message):
            precision_recall_curve(generated, features)
    few = features.repeat([1] * 4 + [0] * 35 + [36], axis=0)
    for num_clusters in (0, 6):
        with pytest.raises(InputError, match=f"num_clusters is {num_clusters}, not between 1 and the 5 different"):
            precision_recall_curve(few, few, num_clusters)
    assert precision_recall_curve(few, few, 5).precision[50] == pytest.approx(1)


# All of them


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


def test_neighbour_scores_ignore_scale_and_shift_and_swap_their_roles():
    first, second = correlated(40), correlated(40, seed=1)
    scores, swapped = neighbour_scores(first, second), neighbour_scores(second, first)
    assert neighbour_scores(7 * first - 3, 7 * second - 3) == scores
    assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)


# Principal components


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


# Spectra


def test_spectrum_of_waves_stands_at_their_frequencies():
    grid = np.arange(32)
    waves = np.stack(
        [
            0.5 + 0.4 * np.cos(2 * np.pi * 5 * grid / 32)[:, None] * np.ones(32),
            0.5 + 0.4 * np.cos(2 * np.pi * (3 * grid[:, None] + 4 * grid) / 32),  # 5 cycles along a slant
            0.5 + 0.4 * np.cos(np.pi * grid) * np.ones((32, 1)),  # the Nyquist frequency
        ]
    )
    spectra = log_radial_spectra(waves)
    assert spectra.shape == (3, 17)
    np.testing.assert_allclose(spectra[:, 0], np.log(0.25 * 32**2 + POWER_FLOOR))
    assert spectra[:, 1:].argmax(1).tolist() == [4, 4, 15]
    assert np.sort(spectra[:, 1:])[:, -2] == pytest.approx(math.log(POWER_FLOOR))
    # A wave of amplitude a has power a^2 / 4 per pixel at each of two of the frequencies of its ring.
    on_ring = (np.rint(np.hypot(*np.mgrid[-16:16, -16:16])) == 5).sum()
    assert spectra[:2, 5] == pytest.approx(math.log(0.4**2 / 4 * 32**2 * 2 / on_ring + POWER_FLOOR))


def test_spectrum_of_white_noise_is_its_variance_whatever_the_shape():
    noise = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((300, 24, 40)).clip(-4, 4)
    spectra = np.exp(log_radial_spectra(noise))
    assert spectra.shape == (300, 13)
    np.testing.assert_allclose(spectra[:, 1:].mean(0), 0.01, rtol=0.1)
    np.testing.assert_allclose(log_radial_spectra(noise.swapaxes(1, 2)), np.log(spectra), rtol=1e-9)


def test_spectrum_distance_is_the_mean_difference_of_logarithms():
    images = np.random.default_rng(0).uniform(0.2, 0.8, (20, 32, 32))
    half = images / 2
    assert spectra_apart(half, images) == pytest.approx(math.log(4), rel=1e-3)
    assert spectra_apart(half, images) == spectra_apart(images, half)
    assert spectra_apart(images[::-1].swapaxes(1, 2), images) == pytest.approx(0, abs=1e-12)
    assert spectra_apart(np.roll(images, 5, axis=2), images) == pytest.approx(0, abs=1e-12)


def spectra_apart(generated: np.ndarray, real: np.ndarray) -> float:
    return spectrum_distance(log_radial_spectra(generated), log_radial_spectra(real))


def test_brightness_outliers_are_beyond_99_percent_on_either_side():
    real = np.arange(101) / 100  # the percentiles are 0.01 and 0.99
    assert brightness_outliers(np.array([0.0, 0.005, 0.01, 0.5, 0.99, 0.995, 1.0, 0.3]), real) == 4 / 8
    assert brightness_outliers(real, real) == 2 / 101


# Planted failures


@pytest.fixture(scope="module")
def planted():
    """Image sets against held-out ones: Frechet distance on 8 components, spectrum distance, neighbour scores."""
    training, heldout = scenes(150, seed=1), scenes(150, seed=2)
    generator = np.random.default_rng(3)
    mean = np.tile(training.mean(0), (150, 1, 1))
    offered = {
        "other": scenes(150, seed=4),
        "copies": training,
        "noise": (training + 0.1 * generator.standard_normal(training.shape)).clip(0, 1),
        "blur": ndimage.gaussian_filter(training, (0, 1, 1)),
        "mean": mean,
        "one": np.repeat(training[:3], 50, axis=0),
    }
    components = principal_components(describe(heldout), 8)
    reference = components.project(describe(heldout))
    features = {name: components.project(describe(images)) for name, images in offered.items()}
    return {
        "frechet": {name: frechet_distance(x, reference) for name, x in features.items()},
        "kernel": {name: kernel_distance(x, reference) for name, x in features.items()},
        "spectrum": {name: spectra_apart(images, heldout) for name, images in offered.items()},
        "neighbours": {name: neighbour_scores(x, reference) for name, x in features.items()},
    }


def test_copies_score_as_well_as_other_images(planted):
    for name in ("frechet", "spectrum"):
        assert planted[name]["copies"] < 2 * planted[name]["other"]
    assert min(planted["neighbours"]["copies"]) > 0.7


@pytest.mark.parametrize(
    "failure, distances",
    [
        ("noise", ("frechet", "kernel", "spectrum")),
        ("blur", ("spectrum",)),
        ("mean", ("frechet", "kernel", "spectrum")),
        ("one", ("frechet", "kernel")),
    ],
)
def test_planted_failures_raise_the_distances(planted, failure, distances):
    for name in distances:
        sound = max(planted[name]["other"], planted[name]["copies"])
        assert planted[name][failure] > 5 * sound, name


def test_collapse_is_not_covered(planted):
    for failure in ("mean", "one"):
        assert planted["neighbours"][failure].recall < 0.1
        assert planted["neighbours"][failure].coverage < 0.3


# Errors


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


def test_neighbour_scores_refuse_unequal_numbers():
    with pytest.raises(InputError, match="generated has 40 rows and real has 30, but .* equally many: draw 30 of"):
        neighbour_scores(correlated(40), correlated(30))


@pytest.mark.parametrize("codes", [np.zeros(5, int), np.array([0, 1, 2, 0, 1, 3]), np.array([0, 1, 2, 0, 1, -1])])
def test_codes_of_other_rows_are_refused(codes):
    with pytest.raises(InputError, match="codes must hold a patient from 0 to 2 for each of the 6 rows"):
        resampled_kernel_distance(correlated(4), correlated(6), codes, np.zeros((2, 3), int))


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


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 1, 32, 32)), r"must be floats of shape \(N, H, W\)"),
        (np.zeros((2, 32, 32), np.uint8), "uint8"),
        (np.zeros((0, 32, 32)), "0 rows, but at least 1"),
        (np.full((2, 32, 32), np.nan), "NaN"),
        (np.full((2, 32, 32), -0.5), "-0.5"),
        (np.full((2, 32, 32), 1.5), "1.5"),
    ],
)
def test_malformed_images_are_refused(images, message):
    with pytest.raises(InputError, match=f"images .*{message}"):
        log_radial_spectra(images)


def test_images_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"differ in image size: 17 and 16 frequencies"):
        spectra_apart(scenes(2, seed=0), scenes(2, seed=0)[:, :, 1:])
