"""Images to feature vectors: each extractor is named and versioned, and its weights are known by their SHA-256.

Inception-v3 (2,048 features) is the network of the original FID, https://huggingface.co/papers/1706.08500, in the file
that StyleGAN's metrics use. DINOv2 agrees better with human judgement, https://huggingface.co/papers/2306.04675; it is
the small one (384 features), because a covariance of more features than the few hundred slices there are is noise.
Distances of different extractors or versions are never compared.
"""

import hashlib
import io
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import HTTPError
from torch.nn import functional
from tqdm.auto import tqdm

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_bytes


INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
DINOV2_REPO = "facebook/dinov2-small"
DINOV2_REVISION = "ed25f3a31f01632728cabb09d1542f84ab7b0056"
DINOV2_SHA256 = "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"  # of model.safetensors

_BATCH_SIZE = 64
_DINOV2_SIZE = 224  # pixels a side
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """A frozen network that describes images by vectors; call it.

    Attributes:
        name: its key in `EXTRACTORS`.
        version: which weights.
        hash: the first 16 hex digits of the SHA-256 of the weights' file.
        encode: images (B, 1, H, W) in [0, 1] on `device` to features (B, D).
        device: where the network is.
    """

    name: str
    version: str
    hash: str
    encode: Callable[[torch.Tensor], torch.Tensor]
    device: str | torch.device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (N, H, W), floats in [0, 1], to features (N, D), float32.

        Raises:
            InputError: if the images are of another kind.
        """
        if images.ndim != 3 or 0 in images.shape or not np.issubdtype(images.dtype, np.floating):
            raise InputError(f"images must be floats of shape (N, H, W), not {images.dtype} of shape {images.shape}.")
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise InputError(f"images holds values from {low} to {high}; expected values in [0, 1].")
        features = []
        for start in range(0, len(images), _BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + _BATCH_SIZE, None].astype(np.float32))
            features.append(self.encode(batch.to(self.device)).float().cpu())
        return torch.cat(features).numpy()


def load_inception(device: str | torch.device) -> Extractor:
    """Inception-v3 of the original FID; it resizes to 299 pixels itself, as the original does."""
    path = Path(constants.HF_HOME) / "hcm_hf" / "inception-2015-12-05.pt"
    weights = path.read_bytes() if path.is_file() else b""
    if _sha256(weights) != INCEPTION_SHA256:
        weights = _download("inception", INCEPTION_URL, INCEPTION_SHA256)
        write_bytes(path, weights)
    network = torch.jit.load(io.BytesIO(weights), map_location=device).eval()

    def encode(images: torch.Tensor) -> torch.Tensor:
        rgb = (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return network(rgb, return_features=True)  # (B, 2048)

    return Extractor("inception", path.name, INCEPTION_SHA256[:16], encode, device)


def load_dinov2(device: str | torch.device) -> Extractor:
    """DINOv2 small: the class token after the last layer norm, of the image at 224 pixels."""
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        raise InputError(
            "The extractor 'dinov2' needs the package transformers; run pip install transformers."
        ) from error
    try:
        config = Path(hf_hub_download(DINOV2_REPO, "config.json", revision=DINOV2_REVISION, token=False))
        weights = Path(hf_hub_download(DINOV2_REPO, "model.safetensors", revision=DINOV2_REVISION, token=False))
    except (OSError, HTTPError, RuntimeError) as error:  # of the file system, the connection and the Xet storage
        raise _unavailable("dinov2", DINOV2_REPO, error.__cause__ or error) from error
    if _sha256(weights.read_bytes()) != DINOV2_SHA256:
        weights.resolve().unlink()  # the cache's link is left without a target: the next call downloads again
        raise _unavailable("dinov2", DINOV2_REPO, "its model.safetensors is damaged: the SHA-256 differs")
    network = Dinov2Model.from_pretrained(config.parent, use_safetensors=True).to(device).eval()
    mean = torch.tensor(_IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(_IMAGENET_STD, device=device).view(1, 3, 1, 1)

    def encode(images: torch.Tensor) -> torch.Tensor:
        images = functional.interpolate(images, (_DINOV2_SIZE, _DINOV2_SIZE), mode="bicubic", antialias=True)
        rgb = (images.clamp(0, 1) - mean) / std  # (B, 3, 224, 224)
        return network(rgb).last_hidden_state[:, 0]  # (B, 384)

    return Extractor("dinov2", f"{DINOV2_REPO}@{DINOV2_REVISION}", DINOV2_SHA256[:16], encode, device)


EXTRACTORS = {"inception": load_inception, "dinov2": load_dinov2}


def load_extractor(name: str, device: str | torch.device = "cpu") -> Extractor:
    """Load an extractor; its weights are downloaded at the first use and kept in the Hugging Face cache.

    Args:
        name: a name of `EXTRACTORS`.
        device: where to compute.

    Raises:
        InputError: if there is no such extractor, or its weights or a package it needs cannot be had.
    """
    if name not in EXTRACTORS:
        raise InputError(f"There is no extractor '{name}'; choose among {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[name](device)


def _download(name: str, url: str, sha256: str) -> bytes:
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(name, url, "offline mode is enabled by HF_HUB_OFFLINE")
    try:
        with (
            urllib.request.urlopen(url, timeout=30) as response,
            tqdm.wrapattr(response, "read", total=response.length, desc=f"Downloading {name}") as stream,
        ):
            data = b"".join(iter(lambda: stream.read(2**20), b""))
    except (OSError, HTTPException) as error:
        raise _unavailable(name, url, error) from error
    if _sha256(data) != sha256:
        raise _unavailable(name, url, "what arrived is incomplete or another file: the SHA-256 differs")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unavailable(name: str, source: str, cause: Exception | str) -> InputError:
    reason = str(cause).partition("\n")[0].partition(". ")[0].rstrip(".") or type(cause).__name__
    return InputError(
        f"The weights of the extractor '{name}' cannot be had from {source} ({reason}); "
        f"try again with network access, or copy the cache {constants.HF_HOME} of a machine that has them."
    )
