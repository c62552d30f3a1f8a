"""Augmentation of slices, and differentiable augmentation of a discriminator's inputs.

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
# Of `change_images`:
BRIGHTNESS = 0.5  # at most brighter or darker, of a range of 2
CONTRAST = 0.5  # at most more or less of it, as a part
TRANSLATION = 0.125  # of the side, at most, in each direction
CUTOUT = 0.5  # of the side, of the square that is hidden
NUM_CHANGES = 6  # random numbers for each image


def augment(
    images: torch.Tensor, masks: torch.Tensor, draws: torch.Tensor, interpolation: str = "bilinear"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate, scale and shift slices with their masks, and change the images' gamma; edges are repeated.

    Args:
        images: (B, 1, H, W) in [-1, 1].
        masks: whole numbers, (B, H, W).
        draws: (B, NUM_DRAWS), uniform on [0, 1]; 0.5 everywhere changes nothing.
        interpolation: "bilinear" blurs images; "spectral" keeps their power spectrum except its last tenth.

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
    """Augment the images and masks of a batch with random numbers of each slice's own.

    Args:
        batch: slices.
        strength: fraction of the full range; 0 changes nothing.
        interpolation: as in `augment`.
    """
    draws = batch.draw(lambda n: torch.rand(n, NUM_DRAWS, device=batch.images.device))
    return augment(batch.images, batch.masks, 0.5 + strength * (draws - 0.5), interpolation)


def change_images(images: torch.Tensor, draws: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Change brightness and contrast, shift, and hide a square; gradients flow through all that is left.

    Differentiable augmentation, https://huggingface.co/papers/2006.10738. Values may leave [-1, 1].

    Args:
        images: (B, C, H, H) in [-1, 1]; channels after the first are masks, which move with it but keep their values.
        draws: (B, NUM_CHANGES), uniform on [0, 1).
        strength: fraction of the full range; 0 changes nothing.
    """
    brightness, contrast, down, across, top, left = draws.T
    size = images.shape[-1]
    light = images[:, :1] + (2 * strength * BRIGHTNESS * (brightness - 0.5))[:, None, None, None]
    mean = light.mean((1, 2, 3), keepdim=True)
    light = mean + (light - mean) * (1 + 2 * strength * CONTRAST * (contrast - 0.5))[:, None, None, None]
    images = torch.cat([light, images[:, 1:]], dim=1)

    furthest = round(strength * TRANSLATION * size)
    places = torch.arange(size, device=images.device)
    rows, columns = (  # (B, H): where each line of the shifted image comes from
        places + (shift * (2 * furthest + 1)).long()[:, None] - furthest for shift in (down, across)
    )
    inside = lambda lines: ((lines >= 0) & (lines < size)).to(images)  # noqa: E731
    which, channels = (torch.arange(count, device=images.device) for count in images.shape[:2])
    rows, columns = rows[:, None, :, None], columns[:, None, None, :]
    moved = images[
        which[:, None, None, None], channels[:, None, None], rows.clamp(0, size - 1), columns.clamp(0, size - 1)
    ]
    moved = moved * inside(rows) * inside(columns)

    half = strength * CUTOUT * size / 2
    hidden = [(places - (middle * size)[:, None]).abs() < half for middle in (top, left)]  # (B, H) each
    return moved * ~(hidden[0][:, None, :, None] & hidden[1][:, None, None, :])


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
