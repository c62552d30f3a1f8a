import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis

from hcm_hf.metrics.realism import (
    COMPONENTS,
    FOLDS,
    bright_outside_heart,
    brightness_spread,
    c2st_auc,
    edge_coherence,
    edge_kurtosis,
    noise_level,
    reached_patients,
    two_sample_test,
    z_between_patients,
)
from hcm_hf.utils.errors import InputError


def cohort(num_patients: int, seed: int, slices: int = 10, apart: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Features of slices, (N, 48), of patients who differ from each other, and whose each is."""
    generator = np.random.default_rng(seed)
    own = apart * generator.standard_normal((num_patients, 1, 48))
    features = own + generator.standard_normal((num_patients, slices, 48))
    return features.reshape(-1, 48), np.repeat([f"{seed}-{index}" for index in range(num_patients)], slices)


def test_halves_of_the_same_patients_cannot_be_told_apart():
    areas = []
    for seed in range(8):
        features, patients = cohort(15, seed, slices=20)
        half = np.arange(len(features)) % 2 == 0
        areas.append(c2st_auc(features[half], features[~half], patients[~half], patients[half]))
    # The standard deviation of an AUC of 150 against 150 rows is about .033 where nothing can be told apart.
    assert abs(np.mean(areas) - 0.5) < 3 * 0.033 / np.sqrt(8)
    assert max(abs(np.array(areas) - 0.5)) < 4 * 0.033


def test_noise_is_always_told_apart():
    features, patients = cohort(10, 0)
    noise = 5 + np.random.default_rng(1).standard_normal(features.shape)
    assert c2st_auc(noise, features, patients) == 1.0


def test_the_more_two_sets_differ_the_better_they_are_told_apart():
    features, patients = cohort(10, 0)
    others, theirs = cohort(10, 1)
    areas = [c2st_auc(others + shift, features, patients, theirs) for shift in (0, 0.2, 0.5, 2)]
    assert areas == sorted(areas) and areas[0] < 0.65 and areas[-1] == 1


def test_a_patient_is_never_in_two_folds():
    features, patients = cohort(12, 0)
    test = two_sample_test(features[::-1], features, patients, patients[::-1])
    for one in np.unique(patients):
        assert len({*test.real_folds[patients == one], *test.generated_folds[patients[::-1] == one]}) == 1
    assert len(np.unique(test.real_folds)) == FOLDS
    few = two_sample_test(features[:40], features[:40], patients[:40])
    assert len(np.unique(few.real_folds)) == 4  # as many as patients


def test_resampled_rows_are_scored_by_the_same_classifier():
    features, patients = cohort(10, 0)
    test = two_sample_test(features + 0.3, features, patients)
    assert test.auc(np.arange(len(features))) == test.auc()
    assert test.auc(np.repeat(np.arange(len(features)), 2)) == pytest.approx(test.auc())
    only = test.real_folds == 0
    ours = test.generated_folds == 0
    by_hand = (test.generated[ours][:, None] > test.real[only]).mean()
    assert test.auc(np.flatnonzero(only)) == pytest.approx(by_hand)


def test_noise_level_is_the_standard_deviation_of_white_noise():
    generator = np.random.default_rng(0)
    smooth = gaussian_filter(generator.uniform(0.3, 0.7, (4, 64, 64)), (0, 6, 6))
    for sigma in (0.01, 0.03):
        noisy = smooth + sigma * generator.standard_normal(smooth.shape)
        assert noise_level(noisy) == pytest.approx(np.full(4, sigma), rel=0.06)


def test_textures_equal_what_is_computed_by_hand():
    image = np.random.default_rng(0).uniform(size=(1, 5, 6))
    coefficients = [
        (image[0, i, j] - image[0, i, j + 1] - image[0, i + 1, j] + image[0, i + 1, j + 1]) / 2
        for i in range(4)
        for j in range(5)
    ]
    assert noise_level(image)[0] == pytest.approx(np.median(np.abs(coefficients)) / 0.6745)
    assert edge_kurtosis(image)[0] == pytest.approx(kurtosis(coefficients))


def test_edges_are_coherent_and_sparse_and_grain_is_neither():
    generator = np.random.default_rng(0)
    grain = 0.5 + 0.1 * generator.standard_normal((3, 64, 64))
    edge = np.repeat((np.arange(64) > 31)[None, None] * 0.5 + 0.2, 64, axis=1)
    assert edge_coherence(edge)[0] == pytest.approx(1)
    assert (edge_coherence(grain) < 0.5).all()
    assert np.abs(edge_kurtosis(grain)).max() < 0.3
    disc = (np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 14)[None] * 0.5 + 0.02 * generator.standard_normal((1, 64, 64))
    assert edge_kurtosis(disc)[0] > 5


def test_brightness_is_measured_between_images_and_far_from_the_heart():
    images = np.zeros((3, 64, 64))
    images[0], images[1] = 0.2, 0.4
    assert brightness_spread(images) == pytest.approx(np.std([0.2, 0.4, 0.0]))
    images[2, :, :4] = 1.0  # a bright chest wall, 56 mm and more from the centre at 2 mm
    outside = np.hypot(*(np.mgrid[:64, :64] - 31.5)) * 2 > 56
    assert bright_outside_heart(images, 2.0) == pytest.approx([0, 0, outside[:, :4].sum() / outside.sum()])
    with pytest.raises(InputError, match="not beyond 56 mm"):
        bright_outside_heart(images, 0.5)


def test_z_counts_standard_deviations_between_patients():
    real, patients = np.array([1.0, 3.0, 4.0, 4.0, 6.0]), np.array(list("aabbc"))  # means of 2, 4 and 6
    assert z_between_patients(np.array([4.0, 8.0, 0.0]), real, patients) == pytest.approx([0, 2, -2])
    assert np.isnan(z_between_patients(np.array(1.0), np.ones(4), np.array(list("aabb"))))


def test_a_patient_is_reached_by_a_slice_that_is_nearer_than_other_patients():
    real = np.array([[0.0, 0], [1, 0], [10, 0], [30, 0]])
    patients = np.array(["a", "a", "b", "c"])
    assert reached_patients(np.array([[10.0, 1]]), real, patients).tolist() == [False, True, False]
    assert reached_patients(np.array([[1.0, 8.9], [49, 0]]), real, patients).tolist() == [True, False, True]
    assert reached_patients(real, real, patients).all()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"generated": np.zeros((20, 48))}, "equally many"),
        ({"real": np.full((100, 48), np.nan)}, "real holds NaN"),
        ({"patients": np.repeat("a", 100)}, "real has 1 patient"),
        ({"patients": np.repeat("a", 3)}, "3 entries for 100"),
        ({"generated": np.zeros(100)}, "must be floats of shape"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_sentence(change, sentence):
    features, patients = cohort(10, 0)
    with pytest.raises(InputError, match=sentence):
        c2st_auc(**({"generated": features, "real": features, "patients": patients} | change))


def test_fewer_rows_than_folds_are_refused():
    features, patients = cohort(FOLDS - 1, 0, slices=1)
    with pytest.raises(InputError, match="fewer than the 5 folds"):
        c2st_auc(features, features, patients)
    assert COMPONENTS > len(features)  # and fewer rows than components are none of the reasons


@pytest.mark.parametrize("measure", [noise_level, edge_kurtosis, edge_coherence, brightness_spread])
@pytest.mark.parametrize("images", [np.zeros((4, 4)), np.full((1, 4, 4), np.nan), np.zeros((1, 1, 4))])
def test_images_that_cannot_be_measured_are_refused(measure, images):
    with pytest.raises(InputError, match="images"):
        measure(images)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    features, patients = cohort(10, 0)
    with pytest.raises(InputError, match=r"hcm_hf\[realism\]"):
        c2st_auc(features, features, patients)
