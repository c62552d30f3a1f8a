"""AC-GAN: a generator of classes and a discriminator that tells them apart, https://huggingface.co/papers/1610.09585.

The layers are DCGAN's. The generator's widths are the paper's for CIFAR-10, 384-192-96-48 with the level that 64
pixels need more, and its class is a one-hot vector beside the noise; the discriminator ends in a source and a class
head.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from hcm_hf.models.dcgan import DCGANDiscriminator, DCGANGenerator, initialize
from hcm_hf.models.latent import LatentModel
from hcm_hf.utils.errors import InputError


class ACGANGenerator(LatentModel):
    """Latents (B, latent_dim) and classes (B,) to images (B, 1, sample_size, sample_size) in [-1, 1].

    Args:
        class_names: the classes, in the order of their indices.
        default_class: the class used if none is given.
        sample_size, latent_dim, base_channels: as in `DCGANGenerator`.

    Raises:
        ValueError: if two classes share a name, or `default_class` is none of them.
    """

    @register_to_config
    def __init__(
        self,
        class_names: Sequence[str],
        default_class: str,
        sample_size: int = 64,
        latent_dim: int = 100,
        base_channels: int = 48,
    ):
        super().__init__()
        if len(set(class_names)) != len(class_names) or not all(isinstance(name, str) for name in class_names):
            raise ValueError(f"class_names are {list(class_names)}; they must be names, no two of them the same.")
        if default_class not in class_names:
            raise ValueError(f"default_class is {default_class!r}; it must be one of class_names.")
        self.body = DCGANGenerator(sample_size, latent_dim + len(class_names), base_channels)

    def decode(self, latents: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Latents (B, latent_dim) and class indices, int64 (B,), to images (B, 1, H, W) in [-1, 1]."""
        classes = F.one_hot(class_labels, len(self.config.class_names))  # (B, classes)
        return self.body(torch.cat([latents, classes.to(latents)], dim=1))  # (B, 1, H, W)

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `LatentModel.class_names`."""
        return tuple(self.config.class_names)

    @property
    def default_class(self) -> str:
        """See `LatentModel.default_class`."""
        return self.config.default_class

    def prepare_class_labels(
        self, class_labels: str | int | Sequence[str | int] | torch.Tensor | None, batch_size: int
    ) -> torch.Tensor:
        """Turn class names or indices, one for all images or one for each, into indices (batch_size,).

        Raises:
            InputError: if a class is unknown or their number does not fit.
        """
        names = list(self.config.class_names)
        if class_labels is None:
            class_labels = self.default_class
        if isinstance(class_labels, torch.Tensor | np.ndarray):
            class_labels = class_labels.tolist()
        if not isinstance(class_labels, Sequence) or isinstance(class_labels, str):
            class_labels = [class_labels] * batch_size
        if len(class_labels) != batch_size:
            raise InputError(f"class_labels has {len(class_labels)} entries for {batch_size} images.")
        known = [*names, *range(len(names))]
        for label in class_labels:
            if isinstance(label, float) or label not in known:
                raise InputError(f"Unknown class_labels '{label}'; choose among {', '.join(names)}.")
        return torch.tensor([known.index(label) % len(names) for label in class_labels], device=self.device)

    def controls(self, latents: torch.Tensor) -> dict[str, tuple[torch.Tensor, str | None]]:
        """One row per class, all from the same latents."""
        return {name: (latents, name) for name in self.config.class_names}


class ACGANDiscriminator(ModelMixin, ConfigMixin):
    """Images (B, 1, sample_size, sample_size) in [-1, 1] to source logits (B,) and class logits (B, num_classes).

    Args:
        num_classes: number of classes.
        sample_size, base_channels: as in `DCGANDiscriminator`.
    """

    @register_to_config
    def __init__(self, num_classes: int, sample_size: int = 64, base_channels: int = 32):
        super().__init__()
        self.body = DCGANDiscriminator(sample_size, base_channels)
        self.to_class = nn.Conv2d(self.body.num_features, num_classes, kernel_size=4)
        initialize(self.to_class)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W) to source logits (B,), positive where real, and class logits (B, num_classes)."""
        features = self.body.features(images)  # (B, C, 4, 4)
        return self.body.to_logit(features).flatten(), self.to_class(features).flatten(1)
