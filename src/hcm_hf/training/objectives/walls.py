"""The wall thickness of training slices, read off their segmentations."""

from functools import lru_cache

import numpy as np
import torch

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.metrics.anatomy import valid_topology, wall_thickness


@lru_cache(maxsize=20_000)
def _read(mask: bytes, size: int) -> float:
    """The thickness of one mask; a training meets each of its masks again and again."""
    labels = np.frombuffer(mask, np.int8).reshape(1, size, size)
    if labels.min() < 0 or not valid_topology(labels)[0]:
        return float("nan")
    return float(wall_thickness(labels, FIELD_OF_VIEW / size)[0])


def read_walls(masks: torch.Tensor) -> torch.Tensor:
    """Greatest radial thickness of each wall: `metrics.anatomy.wall_thickness`.

    Args:
        masks: whole numbers (B, H, H), 0 to 3; -1 for a slice without a segmentation.

    Returns:
        mm, float32 (B,); not a number where there is no wall, or it is no closed ring.
    """
    labels = masks.to("cpu", torch.int8).numpy()
    walls = [_read(mask.tobytes(), mask.shape[0]) for mask in labels]
    return torch.tensor(walls, dtype=torch.float32, device=masks.device)
