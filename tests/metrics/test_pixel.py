import subprocess
import sys

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from tiny import random_images

from hcm_hf.metrics.pixel import cc_matrix, cc_max_shift, mse_matrix, paired, ssim_matrix
from hcm_hf.metrics.slice_similarity import slice_similarity
from hcm_hf.utils.errors import InputError


MATRICES = (ssim_matrix, cc_matrix, mse_matrix)


def reference_ssim(first: np.ndarray, second: np.ndarray, data_range: float) -> np.ndarray:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    first, second = first.astype(float), second.astype(float)
    return np.array([[structural_similarity(x, y, **settings) for y in second] for x in first])


@pytest.mark.parametrize("data_range, value_range", [(1.0, (0.0, 1.0)), (2.0, (-1.0, 1.0)), (255.0, (-1.0, 1.0))])
def test_ssim_equals_scikit_image(data_range, value_range):
    first, second = random_images(9), random_images(7, seed=1)
    first[0] = second[0]
    if value_range[0] == -1:
        first, second = 2 * first - 1, 2 * second - 1
    result = ssim_matrix(first, second, data_range=data_range, value_range=value_range)
    np.testing.assert_allclose(result, reference_ssim(first, second, data_range), atol=2e-6)


@pytest.mark.parametrize("height, width", [(11, 11), (12, 30), (64, 64)])
def test_ssim_of_other_sizes(height, width):
    first, second = random_images(2, 0, height, width), random_images(3, 1, height, width)
    np.testing.assert_allclose(ssim_matrix(first, second), reference_ssim(first, second, 1.0), atol=2e-6)


def test_cc_equals_numpy():
    first, second = random_images(5), random_images(6, seed=1)
    expected = np.corrcoef(first.reshape(5, -1), second.reshape(6, -1))[:5, 5:]
    np.testing.assert_allclose(cc_matrix(first, second), expected, atol=1e-6)


def test_mse_equals_numpy():
    first, second = random_images(5), random_images(6, seed=1)
    expected = np.square(first[:, None].astype(float) - second).mean((2, 3))
    np.testing.assert_allclose(mse_matrix(first, second), expected, atol=1e-7)


@pytest.mark.parametrize("matrix, identity", [(ssim_matrix, 1), (cc_matrix, 1), (mse_matrix, 0)])
def test_an_image_equals_itself(matrix, identity):
    images = random_images(8)
    np.testing.assert_allclose(np.diag(matrix(images, images)), identity, atol=1e-6)


@pytest.mark.parametrize("matrix", MATRICES)
def test_matrices_are_symmetric(matrix):
    first, second = random_images(4), random_images(6, seed=1)
    np.testing.assert_allclose(matrix(first, second), matrix(second, first).T, atol=1e-6)


@pytest.mark.parametrize("matrix", MATRICES)
def test_chunks_change_nothing(matrix, monkeypatch):
    first, second = random_images(7), random_images(9, seed=1)
    whole = matrix(first, second)
    monkeypatch.setattr(
        slice_similarity, "chunks", lambda length, size=0: (slice(i, i + 2) for i in range(0, length, 2))
    )
    np.testing.assert_allclose(matrix(first, second), whole, atol=1e-7)


@pytest.mark.parametrize("matrix", MATRICES)
def test_pairs_are_the_diagonal(matrix):
    first, second = 2 * random_images(19) - 1, 2 * random_images(19, seed=1) - 1
    options = {"value_range": (-1.0, 1.0)}
    expected = np.diag(matrix(first, second, **options))
    np.testing.assert_allclose(paired(matrix, first, second, **options), expected, atol=1e-6)
    with pytest.raises(InputError, match="19 and 18"):
        paired(matrix, first, second[:18], **options)


def test_cc_ignores_brightness_and_contrast():
    images = random_images(4)
    np.testing.assert_allclose(np.diag(cc_matrix(images, 0.2 + 0.5 * images)), 1, atol=1e-6)
    np.testing.assert_allclose(np.diag(cc_matrix(images, 1 - images)), -1, atol=1e-6)


