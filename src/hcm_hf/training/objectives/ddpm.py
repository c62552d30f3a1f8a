"""The study's DDPM loss: the error of the predicted noise."""

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.schedulers import convert_scheduler, linear_schedule
from hcm_hf.training.objectives.base import Objective, fixed_noise_loss


class Diffusion(Objective):
    """The simplified denoising loss, https://huggingface.co/papers/2006.11239 (equation 14; the study's 9 to 12).

    Args:
        unet: predicts the noise in noisy images.
    """

    sampled = "unet"

    def __init__(self, unet: UNet2DModel):
        super().__init__()
        self.unet = unet
        self.scheduler = linear_schedule()

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the error of the predicted noise at a random timestep for each image (algorithm 1)."""
        num_timesteps, device = self.scheduler.config.num_train_timesteps, batch.images.device
        timesteps = batch.draw(lambda n: torch.randint(num_timesteps, (n,), device=device))
        noise = batch.draw(lambda n: torch.randn(n, *batch.images.shape[1:], device=device))
        yield "unet", self.loss(batch.images, noise, timesteps)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same at fixed noise and at timesteps that are spread evenly, four for each image."""
        return fixed_noise_loss(self.loss, self.scheduler, batch.images.repeat(4, 1, 1, 1))

    def loss(self, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the noise predicted in images (B, 1, H, W) at timesteps (B,)."""
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        return F.mse_loss(self.unet(noisy, timesteps).sample.float(), noise)

    def pipeline(self) -> DDPMPipeline:
        """A stock diffusers pipeline."""
        return DDPMPipeline(self.unet, self.scheduler)

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """As the base class, in 50 steps instead of a thousand."""
        pipeline: HCMPipeline = DDPMPipeline(self.unet, convert_scheduler(self.scheduler, "ddpm")[0])
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return pipeline(16, generator, num_inference_steps=50, output_type="np").images
