"""SSIM, CC and MSE of images, as a metric of the `evaluate` library: one file that needs numpy alone.

SSIM: https://doi.org/10.1109/TIP.2003.819861 (Wang et al. 2004)

Images are floating-point numpy arrays of shape (N, H, W) with values in [0, 1]; results are float64 numpy arrays.
Where torch is installed it does the work, faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock
from typing import Any, Literal, NamedTuple

import numpy as np


try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

WINDOW = 11  # Wang et al.: 11 x 11 Gaussian window,
SIGMA = 1.5  # of this standard deviation in pixels,
K1, K2 = 0.01, 0.03  # and these two stabilising constants

Pixels = Any  # torch.Tensor, or np.ndarray without torch

_CHUNK = 256  # images or pairs at a time
_PAIRED_CHUNK = 8  # pairs at a time: of every 64 similarities 8 are kept
_SSIM_CHUNKS = 32, 192  # images of the first and of the second set at a time: what a block needs stays in the cache
_SSIM_GROUP = 4 * _SSIM_CHUNKS[1]  # images of the second set for which the windows of the first are made once
_BAND = 6  # neighbouring positions that share one small matrix product
_THREADS = Lock()  # held while torch's number of threads is changed

_DESCRIPTION = """Similarity of grey images: structural similarity (SSIM, Gaussian window 11x11, sigma 1.5,
K = (.01, .03)), Pearson correlation coefficient (CC) and mean squared error (MSE). Which image is compared with which
decides what they mean: name the protocol beside every number."""

_INPUTS = """
Args:
    predictions: images, floats (N, H, W) in `value_range`, H and W at least 11.
    references: images, floats (M, H, W).
    protocol: "pairs", the i-th with the i-th (N = M); "all", each prediction with each reference; or "best", each
        prediction with the reference that is most alike by the metric at hand.
    data_range: of SSIM: the width of the interval that values can take.
    value_range: the interval itself.
    average: False gives the values of all pairs instead of their mean: (N, M) for "all", else (N,).
    device: where to compute.

Returns:
    ssim: in [-1, 1], higher is more alike, 1 for identical images.
    cc: in [-1, 1], higher is more alike.
    mse: 0 or more, lower is more alike.

Examples:
    >>> metric = evaluate.load("user/slice-similarity")
    >>> metric.compute(predictions=generated, references=real, protocol="best")
    {'ssim': 0.227, 'cc': 0.489, 'mse': 0.037}
