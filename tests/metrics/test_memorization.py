import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm
from tiny import random_images

from hcm_hf.metrics import memorization
from hcm_hf.metrics.memorization import (
    authenticity,
    best_match,
    copy_rate,
    copy_threshold,
    data_copying_z,
    membership_auc,
    nearest_neighbour_ratio,
    nearest_neighbours,
    pixel_rows,
)
from hcm_hf.metrics.pixel import cc_matrix
from hcm_hf.utils.errors import InputError


def smooth_images(n: int, seed: int) -> np.ndarray:
    """Blobs that resemble each other, all of one distribution."""
    fields = np.random.default_rng(seed).normal(size=(n, 32, 32))
    fields = gaussian_filter(fields, (0, 3, 3), mode="wrap") * 10
    blob = np.exp(-np.square(np.linspace(-2, 2, 32)))
    return (0.4 + 0.12 * fields + 0.2 * blob[:, None] * blob).clip(0, 1).astype(np.float32)


def images_at(likeness: np.ndarray) -> np.ndarray:
    """Images with the given correlation coefficients with the image of likeness 1, which is the first pattern."""
    first, second = np.zeros((2, 12, 12))
    first[:6], first[6:] = 0.2, -0.2
    second[:, :6], second[:, 6:] = 0.2, -0.2
    likeness = np.asarray(likeness, float)[:, None, None]
    return 0.5 + likeness * first + np.sqrt(1 - likeness**2) * second


def noised(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, sigma, images.shape)
    return (images + noise).clip(0, 1).astype(np.float32)


def rate_of_copies(train, heldout, generated) -> float:
    return copy_rate(best_match(train, generated)[0], best_match(train, heldout)[0])


def ratio(train, heldout, generated) -> float:
    return nearest_neighbour_ratio(*(nearest_neighbours(train, rows)[0] for rows in (generated, heldout)))


def c_t(train, heldout, generated, n: int) -> float:
    distances = (nearest_neighbours(train, rows)[0] for rows in (generated, heldout))
    return data_copying_z(*distances, n, np.random.default_rng(0))


def authentic(train, generated, patients) -> float:
    return authenticity(train, generated, patients, np.empty((0, len(np.unique(patients))), int))[0]


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


TRAIN, HELDOUT = smooth_images(150, 1), smooth_images(250, 2)
PLANTED = {
    "copies": TRAIN,
    "some of them": TRAIN[:10],
    "shifted": np.roll(TRAIN, 1, axis=2),
    "blurred": gaussian_filter(TRAIN, (0, 1, 1)),
    "noised": noised(TRAIN, 0.05),
    "brighter": 0.2 + 0.7 * TRAIN,
}


# Copy rate.


def test_copy_rate_counts_what_is_above_the_percentile():
    heldout = images_at(np.arange(100) / 100)  # rank 99.99 of 101: .99 of the way from .98 to .99
    generated = images_at([0.985, 0.9898, 0.99, 0.95, -1.0, 1.0, 0.0, 0.9897])
    assert rate_of_copies(images_at([1.0]), heldout, generated) == 2 / 8
    generated = images_at([0.9899 - 1e-5, 0.9899 + 1e-5])
    assert rate_of_copies(images_at([1.0]), heldout, generated) == 0.5


def test_with_few_heldout_images_copies_are_closer_than_all_of_them():
    heldout, generated = images_at([0.1, 0.6, 0.3]), images_at([0.59, 0.61, 0.95, 0.2])
    assert rate_of_copies(images_at([1.0]), heldout, generated) == 0.5
    assert rate_of_copies(images_at([1.0]), heldout, heldout) == 0  # as close as the closest is not closer


