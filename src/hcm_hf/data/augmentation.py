"""Augmentation of slices, and differentiable augmentation of a discriminator's inputs.

There are no flips: the side of the right ventricle is anatomy.
"""

import math
from dataclasses import dataclass
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
    grid = _affine(images, ROTATION * angle, (1 + SCALE) ** -scale, SHIFT * across, SHIFT * down)
    moved, moved_masks = _sample(images, masks, grid, interpolation)
    # Not quite to 0, where the gradient of a power below 1 is infinite.
    moved = 2 * ((moved + 1) / 2).clamp(1e-6, 1) ** torch.exp(GAMMA * gamma)[:, None, None, None] - 1
    return moved, moved_masks


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


@dataclass(frozen=True)
class StrongAugmentation:
    """Augmentation for long trainings: of a slice's geometry, with its mask, and of its grey values.

    Each change of a slice is drawn uniformly up to its strength, apart from the others. Sizes in millimetres tell the
    phase, so that `scale` is small.

    Attributes:
        rotation: radians at most, either way.
        scale: at most larger or smaller by this part.
        shift: at most, in each direction, as a part of the side.
        elastic: standard deviation of the displacements of a smooth random field at most, as a part of the side.
        gamma: at most, of its logarithm.
        contrast: at most, of its logarithm.
        brightness: at most brighter or darker, of a range of 2.
        blur: at most; 1 is a binomial filter of 3 x 3 pixels, and as much sharpening is drawn up to a half.
        noise: standard deviation of white noise at most, of a range of 2.
    """

    rotation: float = math.radians(30)
    scale: float = 0.08
    shift: float = 0.1
    elastic: float = 0.02
    gamma: float = 0.4
    contrast: float = 0.3
    brightness: float = 0.2
    blur: float = 1.0
    noise: float = 0.06

    def __call__(self, batch: SliceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment the images and masks of a batch with random numbers of each slice's own.

        Returns:
            Images (B, 1, H, H), about in [-1, 1], and masks (B, H, H).
        """
        images, device, size = batch.images, batch.images.device, batch.images.shape[-1]
        draws = batch.draw(lambda n: torch.rand(n, 9, device=device))
        field = batch.draw(lambda n: torch.randn(n, 2, 5, 5, device=device))
        grain = batch.draw(lambda n: torch.randn(n, 1, size, size, device=device))
        angle, scale, across, down, gamma, contrast, brightness = (2 * draws[:, :7] - 1).unbind(1)
        elastic, noise = draws[:, 7:].unbind(1)

        # Geometry: one sampling for all of it.
        grid = _affine(
            images, self.rotation * angle, (1 + self.scale) ** -scale, self.shift * across, self.shift * down
        )
        field = F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)
        grid = grid + (2 * self.elastic * elastic)[:, None, None, None] * field.permute(0, 2, 3, 1)
        images, masks = _sample(images, batch.masks, grid, "spectral")

        # Grey values.
        sharpness = batch.draw(lambda n: torch.rand(n, device=device))
        each = (slice(None), None, None, None)
        images = images + (self.blur * (1.5 * sharpness - 0.5))[each] * (_blur(images) - images)
        images = 2 * ((images + 1) / 2).clamp(1e-6, 1) ** torch.exp(self.gamma * gamma)[each] - 1
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (
            mean + (images - mean) * torch.exp(self.contrast * contrast)[each] + (self.brightness * brightness)[each]
        )
        return images + (self.noise * noise)[each] * grain, masks


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


def _affine(
    images: torch.Tensor, angle: torch.Tensor, zoom: torch.Tensor, across: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Where the pixels of rotated, scaled and shifted images (B, C, H, W) come from, (B, H, W, 2).

    Args:
        images: the images.
        angle: radians, (B,).
        zoom: how much of the image is seen, as a part of the side, (B,).
        across: as a part of the side, (B,).
        down: likewise.
    """
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    matrix = torch.stack([cosine, -sine, 2 * across, sine, cosine, 2 * down], dim=1)  # the grid is 2 wide
    return F.affine_grid(matrix.view(-1, 2, 3), list(images.shape), align_corners=False)


def _sample(
    images: torch.Tensor, masks: torch.Tensor, grid: torch.Tensor, interpolation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 1, H, W) and masks (B, H, W) at the places of a grid (B, H, W, 2); edges are repeated."""
    options: dict[str, Any] = {"padding_mode": "border", "align_corners": False}
    if interpolation == "spectral":
        half_pixel = 1 / (2 * images.shape[-1])  # where twice as many pixels have their centres
        moved = F.grid_sample(_double(images), grid - half_pixel, mode="bicubic", **options)
    else:
        moved = F.grid_sample(images, grid, mode=interpolation, **options)
    moved_masks = F.grid_sample(masks.unsqueeze(1).to(images.dtype), grid, mode="nearest", **options)
    return moved, moved_masks.squeeze(1).to(masks.dtype)


def _blur(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 1, H, W) after a binomial filter of 3 x 3 pixels; edges are repeated."""
    weights = torch.tensor([1.0, 2.0, 1.0], device=images.device) / 4
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), (weights[:, None] * weights)[None, None])


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
