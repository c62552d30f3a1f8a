"""GAN: fully connected generator and discriminator, https://huggingface.co/papers/1406.2661.

Sizes are those of the authors' code for MNIST: two hidden layers of 1,200 rectified units in the generator, two of 240
maxout units of five pieces in the discriminator. The authors' dropout is left out: the gradient penalty and the label
smoothing of this package's recipe regularise the discriminator already.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hcm_hf.models.latent import LatentModel


class GANGenerator(LatentModel):
    """Latents (B, latent_dim) to images (B, 1, sample_size, sample_size) in [-1, 1].

    Args:
        sample_size: pixels a side.
        latent_dim: length of a latent vector, standard normal.
        hidden_dim: units of each of the two hidden layers.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, latent_dim: int = 100, hidden_dim: int = 1200):
        super().__init__()
        self.from_latent = nn.Linear(latent_dim, hidden_dim)
        self.hidden = nn.Linear(hidden_dim, hidden_dim)
        self.to_image = nn.Linear(hidden_dim, sample_size**2)

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Latents (B, latent_dim) to images (B, 1, H, W) in [-1, 1]; `class_labels` have no part in it."""
        hidden = torch.relu(self.from_latent(latents))  # (B, hidden_dim)
        hidden = torch.relu(self.hidden(hidden))
        images = torch.tanh(self.to_image(hidden))  # (B, H W)
        return images.unflatten(1, (1, self.config.sample_size, self.config.sample_size))


class GANDiscriminator(ModelMixin, ConfigMixin):
    """Images (B, 1, sample_size, sample_size) in [-1, 1] to logits (B,), positive where an image looks real.

    Args:
        sample_size: pixels a side.
        hidden_dim: maxout units of each of the two hidden layers.
        num_pieces: linear pieces of each unit, of which the largest counts.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, hidden_dim: int = 240, num_pieces: int = 5):
        super().__init__()
        self.from_image = nn.Linear(sample_size**2, hidden_dim * num_pieces)
        self.hidden = nn.Linear(hidden_dim, hidden_dim * num_pieces)
        self.to_logit = nn.Linear(hidden_dim, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, H, W) to logits (B,)."""
        pieces = (-1, self.config.num_pieces)
        hidden = self.from_image(images.flatten(1)).unflatten(1, pieces).amax(2)  # (B, hidden_dim)
        hidden = self.hidden(hidden).unflatten(1, pieces).amax(2)
        return self.to_logit(hidden).squeeze(1)  # (B,)
