"""VAE: convolutional encoder to a Gaussian over latents, and a decoder; https://huggingface.co/papers/1312.6114.

The paper's networks are fully connected; these are the usual convolutional ones, strided like DCGAN's but without
batch normalisation.
"""

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from hcm_hf.models.dcgan import num_levels
from hcm_hf.models.latent import Generators, LatentModel


class VAE(LatentModel):
    """Images to the mean and log-variance of their latents, and latents (B, latent_dim) back to images.

    >>> reconstructions = vae.reconstruct(images)  # (B, 1, H, W) in [-1, 1], as `images`

    Args:
        sample_size: pixels a side, a power of two, at least 8.
        latent_dim: length of a latent vector, standard normal.
        base_channels: width at the image's side; it doubles at each level.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, latent_dim: int = 64, base_channels: int = 32):
        super().__init__()
        widths = [base_channels * 2**level for level in range(num_levels(sample_size))]
        self.from_image = nn.Conv2d(1, widths[0], kernel_size=4, stride=2, padding=1)
        self.down_blocks = nn.ModuleList(
            nn.Conv2d(wider // 2, wider, kernel_size=4, stride=2, padding=1) for wider in widths[1:]
        )
        self.to_moments = nn.Linear(widths[-1] * 16, 2 * latent_dim)
        self.from_latent = nn.Linear(latent_dim, widths[-1] * 16)
        self.up_blocks = nn.ModuleList(
            nn.ConvTranspose2d(narrower * 2, narrower, kernel_size=4, stride=2, padding=1)
            for narrower in reversed(widths[:-1])
        )
        self.to_image = nn.ConvTranspose2d(widths[0], 1, kernel_size=4, stride=2, padding=1)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W) in [-1, 1] to the mean and the log-variance of q(z | x), both (B, latent_dim)."""
        hidden = torch.relu(self.from_image(images))  # (B, C, H / 2, W / 2)
        for block in self.down_blocks:
            hidden = torch.relu(block(hidden))  # (B, 2 C, H / 2, W / 2)
        mean, log_variance = self.to_moments(hidden.flatten(1)).chunk(2, dim=1)  # (B, latent_dim) each
        return mean, log_variance

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Latents (B, latent_dim) to images (B, 1, H, W) in [-1, 1]; `class_labels` have no part in it."""
        hidden = torch.relu(self.from_latent(latents)).unflatten(1, (-1, 4, 4))  # (B, C, 4, 4)
        for block in self.up_blocks:
            hidden = torch.relu(block(hidden))  # (B, C / 2, 2 H, 2 W)
        return torch.tanh(self.to_image(hidden))  # (B, 1, H, W)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstruction of images (B, 1, H, W) from the mean of their latents, in the same shape and range."""
        mean, _ = self.encode(images)
        return self.decode(mean)


class MixtureVAE(VAE):
    """A VAE whose latents are sampled from a mixture of Gaussians, saved with it; N(0, 1) until `set_prior` is called.

    Args:
        sample_size, latent_dim, base_channels: as in `VAE`.
        num_components: number of Gaussians in the mixture.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, latent_dim: int = 64, base_channels: int = 32, num_components: int = 8):
        super().__init__(sample_size, latent_dim, base_channels)
        self.register_buffer("component_weights", torch.full((num_components,), 1 / num_components))
        self.register_buffer("component_means", torch.zeros(num_components, latent_dim))
        self.register_buffer("component_factors", torch.eye(latent_dim).repeat(num_components, 1, 1))

    def set_prior(self, weights: torch.Tensor, means: torch.Tensor, factors: torch.Tensor) -> None:
        """Set the mixture that latents are sampled from.

        Args:
            weights: of the K components, (K,), with sum 1.
            means: (K, latent_dim).
            factors: lower Cholesky factors of the covariances, (K, latent_dim, latent_dim).
        """
        self.component_weights.copy_(weights)
        self.component_means.copy_(means)
        self.component_factors.copy_(factors)

    def sample_latents(self, batch_size: int, generator: Generators = None) -> torch.Tensor:
        """Draw latents (B, latent_dim) from the mixture; see `LatentModel.sample_latents`."""
        # Normal numbers throughout, so that each latent takes the same stretch of its own generator.
        normal = randn_tensor((batch_size, self.config.latent_dim + 1), generator, self.device, self.dtype)
        normal, choice = normal[:, :-1], normal[:, -1].float()
        uniform = torch.erfc(-choice / 2**0.5) / 2  # the normal distribution function
        bounds = self.component_weights.float().cumsum(0)[:-1]
        component = torch.searchsorted(bounds, uniform, right=True)  # (B,)
        factors = self.component_factors[component]  # (B, latent_dim, latent_dim)
        return self.component_means[component] + (factors @ normal.unsqueeze(2)).squeeze(2)
