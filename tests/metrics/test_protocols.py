import numpy as np
import pytest
from tiny import random_images

from hcm_hf.metrics.protocols import ImageSet, compare_rows, mean_of_best, mean_over_pairs, random_pairs


def test_random_pairs_are_allowed_distinct_and_seeded():
    allowed = np.ones((4, 30), bool)
    allowed[0, 5:] = False
    allowed[1] = False
    pairs = random_pairs(allowed, 10, np.random.default_rng(3))
    assert np.bincount(pairs[:, 0], minlength=4).tolist() == [5, 0, 10, 10]
    assert allowed[tuple(pairs.T)].all() and len(np.unique(pairs, axis=0)) == len(pairs)
    assert (pairs == random_pairs(allowed, 10, np.random.default_rng(3))).all()


def test_mean_of_best_takes_the_best_of_the_resampled_patients():
    likeness = np.array([[0.9, 0.1, 0.5], [0.2, 0.4, 0.3]])
    codes, draws = np.array([0, 1, 1]), np.array([[0, 0], [0, 1], [1, 1]])
    value, resampled = mean_of_best(likeness, np.ones((2, 3), bool), codes, draws)
    assert value == pytest.approx(0.65)
    assert resampled == pytest.approx([0.55, 0.65, 0.45])
    allowed = np.array([[False, True, True], [True, True, True]])
    assert mean_of_best(likeness, allowed, codes, draws)[1] == pytest.approx([0.2, 0.45, 0.45])


def test_mean_over_pairs_weighs_pairs_within_resampled_patients():
    value, resampled = mean_over_pairs(
        np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1]), np.array([[0, 0], [0, 1], [1, 1]])
    )
    assert value == 3
    assert resampled == pytest.approx([1.5, 3, 6])


def test_rows_never_compare_a_patient_with_himself():
    images = random_images(12)
    images[6:] = images[:6]  # every patient's slices are in there twice
    heldout = ImageSet(images, np.array([f"patient{i % 6}" for i in range(12)]))
    training = ImageSet(random_images(16, seed=1), np.array([f"other{i % 4}" for i in range(16)]))
    rows = compare_rows({"real": heldout, "copies": ImageSet(images, np.full(12, ""))}, training, heldout)
    assert rows["copies"]["ssim_best_heldout"]["value"] == pytest.approx(1, abs=1e-6)
    assert rows["real"]["ssim_best_heldout"]["value"] < 0.9


def test_copies_of_training_slices_have_a_copy_gap_and_intervals_surround_values():
    training, heldout = (
        ImageSet(random_images(40, seed), np.array([f"{seed}-{i // 8}" for i in range(40)])) for seed in (1, 2)
    )
    rows = compare_rows({"generated": ImageSet(training.images[::4], np.full(10, ""))}, training, heldout, max_shift=4)
    row = rows["generated"]
    assert all(row[f"{name}_copy_gap"]["value"] > 0 for name in ("ssim", "cc", "mse"))
    assert row["ssim_best_train"]["value"] == pytest.approx(1, abs=1e-6)
    assert row["ssim_best_train"]["high"] <= 1 and row["mse_best_train"]["low"] >= 0
    for number in row.values():
        assert number["low"] - 1e-9 <= number["value"] <= number["high"] + 1e-9
    assert row["cc_max_shift_random"]["value"] >= row["cc_random"]["value"]
    assert {"n_generated": 10, "n_real": 40, "n_patients": 5}.items() <= row["cc_best_heldout"].items()
