import numpy as np
import pytest
from tiny import random_images

from hcm_hf.metrics.pixel import cc_matrix, mse_matrix, ssim_matrix
from hcm_hf.metrics.protocols import (
    METRICS,
    ImageSet,
    compare_rows,
    mean_of_best,
    random_pairs,
    reference_size,
)


def similarity(first, second):
    return {"ssim": ssim_matrix(first, second), "cc": cc_matrix(first, second), "mse": mse_matrix(first, second)}


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


def test_rows_never_compare_a_patient_with_himself():
    images = random_images(12)
    images[6:] = images[:6]  # every patient's slices are in there twice
    heldout = ImageSet(images, np.array([f"patient{i % 6}" for i in range(12)]))
    training = ImageSet(random_images(16, seed=1), np.array([f"other{i % 4}" for i in range(16)]))
    offered = {"real": heldout, "copies": ImageSet(images, np.full(12, ""))}
    rows = compare_rows(offered, training, heldout, similarity)
    assert rows["copies"]["ssim_best_heldout"].value == pytest.approx(1, abs=1e-6)
    assert rows["real"]["ssim_best_heldout"].value < 0.9


def test_copies_of_training_slices_have_a_copy_gap_and_intervals_surround_values():
    training, heldout = (
        ImageSet(random_images(40, seed), np.array([f"{seed}-{i // 8}" for i in range(40)])) for seed in (1, 2)
    )
    copies = ImageSet(training.images[::4], np.full(10, ""))
    row = compare_rows({"generated": copies}, training, heldout, similarity, max_shift=4)["generated"]
    assert all(row[f"{name}_copy_gap"].value > 0 for name in ("ssim", "cc", "mse"))
    assert row["ssim_best_train"].value == pytest.approx(1, abs=1e-6)
    assert row["ssim_best_train"].high <= 1 and row["mse_best_train"].low >= 0
    for found in row.values():
        assert found.low - 1e-8 <= found.value <= found.high + 1e-8  # single precision, on some machines
    assert row["cc_max_shift_random"].value >= row["cc_random"].value
    assert {"n_generated": 10, "n_real": 32, "n_patients": 5}.items() <= vars(row["cc_best_heldout"]).items()


# Levels.


def brightness(first, second):
    """All metrics are the same: the product of the images' first pixels, each of which is a name."""
    likeness = np.outer(first[:, 0, 0], second[:, 0, 0]).astype(float)
    return dict.fromkeys(METRICS, likeness)


def named(names, patients, levels=None):
    images = np.broadcast_to(np.asarray(names, np.float32)[:, None, None], (len(names), 16, 16))
    return ImageSet(images, np.asarray(patients), None if levels is None else np.asarray(levels))


TRAINING = named([1, 1, 1], ["x", "y", "y"], [0, 1, 2])
HELDOUT = named([2, 3, 5, 7, 11], ["a", "a", "b", "b", "c"], [0, 1, 0, 1, 0])


def matched(one, heldout=HELDOUT, **options):
    return compare_rows({"row": one}, TRAINING, heldout, brightness, **options)["row"]


def test_matched_uses_pairs_of_equal_level_only():
    row = matched(named([1, 100], ["", ""], [0, 1]))
    pairs = [2, 5, 11, 300, 700]
    assert row["cc_matched"].value == pytest.approx(np.mean(pairs))
    assert row["cc_random"].value == pytest.approx(np.mean([2, 3, 5, 7, 11, 200, 300, 500, 700, 1100]))
    expected = {"protocol": "matched", "n_generated": 2, "n_real": 5, "n_patients": 3}
    assert expected.items() <= vars(row["mse_matched"]).items()


def test_matched_real_rows_meet_other_patients():
    value = matched(HELDOUT)["cc_matched"].value
    pairs = [2 * 5, 2 * 11, 5 * 2, 5 * 11, 11 * 2, 11 * 5, 3 * 7, 7 * 3]
    assert value == pytest.approx(np.mean(pairs))


def test_a_level_that_no_other_patient_has_is_left_out():
    row = matched(named([1, 100], ["", ""], [0, 5]))
    assert row["cc_matched"].value == pytest.approx(6) and row["cc_matched"].n_generated == 1
    assert row["cc_random"].n_generated == 2
    nothing = matched(named([1, 100], ["", ""], [4, 5]))["cc_matched"]
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)


def test_matched_takes_so_many_real_ones_per_image():
    heldout = named(np.arange(1, 41), np.arange(40) // 4, np.arange(40) % 2)
    values = {
        matched(named([1, 1], ["", ""], [0, 1]), heldout, real_per_image=3, seed=s)["cc_matched"].value
        for s in range(4)
    }
    assert len(values) > 1  # six of forty pairs
    everything = matched(named([1, 1], ["", ""], [0, 1]), heldout)["cc_matched"].value
    assert everything == pytest.approx(20.5)


@pytest.mark.parametrize("missing", ["offered", "reference"])
def test_without_levels_nothing_is_matched(missing):
    with_levels, without = named([1, 100], ["", ""], [0, 1]), named([1, 100], ["", ""])
    heldout = HELDOUT if missing == "offered" else ImageSet(HELDOUT.images, HELDOUT.patients)
    row = matched(without if missing == "offered" else with_levels, heldout)
    assert not [name for name in row if "matched" in name]
    levelled = matched(with_levels)
    assert {name for name in levelled if "matched" not in name} == set(row)
    for name, found in row.items():
        assert found == levelled[name]  # the other protocols do not depend on levels


def test_the_similarity_says_what_is_alike_and_is_counted():
    done = []
    row = compare_rows({"row": named([2, 3], ["", ""])}, TRAINING, HELDOUT, brightness, advance=done.append)["row"]
    assert row["cc_best_train"].value == 2.5 and row["mse_best_train"].value == 2.5
    assert sum(done) == 2 * 3 + 2 * 5  # as many training slices as there are at most of both, and all held-out ones


def test_every_image_gets_as_many_slices_to_match_as_the_real_ones_can_have():
    heldout = np.repeat(["a", "b", "c"], [5, 9, 6])
    assert reference_size(np.full(50, "t"), heldout) == 11
    assert reference_size(np.full(7, "t"), heldout) == 7
    assert reference_size(np.full(50, "t"), np.full(8, "a")) == 8  # one patient: no other to be compared with
