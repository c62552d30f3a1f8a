"""The base class of VAE and GAN generators: each image is a function of one latent vector."""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from hcm_hf.utils.errors import InputError


Generators = torch.Generator | list[torch.Generator] | None  # a list gives each image its own


class LatentModel(ModelMixin, ConfigMixin):
    """A network that decodes latents to images; `LatentPipeline` holds one.

    A subclass registers its constructor as config, with at least `sample_size` (pixels a side) and `latent_dim`, and
    defines `decode`.
    """

    @property
    def default_class(self) -> str | None:
        """The class used if none is given; None for a network without classes."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; empty for a network without classes."""
        return ()

    @property
    def num_codes(self) -> tuple[int, int]:
        """Number of values of the categorical code, and number of continuous codes; 0 for a network without them."""
        return 0, 0

    def set_codes(
        self, latents: torch.Tensor, category: int | None = None, continuous: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Latents (B, latent_dim) with other codes; a network without codes accepts only None, which leaves them.

        Args:
            latents: (B, latent_dim).
            category: value of the categorical code, from 0.
            continuous: value of each continuous code, in [-1, 1].

        Raises:
            InputError: if the network has no such code or value.
        """
        if category is not None or continuous is not None:
            raise InputError(f"Codes given, but {type(self).__name__} has no codes.")
        return latents

    def sample_latents(self, batch_size: int, generator: Generators = None) -> torch.Tensor:
        """Draw latents (B, latent_dim) from the prior, a standard normal unless a subclass says otherwise."""
        shape = (batch_size, self.config.latent_dim)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)

    def prepare_class_labels(
        self, class_labels: str | int | Sequence[str | int] | torch.Tensor | None, batch_size: int
    ) -> torch.Tensor | None:
        """Turn class names or indices into indices (batch_size,); a network without classes accepts only None.

        Raises:
            InputError: if the network has no such class.
        """
        if class_labels is not None:
            raise InputError(f"class_labels {class_labels} given, but {type(self).__name__} has no classes.")
        return None

    def controls(self, latents: torch.Tensor) -> dict[str, tuple[torch.Tensor, str | None]]:
        """Rows of images that show what a user can control: none, unless a subclass has more than noise.

        By the row's name, the `latents` and the `class_labels` to ask for; the rows have `latents` (N, latent_dim) in
        common.
        """
        return {}

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Turn latents (B, latent_dim) into images (B, 1, sample_size, sample_size) in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode.")

    def forward(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Decode; what is called, so that hooks and `torch.compile` see it."""
        return self.decode(latents, class_labels)
