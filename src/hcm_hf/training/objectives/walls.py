"""The wall thickness of training slices, read off their segmentations."""

import hashlib

import numpy as np
import torch

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.metrics.anatomy import valid_topology, wall_thickness


_READ: dict[bytes, float] = {}  # by the mask's hash: a training meets each of its masks again and again


def _read(mask: np.ndarray) -> float:
    """The thickness of one mask (H, H)."""
    key = hashlib.blake2b(mask.tobytes(), digest_size=16).digest()
    if key not in _READ:
        closed = mask.min() >= 0 and valid_topology(mask[None])[0]
        _READ[key] = float(wall_thickness(mask[None], FIELD_OF_VIEW / len(mask))[0]) if closed else float("nan")
    return _READ[key]


def read_walls(masks: torch.Tensor) -> torch.Tensor:
    """Greatest radial thickness of each wall: `metrics.anatomy.wall_thickness`.

    Args:
        masks: whole numbers (B, H, H), 0 to 3; -1 for a slice without a segmentation.

    Returns:
        mm, float32 (B,); not a number where there is no wall, or it is no closed ring.
    """
    labels = masks.to("cpu", torch.int8).numpy()
    return torch.tensor([_read(mask) for mask in labels], dtype=torch.float32, device=masks.device)
