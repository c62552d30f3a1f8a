"""Random changes of slices that leave what they show as it was.

There are no flips: the side of the right ventricle is anatomy.
"""

import math
from typing import Any

import torch
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch


ROTATION = math.radians(15)  # at most, either way
SCALE = 0.1  # at most larger or smaller by this part
SHIFT = 0.06  # of the side, at most, in each direction
GAMMA = 0.3  # at most, of its logarithm
NUM_DRAWS = 5  # random numbers for each slice


def augment(
    images: torch.Tensor, masks: torch.Tensor, draws: torch.Tensor, interpolation: str = "bilinear"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate, scale and shift slices with their masks, and bend the images' intensities; edges are repeated.

    Args:
        images: (B, 1, H, W) in [-1, 1].
        masks: whole numbers, (B, H, W).
        draws: (B, NUM_DRAWS), uniform on [0, 1]; .5 everywhere changes nothing.
        interpolation: of images, "bilinear", which blurs, or "spectral", which keeps their power spectrum but for the
            last tenth of it.

    Returns:
        Images in [-1, 1] and masks, of the same shapes and types.
    """
    angle, scale, across, down, gamma = (2 * draws - 1).unbind(1)
    angle, zoom = ROTATION * angle, (1 + SCALE) ** -scale
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    shifts = 2 * SHIFT * across, 2 * SHIFT * down  # the grid is 2 wide
    matrix = torch.stack([cosine, -sine, shifts[0], sine, cosine, shifts[1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    options: dict[str, Any] = {"padding_mode": "border", "align_corners": False}
    if interpolation == "spectral":
        half_pixel = 1 / (2 * images.shape[-1])  # where twice as many pixels have their centres
        moved = F.grid_sample(_double(images), grid - half_pixel, mode="bicubic", **options)
    else:
        moved = F.grid_sample(images, grid, mode=interpolation, **options)
    # Not quite to 0, where the gradient of a power below 1 is infinite.
    moved = 2 * ((moved + 1) / 2).clamp(1e-6, 1) ** torch.exp(GAMMA * gamma)[:, None, None, None] - 1
    moved_masks = F.grid_sample(masks.unsqueeze(1).to(images.dtype), grid, mode="nearest", **options)
    return moved, moved_masks.squeeze(1).to(masks.dtype)


def augment_batch(
    batch: SliceBatch, strength: float = 1.0, interpolation: str = "spectral"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and masks of a batch after `augment`, each slice's by numbers of its own.

    Args:
        batch: slices.
        strength: part of the full range; 0 changes nothing.
        interpolation: as in `augment`.
    """
    draws = batch.draw(lambda n: torch.rand(n, NUM_DRAWS, device=batch.images.device))
    return augment(batch.images, batch.masks, 0.5 + strength * (draws - 0.5), interpolation)


def _double(images: torch.Tensor) -> torch.Tensor:
    """Square images (B, C, H, H) with the values halfway between their pixels too, (B, C, 2 H, 2 H), H being even.

    The images, mirrored at their edges, as the sums of cosines that they are.
    """
    size = images.shape[-1]
    for dim in (-1, -2):
        mirrored = torch.cat([images, images.flip(dim).narrow(dim, 1, size - 2)], dim)
        waves = torch.fft.rfft(mirrored, dim=dim)
        waves.narrow(dim, size - 1, 1).mul_(0.5)  # the highest stands for two
        images = 2 * torch.fft.irfft(waves, 2 * mirrored.shape[dim], dim=dim).narrow(dim, 0, 2 * size)
    return images
