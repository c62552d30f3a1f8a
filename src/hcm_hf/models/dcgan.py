"""DCGAN: all-convolutional generator and discriminator, https://huggingface.co/papers/1511.06434.

Strided convolutions instead of pooling, no hidden dense layers, batch normalisation in both networks, ReLU in the
generator and LeakyReLU in the discriminator. Widths are those of the authors' code for 64 pixels: 64, doubled at each
level.
"""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hcm_hf.models.latent import LatentModel


class DCGANGenerator(LatentModel):
    """Latents (B, latent_dim) to images (B, 1, sample_size, sample_size) in [-1, 1].

    Args:
        sample_size: pixels a side, a power of two, at least 8.
        latent_dim: length of a latent vector, standard normal.
        base_channels: width before the last layer; it doubles at each level below.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, latent_dim: int = 100, base_channels: int = 64):
        super().__init__()
        widths = [base_channels * 2**level for level in reversed(range(num_levels(sample_size)))]
        self.project = nn.ConvTranspose2d(latent_dim, widths[0], kernel_size=4, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.up_blocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(narrower * 2, narrower, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(narrower),
                nn.ReLU(),
            )
            for narrower in widths[1:]
        )
        self.to_image = nn.ConvTranspose2d(widths[-1], 1, kernel_size=4, stride=2, padding=1)
        self.apply(initialize)

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Latents (B, latent_dim) to images (B, 1, H, W) in [-1, 1]; `class_labels` have no part in it."""
        hidden = latents[:, :, None, None]  # (B, latent_dim, 1, 1)
        hidden = torch.relu(self.norm(self.project(hidden)))  # (B, C, 4, 4)
        for block in self.up_blocks:
            hidden = block(hidden)  # (B, C / 2, 2 H, 2 W)
        return torch.tanh(self.to_image(hidden))  # (B, 1, H, W)


class DCGANDiscriminator(ModelMixin, ConfigMixin):
    """Images (B, 1, sample_size, sample_size) in [-1, 1] to logits (B,), positive where an image looks real.

    Args:
        sample_size: pixels a side, a power of two, at least 8.
        base_channels: width after the first layer; it doubles at each level above.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, base_channels: int = 64):
        super().__init__()
        widths = [base_channels * 2**level for level in range(num_levels(sample_size))]
        self.from_image = nn.Conv2d(1, widths[0], kernel_size=4, stride=2, padding=1)
        self.down_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wider // 2, wider, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(0.2),
            )
            for wider in widths[1:]
        )
        self.to_logit = nn.Conv2d(widths[-1], 1, kernel_size=4)
        self.apply(initialize)

    @property
    def num_features(self) -> int:
        """Channels of `features`."""
        return self.to_logit.in_channels

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, H, W) to the features (B, num_features, 4, 4) that heads may read."""
        hidden = nn.functional.leaky_relu(self.from_image(images), 0.2)  # (B, C, H / 2, W / 2)
        for block in self.down_blocks:
            hidden = block(hidden)  # (B, 2 C, H / 2, W / 2)
        return hidden

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, H, W) to logits (B,)."""
        return self.to_logit(self.features(images)).flatten()  # (B, 1, 1, 1) -> (B,)


def num_levels(sample_size: int) -> int:
    """How often `sample_size` halves on the way to 4 pixels.

    Raises:
        ValueError: if it is not a power of two of at least 8.
    """
    levels = int(math.log2(sample_size / 4)) if sample_size >= 8 else 0
    if levels == 0 or 4 * 2**levels != sample_size:
        raise ValueError(f"sample_size is {sample_size}; it must be a power of two of at least 8.")
    return levels


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02), normalisation scales from N(1, 0.02), biases zero (section 4 of the paper)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
