"""The wall thickness of training slices, read off their segmentations."""

import hashlib

import numpy as np
import torch

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.metrics.anatomy import closed_wall_thickness
from hcm_hf.pipelines.pairs import WALL


_READ: dict[bytes, float] = {}  # by the mask's hash: a training meets each of its masks again and again


def _read(mask: np.ndarray) -> float:
    """The thickness of one mask (H, H)."""
    key = hashlib.blake2b(mask.tobytes(), digest_size=16).digest()
    if key not in _READ:
        known = mask.min() >= 0
        _READ[key] = float(closed_wall_thickness(mask[None], FIELD_OF_VIEW / len(mask))[0]) if known else float("nan")
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


def no_range() -> torch.Tensor:
    """The range of walls before any was met, (2,)."""
    return torch.tensor([torch.inf, -torch.inf])


def widen(wall_range: torch.Tensor, walls: torch.Tensor) -> None:
    """Make a range, (2,), hold walls, mm (B,), in place; those that are not a number do not count."""
    if (measured := walls[walls.isfinite()]).numel():
        wall_range[0] = torch.minimum(wall_range[0], measured.min())
        wall_range[1] = torch.maximum(wall_range[1], measured.max())


def ranges_of(wall_range: torch.Tensor) -> dict[str, tuple[float, float]]:
    """A range, (2,), as a pipeline's `ranges`; empty where fewer than two walls were met."""
    thinnest, thickest = wall_range.tolist()
    return {WALL: (thinnest, thickest)} if thinnest < thickest else {}