def test_a_constant_image_correlates_with_nothing():
    images = random_images(3)
    images[0] = 0.1
    result = cc_matrix(images, images)
    assert (result[0] == 0).all() and np.isfinite(result).all()
    assert cc_max_shift(images, images, np.array([[0, 0], [0, 1]]), 4).tolist() == [0, 0]


def test_a_wrong_data_range_makes_noise_look_alike():
    noise = np.random.default_rng(0).random((6, 64, 64), dtype=np.float32)
    different = ~np.eye(6, dtype=bool)
    assert ssim_matrix(noise, noise)[different].max() < 0.1
    trap = ssim_matrix(2 * noise - 1, 2 * noise - 1, data_range=255.0, value_range=(-1.0, 1.0))
    assert trap[different].min() > 0.9


@pytest.mark.parametrize("down, right", [(0, 0), (3, -5), (-6, 2)])
def test_cc_max_shift_finds_the_shift(down, right):
    scene = np.random.default_rng(0).random((1, 60, 60))
    first, second = scene[:, 10:50, 10:44], scene[:, 10 + down : 50 + down, 10 + right : 44 + right]
    assert cc_max_shift(first, second, np.array([[0, 0]]), 6) == pytest.approx(1, abs=1e-6)
    assert cc_max_shift(first, second, np.array([[0, 0]]), 6)[0] >= cc_matrix(first, second)[0, 0]
    if down or right:
        assert cc_max_shift(first, second, np.array([[0, 0]]), 1)[0] < 0.5


def test_cc_max_shift_equals_sliding():
    first, second = random_images(3), random_images(4, seed=1)
    pairs = np.array([[0, 3], [2, 1], [0, 0], [1, 2]])
    for (i, j), result in zip(pairs, cc_max_shift(first, second, pairs, 3), strict=True):
        best = []
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                left = first[i, max(0, -dy) : 33 - max(0, dy), max(0, -dx) : 40 - max(0, dx)]
                right = second[j, max(0, dy) : 33 + min(0, dy), max(0, dx) : 40 + min(0, dx)]
                best.append(np.corrcoef(left.ravel(), right.ravel())[0, 1])
        assert result == pytest.approx(max(best), abs=1e-6)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    "second, message",
    [
        (np.zeros((2, 33, 39)), "differ in image size"),
        (np.zeros((2, 1, 33, 40)), "shape"),
        (np.zeros((0, 33, 40)), "shape"),
        (np.zeros((2, 33, 40), np.uint8), "uint8"),
        (np.full((2, 33, 40), np.nan), "nan"),
        (np.full((2, 33, 40), 1.5), "1.5"),
        (np.full((2, 33, 40), -0.1), "-0.1"),
    ],
)
def test_wrong_input_is_refused(matrix, second, message):
    with pytest.raises(InputError, match=message):
        matrix(random_images(2), second)


def test_images_below_the_window_and_wide_shifts_are_refused():
    small = np.zeros((1, 10, 40))
    with pytest.raises(InputError, match="10x40"):
        ssim_matrix(small, small)
    with pytest.raises(InputError, match="max_shift"):
        cc_max_shift(small, small, np.array([[0, 0]]), 6)


def test_calls_at_once_leave_the_threads_of_the_process_as_they_were():
    code = """
import threading, time, numpy as np, torch
from hcm_hf.metrics.pixel import ssim_matrix

torch.set_num_threads(3)
images = np.random.default_rng(0).random((40, 24, 24), np.float32)
expected, wrong = ssim_matrix(images, images), []

def work(start):
    time.sleep(start)
    for _ in range(8):
        if not np.array_equal(ssim_matrix(images, images), expected):
            wrong.append(start)

def look(found):
    torch.ones(9).sum()
    found.append(torch.get_num_threads())

threads = [threading.Thread(target=work, args=(0.003 * i,)) for i in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
found = [torch.get_num_threads()]
for _ in range(3):
    newcomer = threading.Thread(target=look, args=(found,))
    newcomer.start()
    newcomer.join()
print(found, wrong)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[3, 3, 3, 3] []"
