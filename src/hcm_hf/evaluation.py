"""Generated images and a prepared dataset to one report, as JSON and as Markdown.

The metrics are those of Rayavarapu & Rao (https://doi.org/10.17163/ings.n34.2025.09), with the protocol that decides
which real image a generated one is compared with, and beside every number what other real patients score.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import datasets
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from hcm_hf.errors import InputError
from hcm_hf.files import write_text
from hcm_hf.metrics import pixel
from hcm_hf.version import __version__


RESAMPLES = 1000  # of the reference's patients, for a 95 % interval
FEW_PATIENTS = 5
MANIFEST = "manifest.jsonl"
_CHUNK = 128  # images between two steps of the progress bar

DEFINITIONS = {
    "images": "floats in [0, 1]",
    "ssim": "Gaussian window 11x11, sigma 1.5, K = (.01, .03), data_range 1.0, mean over the valid interior; "
    "higher is more alike",
    "cc": "Pearson correlation of two images; higher is more alike",
    "mse": "mean squared error; lower is more alike",
    "cc_max_shift": "largest Pearson correlation of the overlap over whole-pixel shifts of at most an eighth of the "
    "image in each direction; higher is more alike",
    "direction": "no number is better for being higher or lower: compare it with the row 'real'",
    "interval": f"low and high: 95 % by bootstrap over the patients of the real reference, {RESAMPLES} resamples; "
    "shifted by the bootstrap's own bias, since a resample misses a third of the patients among which to find a match",
}
PROTOCOLS = {
    "random": "each offered image against {real_per_image} random held-out slices (the mean image against all of them)",
    "best_train": "each offered image against the most alike of {n_reference} random training slices",
    "best_heldout": "each offered image against the most alike of {n_reference} random held-out slices",
    "copy_gap": "how much nearer the most alike training slice is than the most alike held-out one (best_train less "
    "best_heldout; for MSE the reverse): about 0 for images that owe no more to the training patients than to others, "
    "positive for copies",
}
ROWS = {
    "generated": "generated images",
    "real": "real held-out slices, offered as though generated; compared with slices of other patients only, and "
    "with as many training slices as held-out ones",
    "mean_image": "the pixel-wise mean of the training slices, offered as though generated",
}
LIMITS = (
    "What these numbers can and cannot show. Correctly computed, slices of two different real patients score an SSIM "
    "of only about .1 to .3, so a generator should come near the row 'real', not near 1. CC and MSE reward blur and "
    "mode collapse: one constant mean image beats real patients, so neither may choose a checkpoint. SSIM of .9 and "
    "more needs near-copies of training slices, a paired protocol, or a wrong data_range. None of the three sees the "
    "disease: healthy hearts offered as HCM score the same. Of them only copy_gap says something about a generator, "
    "namely whether it copies."
)
ARTEFACT = (
    "ARTEFACT, not a result: images in [-1, 1] scored by SSIM with data_range 255. The constants of SSIM then outweigh "
    "the images, and any two of them look alike, real patients too."
)


@dataclass(frozen=True)
class ImageSet:
    """Images, float32 (N, H, W) in [0, 1], and the patient of each; "" for images of no patient."""

    images: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray | slice) -> "ImageSet":
        """The images at `index`."""
        return ImageSet(self.images[index], self.patients[index])


@dataclass(frozen=True)
class Metric:
    """A pixel metric: a matrix of all pairs, the sign that makes higher more alike, and its value for equal images."""

    name: str
    matrix: Callable[..., np.ndarray]
    sign: int
    limit: float


METRICS = (
    Metric("ssim", pixel.ssim_matrix, 1, 1.0),
    Metric("cc", pixel.cc_matrix, 1, 1.0),
    Metric("mse", pixel.mse_matrix, -1, 0.0),
)


@dataclass(frozen=True)
class Estimate:
    """One number with its 95 % interval; not a number where the reference has no patient to compare with."""

    value: float
    resampled: np.ndarray

    def record(self, protocol: str, limit: Metric | None = None, **counts: int) -> dict:
        """The number as it stands in the report; the interval ends at the metric's limit."""
        finite = self.resampled[np.isfinite(self.resampled)]
        low, high = value = None, None
        if np.isfinite(self.value):
            value = self.value
            low, high = (float(x) for x in np.quantile(finite, (0.025, 0.975)) + value - finite.mean())
        return {"value": value, "low": low, "high": high, "protocol": protocol, **counts}
