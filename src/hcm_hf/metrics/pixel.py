"""Similarity of every image of one set with every image of another.

SSIM, CC and MSE are those of the metric in `slice_similarity`, which stands alone; beside them the cross-correlation.
Images are floating-point numpy arrays of shape (N, H, W) with values in [0, 1]; results are float64 numpy arrays.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch.nn import functional

from hcm_hf.metrics.slice_similarity import slice_similarity as metric
from hcm_hf.utils.errors import InputError


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _refusing(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, with this package's exception for what cannot be compared."""

    @wraps(function)
    def refusing(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return function(*arguments, **options)
        except metric.ImageError as error:
            raise InputError(str(error)) from None

    return refusing


ssim_matrix, cc_matrix, mse_matrix = (
    _refusing(metric.ssim_matrix),
    _refusing(metric.cc_matrix),
    _refusing(metric.mse_matrix),
)
paired, compare_images = _refusing(metric.paired), _refusing(metric.compare_images)


@_refusing
def cc_max_shift(
    first: np.ndarray, second: np.ndarray, pairs: np.ndarray, max_shift: int, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Peak of the normalised cross-correlation while one image slides over the other.

    At each whole-pixel shift of at most `max_shift` in both directions, the Pearson correlation coefficient of the
    pixels where the two images overlap; the largest of these is returned. Without the limit, overlaps of a few
    pixels in a corner would decide.

    Args:
        first: images, (N, H, W).
        second: images, (M, H, W).
        pairs: whole numbers, (P, 2): an index into `first` and one into `second`.
        max_shift: pixels, at most half the smaller side of the images.
        device: where to compute.

    Returns:
        (P,) in [-1, 1], higher is more alike; never below the unshifted correlation. An overlap where an image is
        constant counts as 0.
    """
    first, second = metric.checked_pair(first, second)
    if not 0 <= max_shift <= min(first.shape[1:]) // 2:
        raise InputError(f"max_shift is {max_shift}, not between 0 and half the smaller side of the images.")
    result = np.empty(len(pairs))
    for rows in metric.chunks(len(pairs)):
        left, left_index = np.unique(pairs[rows, 0], return_inverse=True)
        right, right_index = np.unique(pairs[rows, 1], return_inverse=True)
        peaks = _peak_correlations(
            metric.tensor(first[left], device),
            metric.tensor(second[right], device),
            left_index,
            right_index,
            max_shift,
        )
        result[rows] = peaks.cpu().numpy()
    return result


def _peak_correlations(
    first: torch.Tensor, second: torch.Tensor, left: np.ndarray, right: np.ndarray, max_shift: int
) -> torch.Tensor:
    first, second = metric.standardised(first).view_as(first), metric.standardised(second).view_as(second)
    height, width = first.shape[1:]
    padded = (height + max_shift, width + max_shift)  # room for every shift, so that none wraps around
    spectrum = torch.fft.rfft2(first, padded)[left].conj() * torch.fft.rfft2(second, padded)[right]
    shifts = torch.arange(-max_shift, max_shift + 1, device=first.device)
    products = torch.fft.irfft2(spectrum, padded)[:, shifts[:, None] % padded[0], shifts % padded[1]]

    # Sums over the overlap: `second` moves by (dy, dx), so that pixel (y, x) of `first` meets (y + dy, x + dx).
    count = ((height - shifts.abs())[:, None] * (width - shifts.abs())).double()
    sum1, square1 = (_overlap_sums(x, -shifts)[left] for x in (first, first.square()))
    sum2, square2 = (_overlap_sums(x, shifts)[right] for x in (second, second.square()))
    covariance = products - sum1 * sum2 / count
    variances = (square1 - sum1.square() / count) * (square2 - sum2.square() / count)
    correlation = covariance / variances.clamp(min=0).sqrt()
    return torch.where(variances > 1e-16, correlation, 0.0).clamp(-1, 1).amax((1, 2))


def _overlap_sums(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Sums over rows max(0, dy) to H + min(0, dy), and columns likewise, for all shifts: (N, shifts, shifts)."""
    table = functional.pad(images.cumsum(1).cumsum(2), (1, 0, 1, 0))
    top, left = shifts.clamp(min=0)[:, None], shifts.clamp(min=0)
    bottom, right = (images.shape[1] + shifts.clamp(max=0))[:, None], images.shape[2] + shifts.clamp(max=0)
    return table[:, bottom, right] - table[:, top, right] - table[:, bottom, left] + table[:, top, left]
