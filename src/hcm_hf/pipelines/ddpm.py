"""The study's DDPM as a pipeline: diffusers' own, with what this package's pipelines have beside."""

from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import DDPMScheduler, ImagePipelineOutput, SchedulerMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor

from hcm_hf.models.latent import Generators
from hcm_hf.pipelines.auto import HCMPipeline, call_unet
from hcm_hf.pipelines.denoising import Callback, DenoisingMixin
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.pipelines.saved import load_scheduler
from hcm_hf.utils.errors import InputError


class DDPMPipeline(DenoisingMixin, HCMPipeline, diffusers.DDPMPipeline):
    """Images from noise. It has the name of its base, so that diffusers alone loads what it saves.

    Args:
        unet: predicts the noise in images.
        scheduler: the noise of training, and how to remove it.
    """

    network_name = "unet"
    network_classes = {"UNet2DModel": UNet2DModel}
    library_name = "diffusers"
    preview_steps = 50
    predicts_noise = True

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin):
        super().__init__(unet, scheduler)

    @classmethod
    def _build(cls, folder: Path, index: dict, network: UNet2DModel) -> "DDPMPipeline":
        if (network.config.in_channels, network.config.out_channels) != (1, 1):
            raise InputError("it makes colour images; this package is for grey ones.")
        return cls(network, load_scheduler(DDPMScheduler, folder / "scheduler"))

    @staticmethod
    def _call_once(network: UNet2DModel) -> torch.Tensor:
        return call_unet(network, None)

    @property
    def sampling_defaults(self) -> Sampling:
        """The study's: a thousand steps of the schedule that it was trained with."""
        return Sampling(scheduler="ddpm", num_inference_steps=1000)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Generate images.

        Args:
            batch_size: number of images.
            generator: source of randomness; a list gives each image its own.
            num_inference_steps: sampling steps, 1000 by default.
            output_type: "pil" (mode L), "np" (B, H, W, 1) in [0, 1], "pt" (B, 1, H, W) in [0, 1] or "latent", what
                the last step gave, in [-1, 1] and beyond.
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.
            callback_on_step_end: called after each step, `callback(pipeline, step, timestep, tensors)`; it returns
                the tensors, which it may replace.
            callback_on_step_end_tensor_inputs: the tensors that it gets; "latents" are the images so far.

        Raises:
            InputError: if an argument does not fit the model; it names the argument.
        """
        self._check_output_type(output_type)
        self._check_batch(batch_size, generator)
        steps = 1000 if num_inference_steps is None else num_inference_steps
        Sampling(num_inference_steps=steps).check(self.scheduler.config.num_train_timesteps)
        latents = self._denoise(
            {"latents": self._draw_noise(batch_size, generator)},
            lambda timestep, latents: self.unet(latents, timestep).sample,
            steps,
            generator,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        self.maybe_free_model_hooks()
        images = self._convert(latents, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def decode(self, latents: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The images (B, 1, H, W) in [0, 1] that `latents` of a callback show, and None in place of masks."""
        return VaeImageProcessor.denormalize(latents.float()), None
