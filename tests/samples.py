"""Sets of features and of images with known properties."""

import numpy as np
from scipy import stats

from hcm_hf.metrics.spectrum import log_radial_spectra, spectrum_distance


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


def spectra_apart(generated: np.ndarray, real: np.ndarray) -> float:
    return spectrum_distance(log_radial_spectra(generated), log_radial_spectra(real))