def test_the_threshold_is_a_new_images_99th_percentile_or_the_maximum():
    assert copy_threshold(np.array([0.3, 0.9, 0.1])) == 0.9
    assert copy_threshold(np.arange(99) / 100) == pytest.approx(0.98)  # rank 99 of 100
    assert copy_threshold(np.arange(199) / 200) == pytest.approx(0.985)  # rank 198 of 200
    best = best_match(TRAIN, HELDOUT)[0]
    above = (best_match(TRAIN, PLANTED["noised"])[0] > copy_threshold(best)).mean()
    assert above == rate_of_copies(TRAIN, HELDOUT, PLANTED["noised"])


@pytest.mark.parametrize("name", PLANTED)
def test_copy_rate_catches_disguised_copies(name):
    assert rate_of_copies(TRAIN, HELDOUT, PLANTED[name]) > 0.97


def test_copy_rate_of_new_images_is_one_percent():
    rates = []
    for seed in range(5):
        heldout, generated = smooth_images(99 + 60 * seed, 10 + seed), smooth_images(600, 20 + seed)
        rates.append(rate_of_copies(TRAIN, heldout, generated))
    assert 0.005 < np.mean(rates) < 0.02
    assert max(rates) < 0.05


def test_half_copies_have_half_the_rate():
    generated = np.concatenate([TRAIN, smooth_images(150, 3)])
    assert rate_of_copies(TRAIN, HELDOUT, generated) == pytest.approx(0.5, abs=0.02)


def test_a_mean_image_is_no_copy():
    mean = noised(np.repeat(TRAIN.mean(0, keepdims=True), 20, axis=0), 0.02)
    assert rate_of_copies(TRAIN, HELDOUT, mean) == 0


def test_best_match_equals_the_matrix(monkeypatch):
    monkeypatch.setattr(memorization, "_CHUNK", 3)
    train, images = random_images(6), random_images(7, seed=1)
    images[5] = train[2]
    likeness, index = best_match(train, images)
    matrix = cc_matrix(images, train)
    np.testing.assert_allclose(likeness, matrix.max(1), atol=1e-6)
    assert index.tolist() == matrix.argmax(1).tolist() and index[5] == 2


# Distances.


def test_pixel_rows_are_as_far_apart_as_they_correlate():
    images = smooth_images(8, 0)
    rows = pixel_rows(images)
    np.testing.assert_allclose(cdist(rows, rows) ** 2, 2 - 2 * cc_matrix(images, images), atol=1e-6)
    np.testing.assert_allclose(rows, pixel_rows(0.3 + 0.5 * images), atol=1e-6)


def test_constant_images_are_rows_of_zeros():
    images = np.full((2, 30, 30), 0.1, np.float32)
    images[1, 3, 4] = 0.7
    rows = pixel_rows(images)
    assert (rows[0] == 0).all()
    assert np.linalg.norm(rows[1]) == pytest.approx(1)


@pytest.mark.parametrize("offset", [0, 1e9])
def test_nearest_neighbours_equal_scipy(monkeypatch, offset):
    monkeypatch.setattr(memorization, "_CHUNK", 4)
    generator = np.random.default_rng(0)
    train, points = generator.normal(offset, 1, (30, 5)), generator.normal(offset, 1, (11, 5))
    points[3] = train[17]
    distance, index = nearest_neighbours(train, points)
    expected = cdist(points, train)
    np.testing.assert_allclose(distance, expected.min(1), atol=1e-6)
    assert index.tolist() == expected.argmin(1).tolist()
    assert distance[3] < 1e-6 and index[3] == 17


def test_nearest_neighbour_ratio_by_hand():
    train, heldout = column(0, 10, 20), column(1, 14, 23)  # 1, 4, 3 away
    assert ratio(train, heldout, column(0.5, 9, 26, 21.5)) == pytest.approx(1.25 / 3)
    assert ratio(train, heldout, heldout) == 1
    assert ratio(train, heldout, train) == 0


def test_nearest_neighbour_ratio_of_planted_failures():
    train, heldout = pixel_rows(TRAIN), pixel_rows(HELDOUT)
    ratios = {name: ratio(train, heldout, pixel_rows(images)) for name, images in PLANTED.items()}
    assert ratios["copies"] == 0 and max(ratios.values()) < 0.8
    assert ratio(train, heldout, pixel_rows(smooth_images(250, 3))) == pytest.approx(1, abs=0.05)