"""

_CITATION = """@article{wang2004image,
  title = {Image quality assessment: from error visibility to structural similarity},
  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  journal = {IEEE Transactions on Image Processing}, volume = {13}, number = {4}, pages = {600--612}, year = {2004},
  doi = {10.1109/TIP.2003.819861}
}"""


class ImageError(ValueError):
    """Images or options that cannot be compared: one sentence that says why."""


def compare_images(
    first: np.ndarray,
    second: np.ndarray,
    protocol: Literal["pairs", "all", "best"] = "all",
    data_range: float = 1.0,
    value_range: tuple[float, float] = (0.0, 1.0),
    device: str | torch.device = "cpu",
) -> dict[str, np.ndarray]:
    """SSIM, CC and MSE of two sets of images, by their names `ssim`, `cc` and `mse`.

    Args:
        first: images, (N, H, W), H and W at least 11.
        second: images, (M, H, W).
        protocol: "pairs", the i-th with the i-th (N = M); "all", each of the first with each of the second; or
            "best", each of the first with that of the second which is most alike by the metric at hand.
        data_range: of SSIM: the width of the interval that values can take.
        value_range: the interval itself; values outside are refused.
        device: where to compute.

    Returns:
        (N, M) for "all", else (N,), for each metric.
    """
    first, second = (np.asarray(images, np.float32) for images in (first, second))
    options: dict[str, Any] = {"value_range": value_range, "device": device}
    values = {}
    ways: tuple[tuple[str, Callable, dict[str, Any], Callable], ...] = (
        ("ssim", ssim_matrix, {"data_range": data_range}, np.max),
        ("cc", cc_matrix, {}, np.max),
        ("mse", mse_matrix, {}, np.min),
    )
    for name, matrix, more, best in ways:
        if protocol == "pairs":
            values[name] = paired(matrix, first, second, **more, **options)
        elif protocol in ("all", "best"):
            values[name] = matrix(first, second, **more, **options)
            if protocol == "best":
                values[name] = best(values[name], axis=1)
        else:
            raise ImageError(f"protocol is '{protocol}'; choose 'pairs', 'all' or 'best'.")
    return values


def ssim_matrix(
    first: np.ndarray,
    second: np.ndarray,
    data_range: float = 1.0,
    value_range: tuple[float, float] = (0.0, 1.0),
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Structural similarity of all pairs, averaged over the window positions that lie wholly inside the image.

    Equal to `skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=data_range)`.

    Args:
        first: images, (N, H, W), H and W at least 11.
        second: images, (M, H, W).
        data_range: width of the interval the values can take. A width that is too large makes any two images
            look alike: random images in [-1, 1] score over .9 with 255.
        value_range: the interval itself; values outside are refused.
        device: where to compute.

    Returns:
        (N, M) in [-1, 1], higher is more alike, 1 for identical images.
    """
    first, second = checked_pair(first, second, value_range)
    if min(first.shape[1:]) < WINDOW:
        size = f"{first.shape[1]}x{first.shape[2]}"
        raise ImageError(f"first and second are {size} pixels, smaller than SSIM's window of {WINDOW}x{WINDOW}.")
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    if torch is None:
        return _filled(lambda left, right: _plain_ssim(left, right, c1, c2), first, second, device)
    result = np.empty((len(first), len(second)))
    with _thread_pool() as pool:
        for start in range(0, len(second), _SSIM_GROUP):
            some = second[start : start + _SSIM_GROUP]
            blocks = [some[columns] for columns in chunks(len(some), _SSIM_CHUNKS[1])]
            rights = list(pool.map(lambda block: _windows(tensor(block, device)), blocks))

            def fill(rows: slice, start: int = start, rights: list[_Windows] = rights) -> None:
                left = _windows(tensor(first[rows], device))
                values = torch.cat([_ssim_block(left, right, c1, c2) for right in rights], dim=1)
                result[rows, start : start + values.shape[1]] = values.cpu().numpy()

            list(pool.map(fill, chunks(len(first), _SSIM_CHUNKS[0])))
    return result


