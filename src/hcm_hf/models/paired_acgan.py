"""The tuned AC-GAN: slices with their segmentations, for a label of words and a wall thickness.

Both networks keep DCGAN's shape (https://huggingface.co/papers/1511.06434): four convolutions between 4 pixels a side
and 64, five at 128. What a slice is to show enters every block of the generator as the scale and shift of its
normalisation (https://huggingface.co/papers/1707.00683), and the discriminator as a projection
(https://huggingface.co/papers/1802.05637) beside the heads that make an AC-GAN (https://huggingface.co/papers/1610.09585).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from hcm_hf.models.conditioning import ConditionEmbedding
from hcm_hf.models.dcgan import initialize, num_levels
from hcm_hf.models.latent import LatentModel
from hcm_hf.models.unet import PAIR_CHANNELS
from hcm_hf.utils.arguments import one_of


class PairedACGANGenerator(LatentModel):
    """Latents, labels and wall thicknesses to slices with their segmentations.

    Args:
        num_labels: number of labels; one more, the last, leaves everything open.
        sample_size: pixels a side, a power of two, at least 8.
        latent_dim: length of a latent vector, standard normal.
        base_channels: width at the full size; it doubles at each level below, up to `max_channels`.
        max_channels: the greatest width.
        smooth_from: pixels a side from which on a convolution follows each block that doubles the size.
        upsampling: how the size is doubled: "nearest", by repeating pixels before a convolution, which leaves no grid
            (https://distill.pub/2016/deconv-checkerboard), or "transposed", by a transposed convolution.
        condition_dim: length of the vector that stands for what is asked for.
    """

    @register_to_config
    def __init__(
        self,
        num_labels: int,
        sample_size: int = 64,
        latent_dim: int = 100,
        base_channels: int = 32,
        max_channels: int = 256,
        smooth_from: int = 32,
        condition_dim: int = 64,
        upsampling: str = "transposed",
    ):
        super().__init__()
        one_of("upsampling", upsampling, UPSAMPLING)
        levels = num_levels(sample_size)
        widths = [min(base_channels * 2**level, max_channels) for level in reversed(range(levels + 1))]
        self.embed = ConditionEmbedding(num_labels, condition_dim)
        self.project = nn.Linear(latent_dim + condition_dim, widths[0] * 16, bias=False)
        self.norm = ConditionalNorm(widths[0], condition_dim)
        self.up_blocks = nn.ModuleList()
        for level, (wider, narrower) in enumerate(zip(widths, widths[1:], strict=False)):
            self.up_blocks.append(Upsample(wider, narrower, condition_dim, upsampling))
            if 8 * 2**level >= smooth_from:
                self.up_blocks.append(Smooth(narrower, condition_dim))
        self.to_pair = nn.Conv2d(widths[-1], PAIR_CHANNELS, kernel_size=3, padding=1)
        self.apply(initialize)

    def decode(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        wall_thickness: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Make pairs.

        Args:
            latents: (B, latent_dim).
            class_labels: int64 (B,); by default the one that leaves everything open.
            wall_thickness: mm, (B,), not a number where it is left open; by default everywhere.

        Returns:
            (B, 4, H, W) in [-1, 1]: the image, and for each structure 1 where it is and -1 elsewhere.
        """
        if class_labels is None:
            class_labels = torch.full((len(latents),), self.config.num_labels, device=latents.device)
        if wall_thickness is None:
            wall_thickness = latents.new_full((len(latents),), torch.nan)
        asked = self.embed(class_labels, wall_thickness)  # (B, condition_dim)
        hidden = self.project(torch.cat([latents, asked.to(latents)], dim=1))  # (B, 16 C)
        hidden = hidden.unflatten(1, (-1, 4, 4))  # (B, C, 4, 4)
        hidden = F.relu(self.norm(hidden, asked))
        for block in self.up_blocks:
            hidden = block(hidden, asked)  # (B, C, H, W), in the end (B, base_channels, sample_size, sample_size)
        return torch.tanh(self.to_pair(hidden))  # (B, 4, H, W)

    def forward(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        wall_thickness: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `decode`."""
        return self.decode(latents, class_labels, wall_thickness)


class PairVerdict(NamedTuple):
    """What the discriminator says of B pairs."""

    logits: torch.Tensor  # (B,), higher where a pair looks real, and like what it is said to show
    answers: tuple[torch.Tensor, ...]  # of each question, (B, answers)
    walls: torch.Tensor  # thickness over `LARGEST_WALL`, (B,)


class PairedACGANDiscriminator(ModelMixin, ConfigMixin):
    """Slices with their segmentations, and what they are said to show, to a `PairVerdict`.

    It has no normalisation, so that the gradient penalties see each pair by itself.

    Args:
        answers: number of answers to each question that a label answers; their product is the number of labels.
        sample_size: pixels a side, a power of two, at least 8.
        base_channels: width after the first layer; it doubles at each level above, up to `max_channels`.
        max_channels: the greatest width.
        batch_spread: whether the last convolution is shown how much the pairs of the batch differ, so that a generator
            that draws the same again and again is found out (https://huggingface.co/papers/1710.10196, section 3).
    """

    @register_to_config
    def __init__(
        self,
        answers: Sequence[int],
        sample_size: int = 64,
        base_channels: int = 48,
        max_channels: int = 256,
        batch_spread: bool = False,
    ):
        super().__init__()
        widths = [min(base_channels * 2**level, max_channels) for level in range(num_levels(sample_size))]
        self.from_pair = nn.Conv2d(PAIR_CHANNELS, widths[0], kernel_size=4, stride=2, padding=1)
        self.down_blocks = nn.ModuleList(
            nn.Conv2d(narrower, wider, kernel_size=4, stride=2, padding=1)
            for narrower, wider in zip(widths, widths[1:], strict=False)
        )
        width = widths[-1]
        self.mix = nn.Conv2d(width + batch_spread, width, kernel_size=4)
        for conv in (self.from_pair, *self.down_blocks, self.mix):  # nothing else keeps the signal's size
            nn.init.kaiming_normal_(conv.weight, a=0.2)
        self.to_logit = nn.Linear(width, 1, bias=False)  # a constant tells no pair from another
        self.embed = ConditionEmbedding(math.prod(answers), width)
        self.to_answers = nn.ModuleList(nn.Linear(width, count) for count in answers)
        self.to_wall = nn.Linear(width, 1)

    def forward(self, pairs: torch.Tensor, class_labels: torch.Tensor, wall_thickness: torch.Tensor) -> PairVerdict:
        """Score pairs.

        Args:
            pairs: (B, 4, H, W).
            class_labels: int64 (B,).
            wall_thickness: mm, (B,), not a number where it is not given.
        """
        hidden = F.leaky_relu(self.from_pair(pairs), 0.2)  # (B, C, H / 2, W / 2)
        for block in self.down_blocks:
            hidden = F.leaky_relu(block(hidden), 0.2)  # (B, 2 C, H / 2, W / 2)
        if self.config.batch_spread:
            hidden = _with_spread(hidden)  # one channel more
        features = F.leaky_relu(self.mix(hidden), 0.2).flatten(1)  # (B, C)
        condition = self.embed(class_labels, wall_thickness)  # (B, C)
        logits = self.to_logit(features).squeeze(1) + (features * condition).sum(1) / features.shape[1] ** 0.5
        return PairVerdict(
            logits, tuple(head(features) for head in self.to_answers), self.to_wall(features).squeeze(1)
        )


def _with_spread(hidden: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) with one channel more: the mean standard deviation over the batch."""
    spread = (hidden.var(dim=0, correction=0) + 1e-8).sqrt().mean()
    return torch.cat([hidden, spread.expand_as(hidden[:, :1])], dim=1)


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and shift depend on a vector.

    Args:
        num_channels: of what is normalised.
        condition_dim: length of the vector.
    """

    def __init__(self, num_channels: int, condition_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(num_channels)
        self.modulate = nn.Linear(condition_dim, 2 * num_channels)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W) for conditions (B, condition_dim)."""
        scale, shift = self.modulate(condition.to(hidden))[:, :, None, None].chunk(2, dim=1)
        return self.norm(hidden) * (1 + scale) + shift


class Upsample(nn.Module):
    """Features (B, in_channels, H, W) to (B, out_channels, 2 H, 2 W).

    Args:
        in_channels: width before.
        out_channels: width after.
        condition_dim: length of the vector that the normalisation depends on.
        upsampling: how, one of `UPSAMPLING`.
    """

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, upsampling: str):
        super().__init__()
        self.conv = UPSAMPLING[upsampling](in_channels, out_channels)
        self.norm = ConditionalNorm(out_channels, condition_dim)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Twice the size."""
        return F.relu(self.norm(self.conv(hidden), condition))


def _transposed(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False)


def _nearest(in_channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2), conv)


# Features (B, in_channels, H, W) to (B, out_channels, 2 H, 2 W).
UPSAMPLING = {"transposed": _transposed, "nearest": _nearest}


class Smooth(nn.Module):
    """A convolution at the size of its input, which smooths the grid that a transposed one leaves.

    Args:
        channels: width before and after.
        condition_dim: length of the vector that the normalisation depends on.
    """

    def __init__(self, channels: int, condition_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = ConditionalNorm(channels, condition_dim)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The same size."""
        return F.relu(self.norm(self.conv(hidden), condition))