def test_heldout_rows_that_are_training_rows_leave_no_ratio():
    assert np.isnan(ratio(ROWS, ROWS, ROWS))


# C_T.


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_one_cell_equals_the_mann_whitney_test(shift):
    generator = np.random.default_rng(0)
    train, heldout, generated = (generator.normal(mean, 1, (60, 3)) for mean in (0, 0, shift))
    z = c_t(train, heldout, generated, n=60)
    distances = (cdist(rows, train).min(1) for rows in (generated, heldout))
    test = mannwhitneyu(*distances, use_continuity=False, method="asymptotic", alternative="greater")
    assert norm.sf(z) == pytest.approx(test.pvalue, rel=1e-9)


def test_ties_count_half():
    train = column(0, 100)
    z = c_t(train, column(1, 2), column(1, 3), n=2)
    assert z == pytest.approx((2.5 - 2) / np.sqrt(4 * 5 / 12))  # 3 > 1, 3 > 2, 1 = 1


def test_data_copying_z_of_planted_failures():
    train, heldout = pixel_rows(TRAIN), pixel_rows(HELDOUT)
    for name, images in PLANTED.items():
        if len(images) >= 100:
            assert c_t(train, heldout, pixel_rows(images), n=100) < -8, name
    innocent = []
    for seed in range(20, 32):
        fresh = pixel_rows(smooth_images(200, seed))
        innocent.append(c_t(train, fresh[:100], fresh[100:], n=100))
    assert abs(np.mean(innocent)) < 1 and 0.4 < np.std(innocent) < 1.7
    far = pixel_rows(np.random.default_rng(0).random((100, 32, 32), dtype=np.float32))
    assert c_t(train, heldout, far, n=100) > 8


def test_nothing_to_draw_has_no_score():
    assert np.isnan(c_t(ROWS, ROWS, ROWS, n=0))


def test_equal_n_makes_scores_comparable():
    """With all rows, a larger sample of the same generator would score worse."""
    train, heldout = (np.random.default_rng(seed).normal(size=(400, 3)) for seed in (0, 1))
    generated = np.random.default_rng(2).normal(0, 0.6, (400, 3))
    small, large = (c_t(train, heldout, generated, n=n) for n in (100, 400))
    assert large / small == pytest.approx(2, rel=0.3)


# Authenticity.


def test_authenticity_by_hand():
    train, patients = column(0, 1, 10, 14, 30), np.array(["a", "a", "b", "c", "c"])
    generated = column(-5, 5.2, 6.5, 13, 18, 60)
    # nearest: 0, 1, 10, 14, 14, 30; their nearest of other patients are 10, 9, 4, 4, 4, 20 away
    assert authentic(train, generated, patients) == 1 / 6  # only 60 lies farther away; 18 is as far
    strangers = np.array(["a", "b", "c", "d", "e"])  # now 0 and 1 are 1 apart
    assert authentic(train, generated, strangers) == 3 / 6  # -5 and 5.2 pass too


def test_copies_are_not_authentic():
    train, patients = pixel_rows(TRAIN), np.arange(150) // 10
    for name in ("copies", "shifted", "blurred", "brighter"):
        assert authentic(train, pixel_rows(PLANTED[name]), patients) == 0, name
    assert authentic(train, pixel_rows(HELDOUT), patients) > 0.3


