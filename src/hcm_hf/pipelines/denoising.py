"""What the diffusion pipelines share: the loop from noise to images."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor

from hcm_hf.models.latent import Generators
from hcm_hf.utils.errors import InputError


# What diffusers calls after each step: callback(pipeline, step, timestep, tensors), which returns the tensors.
Callback = Callable[[Any, int, torch.Tensor, dict[str, torch.Tensor]], dict[str, torch.Tensor]]


class DenoisingMixin:
    """A pipeline with a `unet` and a `scheduler`."""

    unet: UNet2DModel
    scheduler: SchedulerMixin
    progress_bar: Callable[..., Any]
    _execution_device: torch.device
    _num_timesteps: int
    model_cpu_offload_seq = "unet"
    output_types: ClassVar[tuple[str, ...]] = ("pil", "np", "pt", "latent")
    _callback_tensor_inputs = ["latents"]

    @property
    def num_timesteps(self) -> int:
        """Number of steps of the last call."""
        return self._num_timesteps

    def _draw_noise(self, batch_size: int, generator: Generators) -> torch.Tensor:
        config = self.unet.config
        shape = (batch_size, config.in_channels, config.sample_size, config.sample_size)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

    def _denoise(
        self,
        tensors: dict[str, torch.Tensor],
        predict: Callable[..., torch.Tensor],
        num_inference_steps: int,
        generator: Generators,
        callback: Callback | None,
        tensor_inputs: Sequence[str],
    ) -> torch.Tensor:
        """Denoise `tensors["latents"]` with what `predict(timestep, **tensors)` says; the network is in eval mode."""
        if unknown := [name for name in tensor_inputs if name not in self._callback_tensor_inputs]:
            known = ", ".join(self._callback_tensor_inputs)
            raise InputError(f"callback_on_step_end_tensor_inputs names '{unknown[0]}'; choose among {known}.")
        training = self.unet.training
        self.unet.eval()
        try:
            self.scheduler.set_timesteps(num_inference_steps)
            self._num_timesteps = len(self.scheduler.timesteps)
            for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
                predicted, latents = predict(timestep, **tensors), tensors["latents"]
                latents = self.scheduler.step(predicted, timestep, latents, generator=generator).prev_sample
                tensors = tensors | {"latents": latents}
                if callback is not None:
                    tensors |= callback(self, step, timestep, {name: tensors[name] for name in tensor_inputs}) or {}
        finally:
            self.unet.train(training)
        return tensors["latents"]
