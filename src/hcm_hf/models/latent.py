"""What VAE and GANs have in common: images are a function of one latent vector each."""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from hcm_hf.utils.errors import InputError


class LatentModel(ModelMixin, ConfigMixin):
    """A network that decodes latents to images; `LatentPipeline` holds one.

    A subclass registers its constructor as config, with at least `sample_size` (pixels a side) and `latent_dim`, and
    defines `decode`.
    """

    @property
    def default_class(self) -> str | None:
        """The class of images for which none is asked; None for a network without classes."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that can be asked for; none for a network without classes."""
        return ()

    @property
    def num_codes(self) -> tuple[int, int]:
        """Number of values of the categorical code and of continuous codes; 0 for a network without them."""
        return 0, 0

    def set_codes(
        self, latents: torch.Tensor, category: int | None = None, continuous: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Latents with other codes: a network without codes takes None alone.

        Args:
            latents: (B, latent_dim).
            category: value of the categorical code, from 0; None leaves it.
            continuous: value of each continuous code, in [-1, 1]; None leaves them.

        Raises:
            InputError: if the network has no such code or value.
        """
        if category is not None or continuous is not None:
            raise InputError(f"Codes given, but {type(self).__name__} has no codes.")
        return latents

    def sample_latents(
        self, batch_size: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Draw latents (B, latent_dim) from the prior, a standard normal unless a subclass says otherwise.

        Args:
            batch_size: number of latents.
            generator: source of randomness; a list gives each latent its own.
        """
        shape = (batch_size, self.config.latent_dim)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)

    def prepare_class_labels(
        self, class_labels: str | int | Sequence[str | int] | torch.Tensor | None, batch_size: int
    ) -> torch.Tensor | None:
        """Turn what a user calls a class into indices (batch_size,); a network without classes takes None alone.

        Raises:
            InputError: if the network has no such class.
        """
        if class_labels is not None:
            raise InputError(f"class_labels {class_labels} given, but {type(self).__name__} has no classes.")
        return None

    def controls(self, latents: torch.Tensor) -> dict[str, tuple[torch.Tensor, str | None]]:
        """Rows of images to ask for that show what a user can control: none, unless a subclass has more than noise.

        Args:
            latents: (N, latent_dim), what the rows have in common.

        Returns:
            By the row's name, the `latents` and the `class_labels` of its images.
        """
        return {}

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Turn latents (B, latent_dim) into images (B, 1, sample_size, sample_size) in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode.")

    def forward(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Decode; what is called, so that hooks and `torch.compile` see it."""
        return self.decode(latents, class_labels)