def test_slices_of_one_patient_do_not_hide_copies():
    """Next to its twin slice, even a poor copy of a training slice would pass for new."""
    train = pixel_rows(noised(np.repeat(TRAIN[:40], 2, axis=0), 0.005))
    copies = pixel_rows(noised(TRAIN[:40], 0.03))
    assert authentic(train, copies, np.arange(80)) == 1
    assert authentic(train, copies, np.arange(80) // 2) == 0


def crowd(n, seed, patients=0):
    """Rows in a plane, some of them of the same patients near each other."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 2, (patients or n, 2))
    names = np.array([f"p{i}" for i in np.arange(n) % len(centres)])
    return centres[np.arange(n) % len(centres)] + generator.normal(0, 1, (n, 2)), names


def test_authenticity_equals_the_definition():
    (train, names), (generated, _) = crowd(30, 0, patients=6), crowd(40, 1)
    near = cdist(generated, train)
    apart = np.where(names[:, None] == names, np.inf, cdist(train, train)).min(1)
    expected = np.mean([distances.min() > apart[distances.argmin()] for distances in near])
    everyone = np.arange(6)[None].repeat(2, axis=0)
    value, resampled = authenticity(train, generated, names, everyone)
    assert 0.1 < value < 0.9 and value == expected and resampled.tolist() == [expected] * 2


def test_authenticity_of_a_resample_are_those_of_the_patients_in_it():
    (train, names), (generated, _) = crowd(30, 2, patients=6), crowd(40, 3)
    draws = np.random.default_rng(4).integers(0, 6, (20, 6))
    _, found = authenticity(train, generated, names, draws)
    for draw, share in zip(draws, found, strict=True):
        kept = np.isin(names, np.unique(names)[draw])
        assert share == authentic(train[kept], generated, names[kept])
    assert len(set(found.tolist())) > 5
    order = np.random.default_rng(5).permutation(30)
    np.testing.assert_array_equal(authenticity(train[order], generated, names[order], draws)[1], found)


def test_a_resample_of_one_patient_has_no_authentic():
    (train, names), (generated, _) = crowd(9, 0, patients=3), crowd(5, 1)
    _, found = authenticity(train, generated, names, np.array([[2, 2, 2], [2, 1, 2]]))
    assert np.isnan(found).tolist() == [True, False]


# Membership inference.


def test_membership_auc_by_hand():
    train_errors, train_patients = np.array([1.0, 3.0, 4.0]), np.array(["a", "a", "b"])  # means 2 and 4
    heldout_errors, heldout_patients = np.array([3.0, 1.0, 3.0, 9.0]), np.array(["c", "d", "d", "e"])  # 3, 2 and 9
    auc, resampled = membership_auc(train_errors, heldout_errors, train_patients, heldout_patients)
    assert auc == pytest.approx((1 + 0.5 + 1 + 0 + 0 + 1) / 6)
    possible = {round(first * second, 6) for first in (0, 0.5, 1) for second in (0, 1 / 3, 2 / 3, 1)}
    assert len(resampled.values) == 1000 and len(np.unique(resampled.values.round(6))) > len(possible) / 2
    assert resampled.values.min() == 0 and resampled.values.max() == 1
    assert resampled.values.mean() == pytest.approx(auc, abs=0.03)
    assert resampled.left_out[0] == pytest.approx([1 / 3, (1 + 0.5 + 1) / 3])  # without a and without b
    assert resampled.left_out[1] == pytest.approx([(0.5 + 0 + 1 + 1) / 4, (1 + 0 + 1 + 1) / 4, (1 + 0.5) / 4])


def test_membership_auc_equals_the_mann_whitney_statistic():
    generator = np.random.default_rng(0)
    members, others = generator.normal(0, 1, 40), generator.normal(0.5, 1, 30)
    codes = np.arange(70)
    auc, resampled = membership_auc(members, others, codes[:40], codes[40:])
    assert auc == pytest.approx(mannwhitneyu(others, members).statistic / 1200)
    # standard error of Hanley and McNeil 1982
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 39 * (q1 - auc**2) + 29 * (q2 - auc**2)) / 1200
    assert resampled.values.std() == pytest.approx(np.sqrt(variance), rel=0.15)


def test_membership_auc_counts_patients_not_slices():
    """One patient with many slices weighs as much as another with one; the order of slices does not matter."""
    errors = np.array([0.1] * 50 + [0.9])
    patients = np.array(["many"] * 50 + ["one"])
    others, other_patients = np.array([0.5, 0.5]), np.array(["x", "y"])
    assert membership_auc(errors, others, patients, other_patients)[0] == 0.5
    order = np.random.default_rng(0).permutation(51)
    shuffled = membership_auc(errors[order], others, patients[order], other_patients)
    same = membership_auc(errors, others, patients, other_patients)[1]
    np.testing.assert_array_equal(shuffled[1].values, same.values)


def test_membership_auc_of_a_leak_is_certain():
    auc, resampled = membership_auc(np.arange(6.0), 10 + np.arange(6.0), np.arange(6) // 2, 10 + np.arange(6) // 2)
    assert auc == 1 and resampled.values.min() == 1


# All of them.


def test_order_of_images_changes_nothing():
    generator = np.random.default_rng(0)
    train, heldout, generated = (pixel_rows(smooth_images(n, seed)) for seed, n in enumerate((40, 30, 30)))
    patients = np.arange(40) // 4
    orders = [generator.permutation(len(rows)) for rows in (train, heldout, generated)]
    shuffled = [rows[order] for rows, order in zip((train, heldout, generated), orders, strict=True)]
    for metric in (ratio, lambda *rows: c_t(*rows, n=30)):
        assert metric(*shuffled) == pytest.approx(metric(train, heldout, generated))
    assert authentic(shuffled[0], shuffled[2], patients[orders[0]]) == authentic(train, generated, patients)
    assert rate_of_copies(TRAIN[::-1], HELDOUT[::-1], TRAIN[::-2]) == rate_of_copies(TRAIN, HELDOUT, TRAIN[1::2])


IMAGES, ROWS = np.full((4, 6, 6), 0.5), np.ones((4, 3))


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "metric, good, bad, message",
    [
        (rate_of_copies, IMAGES, np.zeros((4, 6, 6), np.uint8), "uint8"),
        (rate_of_copies, IMAGES, IMAGES[:0], r"\(0, 6, 6\)"),
        (rate_of_copies, IMAGES, ROWS, r"\(4, 3\)"),
        (rate_of_copies, IMAGES, IMAGES - 1.5, "-1.0"),
        (rate_of_copies, IMAGES, IMAGES * np.nan, "nan"),
        (rate_of_copies, IMAGES, np.zeros((4, 6, 7)), r"differ in size.*\(6, 7\)"),
        (ratio, ROWS, IMAGES, r"\(4, 6, 6\)"),
        (ratio, ROWS, ROWS * np.inf, "inf"),
        (ratio, ROWS, np.ones((4, 2)), r"differ in size.*\(2,\)"),
        (lambda *rows: c_t(*rows, n=2), ROWS, ROWS[:0], r"\(0, 3\)"),
    ],
)
def test_wrong_arrays_are_refused_by_name(metric, good, bad, message, position):
    arrays = [good] * 3
    arrays[position] = bad
    with pytest.raises(InputError, match=message) as refusal:
        metric(*arrays)
    assert any(name in str(refusal.value) for name in (("train",) if position == 0 else ("images", "points")))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: authentic(ROWS, ROWS, np.zeros(3)), "train_patients"),
        (lambda: authentic(ROWS, ROWS, np.zeros(4)), "two or more patients"),
        (lambda: membership_auc(ROWS[0], ROWS[0], np.arange(3), np.arange(2, 5)), "Patient 2 is in both"),
        (lambda: membership_auc(ROWS[0], ROWS[0], np.arange(3), np.full(3, 9)), "heldout_patients"),
        (lambda: membership_auc(ROWS, ROWS[0], np.arange(4), np.arange(4, 7)), "train_errors"),
        (lambda: membership_auc(ROWS[0], ROWS[0] * np.nan, np.arange(3), np.arange(4, 7)), "heldout_errors"),
    ],
)
def test_other_wrong_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