def cc_matrix(
    first: np.ndarray,
    second: np.ndarray,
    value_range: tuple[float, float] = (0.0, 1.0),
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Pearson correlation coefficient of all pairs, without shifting.

    Args:
        first: images, (N, H, W).
        second: images, (M, H, W).
        value_range: the interval of the values; values outside are refused.
        device: where to compute.

    Returns:
        (N, M) in [-1, 1], higher is more alike, 1 for images that differ in brightness and contrast only; 0 where
        an image is constant, since it follows nothing.
    """
    first, second = checked_pair(first, second, value_range)

    def correlations(left: Pixels, right: Pixels) -> Pixels:
        return (standardised(left) @ standardised(right).T).clip(-1, 1)

    return _filled(correlations, first, second, device)


def mse_matrix(
    first: np.ndarray,
    second: np.ndarray,
    value_range: tuple[float, float] = (0.0, 1.0),
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Mean squared error of all pairs.

    Args:
        first: images, (N, H, W).
        second: images, (M, H, W).
        value_range: the interval of the values; values outside are refused.
        device: where to compute.

    Returns:
        (N, M), 0 or more, lower is more alike, 0 for identical images.
    """
    first, second = checked_pair(first, second, value_range)

    def errors(left: Pixels, right: Pixels) -> Pixels:
        left, right = _rows(left), _rows(right)
        squares = (left**2).mean(1)[:, None] + (right**2).mean(1)
        return (squares - left @ right.T * (2 / left.shape[1])).clip(0)

    return _filled(errors, first, second, device)


def paired(matrix: Callable[..., np.ndarray], first: np.ndarray, second: np.ndarray, **options: Any) -> np.ndarray:
    """A similarity of the i-th image of one set with the i-th of the other.

    Args:
        matrix: `ssim_matrix`, `cc_matrix` or `mse_matrix`.
        first: images, (N, H, W).
        second: images, (N, H, W).
        **options: passed on to `matrix`.

    Returns:
        (N,), the diagonal of what `matrix` returns, without the rest of it.
    """
    if len(first) != len(second):
        raise ImageError(f"first and second differ in number of images: {len(first)} and {len(second)}.")
    return np.concatenate([np.diag(matrix(first[i], second[i], **options)) for i in chunks(len(first), _PAIRED_CHUNK)])


def _filled(
    block: Callable[..., Pixels],
    first: np.ndarray,
    second: np.ndarray,
    device: str | torch.device,
) -> np.ndarray:
    """The matrix (N, M) of what `block` says of every chunk of one set with every chunk of the other."""
    result = np.empty((len(first), len(second)))
    for rows in chunks(len(first)):
        for columns in chunks(len(second)):
            values = block(tensor(first[rows], device), tensor(second[columns], device))
            result[rows, columns] = values if torch is None else values.cpu().numpy()
    return result


def _plain_ssim(first: np.ndarray, second: np.ndarray, c1: float, c2: float) -> np.ndarray:
    """SSIM of all pairs by equation 13 of the paper, word for word."""
    rows, columns = (_plain_smoothing(size) for size in first.shape[1:])

    def smooth(images: np.ndarray) -> np.ndarray:
        return rows @ images @ columns.T

    (mean1, variance1), (mean2, variance2) = (
        (smooth(images), smooth(np.square(images)) - np.square(smooth(images))) for images in (first, second)
    )
    result = np.empty((len(first), len(second)))
    for i, image in enumerate(first):
        covariance = smooth(image * second) - mean1[i] * mean2
        likeness = (2 * mean1[i] * mean2 + c1) * (2 * covariance + c2)
        likeness /= (np.square(mean1[i]) + np.square(mean2) + c1) * (variance1[i] + variance2 + c2)
        result[i] = likeness.mean((1, 2))
    return result


def _plain_smoothing(size: int) -> np.ndarray:
    """The Gaussian window along one axis as a banded matrix, (size - 10, size), rows of sum 1."""
    profile = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    return sum(np.eye(size - WINDOW + 1, size, k) * weight for k, weight in enumerate(profile / profile.sum()))


@contextmanager
def _thread_pool() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch would use for one operation, in each of which an operation uses one.

    Thousands of small operations that all wait for their slowest thread would be slower than one thread alone on a
    machine that has other work to do.
    """
    with _THREADS:
        pool = _start_pool(torch.get_num_threads())
    with pool:
        yield pool


def _start_pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch uses one thread; in all others it goes on with `threads`.

    The number that is set in one thread is also that of every thread which torch meets for the first time afterwards,
    so it is put back before the work begins.
    """
    pool = ThreadPoolExecutor(threads)
    if threads == 1:
        return pool
    all_there = Barrier(threads)

    def use_one_thread(_: int) -> None:
        torch.set_num_threads(1)
        all_there.wait()  # or else one thread of the pool could serve for two

    try:
        list(pool.map(use_one_thread, range(threads)))
    finally:
        torch.set_num_threads(threads)
        all_there.abort()  # where the system starts no more threads, those that wait for them end too
    return pool


class _Windows(NamedTuple):
    """What SSIM needs to know of one set of images; H' and W' count the window positions, H - 10 and W - 10."""

    pixels: torch.Tensor  # (H, W, N), less a typical pixel of the image: covariances of small numbers round less
    centred: torch.Tensor  # (H', W', N), their mean in the window around each position
    mean: torch.Tensor  # the same of the image itself
    variance: torch.Tensor  # (H', W', N)


def _windows(images: torch.Tensor) -> _Windows:
    typical = images.flatten(1)[:, ::4].median(1).values  # exact in flat images, and in those that are mostly flat
    pixels = images.permute(1, 2, 0).contiguous().double() - typical
    rows, columns = (_smoothing(size, images.device) for size in images.shape[1:])

    def smooth(maps: torch.Tensor) -> torch.Tensor:
        return columns @ (rows @ maps.flatten(1)).unflatten(1, maps.shape[1:])

    centred = smooth(pixels)
    variance = (smooth(pixels.square()) - centred.square()).clamp(min=0)
    return _Windows(*(x.float() for x in (pixels, centred, centred + typical, variance)))


def _smoothing(size: int, device: torch.device) -> torch.Tensor:
    """The Gaussian window along one axis as a banded matrix, (size - 10, size), rows of sum 1."""
    half = torch.exp(-0.5 * (torch.arange(WINDOW // 2, 0, -1).double() / SIGMA) ** 2)
    half = (half / (1 + 2 * half.sum())).float().double()  # means need the very weights of the float32 products
    profile = torch.cat([half, 1 - 2 * half.sum(0, keepdim=True), half.flip(0)])
    matrix = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64)
    for offset, weight in enumerate(profile):
        matrix.diagonal(offset).fill_(weight)
    return matrix.to(device)


def _ssim_block(first: _Windows, second: _Windows, c1: float, c2: float) -> torch.Tensor:
    """SSIM of all pairs of two small sets, (N, M).

    Equation 13 of the paper, one row of positions at a time: where mean, variance and covariance belong to a
    position, (2 mean1 mean2 + c1) (2 covariance + c2) / ((mean1^2 + mean2^2 + c1) (variance1 + variance2 + c2)).
    """
    (height, width, n), m = first.mean.shape, second.mean.shape[2]
    bands = -(-width // _BAND)
    smoothing = _smoothing(_BAND + WINDOW - 1, first.pixels.device).float()  # (6, 16)
    weights = 2 * smoothing
    offset = first.pixels.new_full((m,), c1)  # as a row, added faster than a single number

    # All rows of what belongs to one image, as views that meet all of the other set: the loop has no other work.
    strips = zip(
        (first.pixels.unfold(0, WINDOW, 1) * smoothing[0, :WINDOW]).unbind(),  # (W, N, 11)
        second.pixels.unfold(0, WINDOW, 1).transpose(2, 3).unbind(),  # (W, 11, M)
        strict=True,
    )
    of_first = (-2 * first.centred, first.mean, first.mean.square() + c1, first.variance + c2)
    of_second = (second.centred, second.mean, second.mean.square(), second.variance)
    views = *(x[..., None].unbind() for x in of_first), *(x[:, :, None].unbind() for x in of_second)
    rows = zip(strips, *views, strict=True)

    # The last band may stick out; what it says of positions that do not exist is never read.
    buffer = first.pixels.new_zeros(bands * _BAND + WINDOW - 1, n, m)
    windows = buffer.unfold(0, _BAND + WINDOW - 1, _BAND).transpose(2, 3)  # (bands, N, 16, M), overlapping
    products, factor = buffer[: first.pixels.shape[1]], buffer[:width]  # in turn: one place less to leave the cache
    covariance = buffer.new_zeros(bands * _BAND, n, m)
    banded = covariance.unflatten(0, (bands, _BAND)).transpose(1, 2)  # (bands, N, 6, M)
    quotient, total = covariance[:width], buffer.new_zeros(width, n, m)
    for (strip1, strip2), centred1, mean1, square1, variance1, centred2, mean2, square2, variance2 in rows:
        # Products of pixels, smoothed downwards by the sum inside a matrix product, then sideways by a second one.
        _multiply(strip1, strip2, out=products)
        _multiply(weights, windows, out=banded)
        quotient.addcmul_(centred1, centred2).add_(c2)  # 2 covariance + c2
        quotient.mul_(torch.addcmul(offset, mean1, mean2, value=2, out=factor))
        quotient.div_(torch.add(square1, square2, out=factor))
        total.addcdiv_(quotient, torch.add(variance1, variance2, out=factor))
    return total.sum(0, dtype=torch.float64) / (height * width)


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Matrix products; those on the CPU by numpy, whose BLAS uses AVX-512 on AMD too where torch's does not."""
    if out.is_cpu:
        np.matmul(left.numpy(), right.numpy(), out=out.numpy())
    else:
        torch.matmul(left, right, out=out)


def standardised(images: Pixels) -> Pixels:
    """Pixels as rows of mean 0 and length 1; rows of zeros for constant images."""
    flat = _rows(images)
    constant = flat.max(1) == flat.min(1) if torch is None else flat.amax(1) == flat.amin(1)
    flat = flat - flat.mean(1)[:, None]
    flat[constant] = 0
    lengths = np.linalg.norm(flat, axis=1) if torch is None else flat.norm(dim=1)
    lengths[constant] = 1
    return flat / lengths[:, None]


def _rows(images: Pixels) -> Pixels:
    """Pixels as rows of float64."""
    return images.reshape(len(images), -1).astype(np.float64) if torch is None else images.double().flatten(1)


def tensor(images: np.ndarray, device: str | torch.device) -> Pixels:
    """Images as float32 on a device; without torch as numpy's float64."""
    images = np.ascontiguousarray(images, dtype=np.float32)
    if torch is not None:
        return torch.from_numpy(images).to(device)
    if device != "cpu":
        raise ImageError(f"device is {device}, which needs torch; install that, or take 'cpu'.")
    return images.astype(np.float64)


def chunks(length: int, size: int = _CHUNK) -> Iterator[slice]:
    """Places in order, some at a time."""
    return (slice(start, start + size) for start in range(0, length, size))


def checked_pair(
    first: np.ndarray, second: np.ndarray, value_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of images of one size with values in the interval.

    Raises:
        ImageError: if they are not.
    """
    for name, images in (("first", first), ("second", second)):
        if images.ndim != 3 or 0 in images.shape or not np.issubdtype(images.dtype, np.floating):
            raise ImageError(f"{name} must be floats of shape (N, H, W), not {images.dtype} of shape {images.shape}.")
        low, high = images.min(), images.max()
        if not value_range[0] <= low <= high <= value_range[1]:  # false for NaN too
            raise ImageError(
                f"{name} holds values from {low} to {high}; expected finite values in "
                f"[{value_range[0]:g}, {value_range[1]:g}]."
            )
    if first.shape[1:] != second.shape[1:]:
        raise ImageError(f"first and second differ in image size: {first.shape[1:]} and {second.shape[1:]}.")
    return first, second


if "evaluate" in sys.modules:  # which loads this file; who needs the functions alone need not have it
    import datasets
    import evaluate

    class SliceSimilarity(evaluate.Metric):
        """SSIM, CC and MSE; `compute` says how."""

        def _info(self) -> evaluate.MetricInfo:
            image = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
            return evaluate.MetricInfo(
                description=_DESCRIPTION,
                citation=_CITATION,
                codebase_urls=["https://github.com/hcm-hf/hcm-hf"],
                inputs_description=_INPUTS,
                features=datasets.Features({"predictions": image, "references": image}),
            )

        def compute(
            self,
            *,
            predictions: np.ndarray | None = None,
            references: np.ndarray | None = None,
            protocol: Literal["pairs", "all", "best"] = "all",
            data_range: float = 1.0,
            value_range: tuple[float, float] = (0.0, 1.0),
            average: bool = True,
            device: str = "cpu",
        ) -> Mapping[str, float | np.ndarray]:
            """As in the base class; images given here need not go through its table, whose columns have one length."""
            options: dict[str, Any] = {
                "protocol": protocol,
                "data_range": data_range,
                "value_range": value_range,
                "average": average,
                "device": device,
            }
            if predictions is None and references is None:  # what `add` and `add_batch` have collected
                return super().compute(**options)
            if predictions is None or references is None:
                raise ImageError("predictions and references belong together; give both, or neither after add_batch.")
            return self._compute(predictions, references, **options)

        def _compute(
            self,
            predictions: np.ndarray,
            references: np.ndarray,
            protocol: Literal["pairs", "all", "best"],
            data_range: float,
            value_range: tuple[float, float],
            average: bool,
            device: str,
        ) -> Mapping[str, float | np.ndarray]:
            values = compare_images(predictions, references, protocol, data_range, value_range, device)
            return {name: float(value.mean()) for name, value in values.items()} if average else values
