"""SSIM, CC and MSE of images, as a metric of the `evaluate` library."""

from typing import Literal

import datasets
import evaluate
import numpy as np

from hcm_hf.metrics.pixel import compare_images


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
    >>> metric = evaluate.load(hcm_hf.metrics.SLICE_SIMILARITY)
    >>> metric.compute(predictions=generated, references=real, protocol="best")
    {'ssim': 0.227, 'cc': 0.489, 'mse': 0.037}
"""

_CITATION = """@article{wang2004image,
  title = {Image quality assessment: from error visibility to structural similarity},
  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  journal = {IEEE Transactions on Image Processing}, volume = {13}, number = {4}, pages = {600--612}, year = {2004},
  doi = {10.1109/TIP.2003.819861}
}"""


class SliceSimilarity(evaluate.Metric):
    """SSIM, CC and MSE; `compute` says how."""

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
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
    ) -> dict[str, float | np.ndarray]:
        """As in the base class; images given here need not go through its table, whose columns have one length."""
        options = {
            "protocol": protocol,
            "data_range": data_range,
            "value_range": value_range,
            "average": average,
            "device": device,
        }
        if predictions is None and references is None:  # what `add` and `add_batch` have collected
            return super().compute(**options)
        return self._compute(predictions, references, **options)

    def _compute(
        self,
        predictions: np.ndarray,
        references: np.ndarray,
        protocol: str,
        data_range: float,
        value_range: tuple[float, float],
        average: bool,
        device: str,
    ) -> dict[str, float | np.ndarray]:
        values = compare_images(predictions, references, protocol, data_range, value_range, device)
        return {name: float(value.mean()) for name, value in values.items()} if average else values
