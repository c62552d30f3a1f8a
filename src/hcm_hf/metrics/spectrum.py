"""How the brightness and the power spectra of generated images differ from those of real ones.

Images are floating-point numpy arrays of shape (N, H, W) with values in [0, 1].
"""

import numpy as np

from hcm_hf.metrics.arrays import check_images
from hcm_hf.utils.errors import InputError


POWER_FLOOR = 1 / (12 * 255**2)  # what rounding to 8 bits adds to the power at every frequency

_CHUNK = 256  # images at a time


def spectrum_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """Mean over frequencies of the absolute difference of the sets' mean log radial power spectra.

    It sees blur and noise, to which features can be blind, and nothing of what the images show.

    Args:
        generated: spectra, (N, F), as `log_radial_spectra` returns them.
        real: spectra, (M, F).

    Returns:
        0 or more, lower is closer; of natural logarithms, so .1 is about 10 % of power.
    """
    if generated.shape[1] != real.shape[1]:
        raise InputError(
            f"generated and real differ in image size: {generated.shape[1]} and {real.shape[1]} frequencies."
        )
    return float(np.abs(generated.mean(0) - real.mean(0)).mean())


def brightness_outliers(generated: np.ndarray, real: np.ndarray) -> float:
    """Share of images that are darker than 99 % of real ones or brighter than 99 %: washed out or black.

    Args:
        generated: the mean of each image, (N,).
        real: of real images, (M,).

    Returns:
        In [0, 1], lower is better; about .02 for other real images.
    """
    low, high = np.quantile(real, (0.01, 0.99))
    return float(((generated < low) | (generated > high)).mean())


def log_radial_spectra(images: np.ndarray) -> np.ndarray:
    """Natural logarithm of each image's power at each frequency, averaged over directions.

    Args:
        images: (N, H, W).

    Returns:
        (N, S // 2 + 1), S the shorter side: at 0, 1, ... cycles per S pixels up to the Nyquist frequency, without the
        corners beyond it. White noise of variance v has about log(v + POWER_FLOOR) at all but 0.
    """
    check_images("images", images)
    return np.log(radial_power(images) + POWER_FLOOR)


def radial_power(images: np.ndarray) -> np.ndarray:
    """Return each image's power at each frequency, averaged over directions.

    Args:
        images: (N, H, W).

    Returns:
        (N, S // 2 + 1), S the shorter side; the frequencies are those of `log_radial_spectra`.
    """
    height, width = images.shape[1:]
    size = min(height, width)
    radius = np.rint(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * size)
    rings = (radius.reshape(-1, 1) == np.arange(size // 2 + 1)).astype(np.float64)  # (H W, S // 2 + 1)
    rings /= rings.sum(0)
    spectra = []
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        power = np.square(np.abs(np.fft.fft2(images[rows].astype(np.float64)))) / (height * width)
        spectra.append(power.reshape(len(power), -1) @ rings)
    return np.concatenate(spectra)
