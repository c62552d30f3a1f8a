"""The pipeline of VAE, GAN, DCGAN, AC-GAN and InfoGAN: images from latents in one call of one network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import ImagePipelineOutput

from hcm_hf.models import LATENT_MODELS, LatentModel
from hcm_hf.models.latent import Generators
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import Conditions
from hcm_hf.pipelines.sampling import one_of
from hcm_hf.utils.errors import InputError


class LatentPipeline(HCMPipeline):
    """Images from latents in one call of one network: VAE, GAN, DCGAN, AC-GAN and InfoGAN.

    Args:
        network: the decoder or generator.
    """

    model_cpu_offload_seq = "network"
    network_name = "network"
    network_classes = LATENT_MODELS

    def __init__(self, network: LatentModel):
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def _build(cls, folder: Path, index: dict, network: LatentModel) -> "LatentPipeline":
        return cls(network)

    @staticmethod
    def _call_once(network: LatentModel) -> torch.Tensor:
        return network(torch.zeros(1, network.config.latent_dim), network.prepare_class_labels(None, 1))

    @property
    def conditions(self) -> Conditions:
        """The group, for a network with classes."""
        names = self.network.class_names
        if not names:
            return super().conditions
        return Conditions({"group": names}, (1.0,) * len(names), {"group": self.network.default_class})

    @property
    def num_codes(self) -> tuple[int, int]:
        """See `HCMPipeline.num_codes`."""
        return self.network.num_codes

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        class_labels: str | int | Sequence[str | int] | np.ndarray | torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        conditions: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Generate images.

        Args:
            batch_size: number of images; with `latents`, their number instead.
            generator: source of randomness; a list gives each image its own.
            latents: (B, latent_dim), to be used instead of random ones.
            class_labels: for a network with classes, the class of all images or of each; names or indices.
            output_type: "pil" (mode L), "np" (B, H, W, 1) in [0, 1] or "pt" (B, 1, H, W) in [0, 1].
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.
            conditions: the class in words, {"group": "HCM"}, for all images or a list with one entry each; "any"
                draws it. In place of `class_labels`.

        Raises:
            InputError: if an argument does not fit the network; it names the argument.
        """
        self._check_output_type(output_type)
        one_of(conditions=conditions, class_labels=class_labels)
        if latents is None:
            self._check_batch(batch_size, generator)
            latents = self.network.sample_latents(batch_size, generator)
        else:
            self._check_latents(latents)
        latents = latents.to(self._execution_device, self.network.dtype)
        if conditions is not None:
            drawn = self.conditions.draw(conditions, len(latents), generator)
            class_labels = drawn if self.conditions.axes else None
        labels = self.network.prepare_class_labels(class_labels, len(latents))
        labels = None if labels is None else labels.to(latents.device)

        images = self._convert(self._decode(latents, labels), output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _decode(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Call the network; one that is being trained is put back: batch normalisation samples in eval mode."""
        training = self.network.training
        self.network.eval()
        try:
            return self.network(*inputs)
        finally:
            self.network.train(training)
            self.maybe_free_model_hooks()

    def _check_latents(self, latents: torch.Tensor) -> None:
        if not isinstance(latents, torch.Tensor):
            raise InputError(f"latents are a {type(latents).__name__}; give a torch.Tensor.")
        latent_dim = self.network.config.latent_dim
        if latents.ndim != 2 or len(latents) == 0 or latents.shape[1] != latent_dim:
            raise InputError(f"latents have shape {tuple(latents.shape)}; this model takes (batch, {latent_dim}).")
