"""Differentiable augmentation: discriminators see real and generated slices through the same random changes.

https://huggingface.co/papers/2006.10738, with its colour, translation and cutout for grey images. There are no flips:
the side of the right ventricle is anatomy.
"""

import torch


BRIGHTNESS = 0.5  # at most brighter or darker, of a range of 2
CONTRAST = 0.5  # at most more or less of it, as a part
TRANSLATION = 0.125  # of the side, at most, in each direction
CUTOUT = 0.5  # of the side, of the square that is hidden
NUM_CHANGES = 6  # random numbers for each image


def change_images(images: torch.Tensor, draws: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Images of another brightness and contrast, shifted over grey and with a square hidden: (B, 1, H, H).

    Values may leave [-1, 1]. Gradients flow to all that can still be seen.

    Args:
        images: (B, 1, H, H) in [-1, 1].
        draws: (B, NUM_CHANGES), uniform on [0, 1).
        strength: part of the full range; 0 changes nothing.
    """
    brightness, contrast, down, across, top, left = draws.T
    size = images.shape[-1]
    images = images + (2 * strength * BRIGHTNESS * (brightness - 0.5))[:, None, None, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + 2 * strength * CONTRAST * (contrast - 0.5))[:, None, None, None]

    furthest = round(strength * TRANSLATION * size)
    places = torch.arange(size, device=images.device)
    rows, columns = (  # (B, H): where each line of the shifted image comes from
        places + (shift * (2 * furthest + 1)).long()[:, None] - furthest for shift in (down, across)
    )
    inside = lambda lines: ((lines >= 0) & (lines < size)).to(images)  # noqa: E731
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images[which, 0, rows.clamp(0, size - 1)[:, :, None], columns.clamp(0, size - 1)[:, None, :]]
    moved = moved * inside(rows)[:, :, None] * inside(columns)[:, None, :]

    half = strength * CUTOUT * size / 2
    hidden = [(places - (middle * size)[:, None]).abs() < half for middle in (top, left)]  # (B, H) each
    return (moved * ~(hidden[0][:, :, None] & hidden[1][:, None, :]))[:, None]
