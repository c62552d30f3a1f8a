"""Precision, recall, density and coverage of sets of features, and curves of precision and recall."""

import math

import numpy as np
import pytest
from samples import correlated

from hcm_hf.metrics.distribution import (
    neighbour_scores,
    precision_recall_curve,
    resampled_kernel_distance,
    resampled_neighbour_scores,
)
from hcm_hf.utils.errors import InputError


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


def test_neighbour_scores_ignore_scale_and_shift_and_swap_their_roles():
    first, second = correlated(40), correlated(40, seed=1)
    scores, swapped = neighbour_scores(first, second), neighbour_scores(second, first)
    assert neighbour_scores(7 * first - 3, 7 * second - 3) == scores
    assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)


def test_neighbour_scores_refuse_unequal_numbers():
    with pytest.raises(InputError, match="generated has 40 rows and real has 30, but .* equally many: draw 30 of"):
        neighbour_scores(correlated(40), correlated(30))


@pytest.mark.parametrize("codes", [np.zeros(5, int), np.array([0, 1, 2, 0, 1, 3]), np.array([0, 1, 2, 0, 1, -1])])
def test_codes_of_other_rows_are_refused(codes):
    with pytest.raises(InputError, match="codes must hold a patient from 0 to 2 for each of the 6 rows"):
        resampled_kernel_distance(correlated(4), correlated(6), codes, np.zeros((2, 3), int))
