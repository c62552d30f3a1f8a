"""InfoGAN: a GAN some of whose latents can be read off its images, https://huggingface.co/papers/1606.03657.

The layers are DCGAN's; noise, codes and the size of the recognition network Q are the paper's for MNIST: 62 noise
variables, one categorical code of ten values, two continuous ones, and 128 hidden units on the discriminator's body.
"""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from torch.nn import functional as F

from hcm_hf.models.dcgan import DCGANDiscriminator, DCGANGenerator, initialize
from hcm_hf.models.latent import Generators, LatentModel
from hcm_hf.utils.errors import InputError


class InfoGANGenerator(LatentModel):
    """Latents (B, latent_dim) to images (B, 1, sample_size, sample_size) in [-1, 1].

    A latent vector is, in this order:

    - noise, standard normal, all numbers but those of the codes;
    - the categorical code, `num_categories` numbers of which one is 1 and all others 0, each as likely;
    - the continuous codes, `num_continuous` numbers, uniform on [-1, 1].

    Args:
        sample_size, base_channels: as in `DCGANGenerator`.
        latent_dim: length of a latent vector, noise and codes together.
        num_categories: number of values of the categorical code.
        num_continuous: number of continuous codes.

    Raises:
        ValueError: if `latent_dim` is too short for the codes.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        latent_dim: int = 74,
        num_categories: int = 10,
        num_continuous: int = 2,
        base_channels: int = 64,
    ):
        super().__init__()
        if num_categories < 1 or num_continuous < 0 or num_categories + num_continuous > latent_dim:
            raise ValueError(
                f"latent_dim is {latent_dim}; it must hold {num_categories} categories, at least 1, and "
                f"{num_continuous} continuous codes."
            )
        self.body = DCGANGenerator(sample_size, latent_dim, base_channels)

    def sample_latents(self, batch_size: int, generator: Generators = None) -> torch.Tensor:
        """Draw noise and codes, (B, latent_dim), in the layout above; see `LatentModel.sample_latents`."""
        # Normal numbers throughout, so that each latent takes the same stretch of its own generator.
        latents = randn_tensor((batch_size, self.config.latent_dim), generator, self.device, self.dtype)
        noise, category, continuous = self.split_latents(latents)
        category = F.one_hot(category.argmax(1), self.config.num_categories)  # the largest of equals: each as likely
        continuous = torch.erf(continuous / 2**0.5)  # the normal distribution function, scaled to [-1, 1]: uniform
        return torch.cat([noise, category.to(noise), continuous], dim=1)

    def split_latents(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (B, latent_dim) to noise, the categorical code (B, num_categories) and the continuous ones."""
        codes = [self.config.num_categories, self.config.num_continuous]
        noise, category, continuous = torch.split(latents, [self.config.latent_dim - sum(codes), *codes], dim=1)
        return noise, category, continuous

    @property
    def num_codes(self) -> tuple[int, int]:
        """See `LatentModel.num_codes`."""
        return self.config.num_categories, self.config.num_continuous

    def set_codes(
        self, latents: torch.Tensor, category: int | None = None, continuous: Sequence[float] | None = None
    ) -> torch.Tensor:
        """See `LatentModel.set_codes`."""
        noise, old_category, old_continuous = self.split_latents(latents)
        num_categories, num_continuous = self.num_codes
        if category is not None:
            if not 0 <= category < num_categories:
                raise InputError(f"category is {category}; choose from 0 to {num_categories - 1}.")
            old_category = torch.eye(num_categories).to(latents)[category : category + 1]
        if continuous is not None:
            if len(continuous) != num_continuous or not all(-1 <= code <= 1 for code in continuous):
                raise InputError(f"continuous is {list(continuous)}; give {num_continuous} values from -1 to 1.")
            old_continuous = torch.tensor([list(continuous)]).to(latents)
        return self._join(noise, old_category, old_continuous)

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Latents (B, latent_dim) to images (B, 1, H, W) in [-1, 1]; `class_labels` have no part in it."""
        return self.body(latents)

    def controls(self, latents: torch.Tensor) -> dict[str, tuple[torch.Tensor, str | None]]:
        """Rows that differ from the first of `latents` in one code: what each code does.

        The categorical code takes its values in turn, each continuous one goes from -1 to 1 in ten steps.
        """
        noise, category, continuous = self.split_latents(latents[:1])
        values = torch.eye(self.config.num_categories).to(latents)
        rows = {"categorical": self._join(noise, values, continuous)}
        for code in range(self.config.num_continuous):
            varied = continuous.repeat(10, 1)
            varied[:, code] = torch.linspace(-1, 1, 10)
            rows[f"continuous {code + 1}"] = self._join(noise, category, varied)
        return {name: (row, None) for name, row in rows.items()}

    def _join(self, *parts: torch.Tensor) -> torch.Tensor:
        """Parts of one length or of one row, which is repeated, to latents."""
        length = max(map(len, parts))
        return torch.cat([part.expand(length, -1) for part in parts], dim=1)


class InfoGANDiscriminator(ModelMixin, ConfigMixin):
    """Images (B, 1, sample_size, sample_size) in [-1, 1] to logits (B,) and Q's reading of the codes.

    Args:
        sample_size, base_channels: as in `DCGANDiscriminator`.
        num_categories, num_continuous: as in `InfoGANGenerator`.
        hidden_dim: units of Q's hidden layer.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        base_channels: int = 64,
        num_categories: int = 10,
        num_continuous: int = 2,
        hidden_dim: int = 128,
    ):
        super().__init__()
        self.body = DCGANDiscriminator(sample_size, base_channels)
        self.to_hidden = nn.Conv2d(self.body.num_features, hidden_dim, kernel_size=4, bias=False)
        self.norm = nn.BatchNorm2d(hidden_dim)
        self.to_category = nn.Conv2d(hidden_dim, num_categories, kernel_size=1)
        self.to_continuous = nn.Conv2d(hidden_dim, num_continuous, kernel_size=1)
        for layer in (self.to_hidden, self.norm, self.to_category, self.to_continuous):
            initialize(layer)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W) to logits (B,), positive where an image looks real, and to Q.

        Of Q the logits of Q(categorical | x), (B, num_categories), and the means of Q(continuous | x), normal with
        unit variance, (B, num_continuous).
        """
        features = self.body.features(images)  # (B, C, 4, 4)
        hidden = F.leaky_relu(self.norm(self.to_hidden(features)), 0.2)  # (B, hidden_dim, 1, 1)
        category, continuous = self.to_category(hidden).flatten(1), self.to_continuous(hidden).flatten(1)
        return self.body.to_logit(features).flatten(), category, continuous
