"""The VAE with a mixture of normal distributions for a prior, which is fitted to what its encoder says of images."""

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor

from hcm_hf.models.vae import VAE


class MixtureVAE(VAE):
    """A VAE whose latents are sampled from a mixture of Gaussians, saved with it; N(0, 1) until `set_prior` is called.

    Args:
        sample_size: pixels a side, a power of two, at least 8.
        latent_dim: length of a latent vector.
        base_channels: width at the image's side; it doubles at each level.
        num_components: of the mixture.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, latent_dim: int = 64, base_channels: int = 32, num_components: int = 8):
        super().__init__(sample_size, latent_dim, base_channels)
        self.register_buffer("component_weights", torch.full((num_components,), 1 / num_components))
        self.register_buffer("component_means", torch.zeros(num_components, latent_dim))
        self.register_buffer("component_factors", torch.eye(latent_dim).repeat(num_components, 1, 1))

    def set_prior(self, weights: torch.Tensor, means: torch.Tensor, factors: torch.Tensor) -> None:
        """Sample from another mixture.

        Args:
            weights: of the K components, (K,), their sum being 1.
            means: (K, latent_dim).
            factors: lower Cholesky factors of the covariances, (K, latent_dim, latent_dim).
        """
        self.component_weights.copy_(weights)
        self.component_means.copy_(means)
        self.component_factors.copy_(factors)

    def sample_latents(
        self, batch_size: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Draw latents (B, latent_dim) from the mixture; see `LatentModel.sample_latents`."""
        # Normal numbers throughout, so that each latent takes the same stretch of its own generator.
        normal = randn_tensor((batch_size, self.config.latent_dim + 1), generator, self.device, self.dtype)
        normal, choice = normal[:, :-1], normal[:, -1].float()
        uniform = torch.erfc(-choice / 2**0.5) / 2  # the normal distribution function
        bounds = self.component_weights.float().cumsum(0)[:-1]
        component = torch.searchsorted(bounds, uniform, right=True)  # (B,)
        factors = self.component_factors[component]  # (B, latent_dim, latent_dim)
        return self.component_means[component] + (factors @ normal.unsqueeze(2)).squeeze(2)
