"""Power spectra and brightness of images."""

import math

import numpy as np
import pytest
from samples import scenes, spectra_apart

from hcm_hf.metrics.spectrum import POWER_FLOOR, brightness_outliers, log_radial_spectra
from hcm_hf.utils.errors import InputError


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


def test_brightness_outliers_are_beyond_99_percent_on_either_side():
    real = np.arange(101) / 100  # the percentiles are 0.01 and 0.99
    assert brightness_outliers(np.array([0.0, 0.005, 0.01, 0.5, 0.99, 0.995, 1.0, 0.3]), real) == 4 / 8
    assert brightness_outliers(real, real) == 2 / 101


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
