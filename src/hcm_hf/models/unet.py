"""DDPM: diffusers' own U-Net and schedulers at this package's size, https://huggingface.co/papers/2006.11239."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from hcm_hf.utils.errors import InputError


MEMBERSHIP_LEVELS = (0.2, 0.4, 0.6)  # parts of the training steps at which `denoising_errors` looks


def build_unet(
    sample_size: int = 64, block_out_channels: Sequence[int] = (32, 64, 128, 128), layers_per_block: int = 1
) -> UNet2DModel:
    """A one-channel U-Net with self-attention at its lowest level.

    Args:
        sample_size: pixels a side, divisible by two for each level but one, with two left or more.
        block_out_channels: width of each level; multiples of the first, which is a multiple of four.
        layers_per_block: residual blocks per level on the way down; on the way up there is one more.

    Raises:
        ValueError: if the size does not fit the levels.
    """
    levels = len(block_out_channels)
    unit = 2 ** (levels - 1)
    if sample_size % unit or sample_size < 2 * unit:
        raise ValueError(
            f"sample_size is {sample_size}; {levels} levels need a multiple of {unit}, {2 * unit} or more."
        )
    return UNet2DModel(
        sample_size=sample_size,
        in_channels=1,
        out_channels=1,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        norm_num_groups=block_out_channels[0] // 4,  # four channels a group at the first level, as in the paper
    )


def build_scheduler() -> DDPMScheduler:
    """The paper's: 1,000 steps, betas linear from 1e-4 to 0.02, the noise as what is predicted."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="epsilon"
    )


class UniPCScheduler(UniPCMultistepScheduler):
    """UniPC, https://huggingface.co/papers/2302.04867, with the `generator` that `DDPMPipeline` passes to a step."""

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor, ...]:
        """One step; it is deterministic and leaves `generator` alone. See `UniPCMultistepScheduler.step`."""
        return super().step(model_output, timestep, sample, return_dict=return_dict)


class FineDPMSolverScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ whose steps grow shorter towards the image: step i of N ends at i^2 / N^2 of the noise's time.

    The last of evenly spaced steps wipes out whatever is finer than its noise, .09 of the range from black to white in
    20 steps of the cosine schedule, and with it the texture of a slice.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """The timesteps of some calls, from the last of training down. See `DPMSolverMultistepScheduler`."""
        left = np.arange(num_inference_steps, 0, -1)
        timesteps = (self.config.num_train_timesteps * (left / num_inference_steps) ** 2).round().astype(int) - 1
        super().set_timesteps(timesteps=np.maximum(timesteps, left - 1).tolist(), device=device)  # no two are the same


@dataclass(frozen=True)
class Sampler:
    """A way to denoise.

    Attributes:
        scheduler: the class.
        num_inference_steps: by default.
        options: of the scheduler, beyond what the trained one's configuration says.
    """

    scheduler: type[SchedulerMixin]
    num_inference_steps: int
    options: dict[str, bool | int | str]


def _dpm(algorithm_type: str, solver_order: int) -> dict[str, bool | int | str]:
    """All that tells solvers apart: what a model was saved with may be another one's."""
    return {"thresholding": True, "algorithm_type": algorithm_type, "solver_order": solver_order}


# What a trained DDPM can be sampled with. All clip the predicted image to [-1, 1]: DDPM as it is configured, the
# others by thresholding, whose bound is 1 by default. SDE-DPM-Solver++ adds fresh noise at each step, as DDPM does
# (https://huggingface.co/papers/2211.01095, appendix B), here in steps that grow shorter. DDIM is DPM-Solver++ of
# first order (section 4 there). `DDIMScheduler` in `DDPMPipeline` would clip the image but keep the noise that no
# longer fits it, which ends in grey grain, and err where the number of steps does not divide 1,000.
SAMPLERS = {
    "ddpm": Sampler(DDPMScheduler, 1000, {"thresholding": False}),
    "ddim": Sampler(DPMSolverMultistepScheduler, 50, _dpm("dpmsolver++", 1)),
    "dpmsolver++": Sampler(DPMSolverMultistepScheduler, 20, _dpm("dpmsolver++", 2)),
    "sde-dpmsolver++": Sampler(FineDPMSolverScheduler, 20, _dpm("sde-dpmsolver++", 2)),
    "unipc": Sampler(UniPCScheduler, 20, {"thresholding": True, "solver_order": 2}),
}


def convert_scheduler(scheduler: SchedulerMixin, name: str) -> tuple[SchedulerMixin, int]:
    """The scheduler `name` of `SAMPLERS` for the noise that `scheduler` trained with, and its number of steps.

    Whatever their number, the first step is the last of training, as images start from pure noise
    (https://huggingface.co/papers/2305.08891, section 3.3).

    Raises:
        InputError: if the name is unknown; it lists those that exist.
    """
    if name not in SAMPLERS:
        raise InputError(f"Unknown --scheduler '{name}'; choose among {', '.join(SAMPLERS)}.")
    sampler = SAMPLERS[name]
    converted = sampler.scheduler.from_config(scheduler.config, timestep_spacing="trailing", **sampler.options)
    return converted, sampler.num_inference_steps


def denoise(
    unet: UNet2DModel,
    scheduler: SchedulerMixin,
    batch_size: int,
    generator: torch.Generator | list[torch.Generator],
    num_inference_steps: int,
) -> Iterator[torch.Tensor]:
    """The images of `DDPMPipeline`, after each of its steps.

    Args:
        unet: the network.
        scheduler: its noise, and how to take it off.
        batch_size: number of images.
        generator: source of randomness; a list gives each image its own.
        num_inference_steps: calls of the network.

    Yields:
        (B, C, H, W) in [-1, 1] and beyond, with ever less noise; the last are the images that the pipeline returns.
    """
    shape = (batch_size, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    images = randn_tensor(shape, generator=generator, device=unet.device, dtype=unet.dtype)
    scheduler.set_timesteps(num_inference_steps)
    for timestep in scheduler.timesteps:
        with torch.no_grad():  # not around the whole: the caller goes on in between
            noise = unet(images, timestep).sample
            images = scheduler.step(noise, timestep, images, generator=generator).prev_sample
        yield images


@torch.no_grad()
def denoising_errors(
    unet: UNet2DModel, scheduler: SchedulerMixin, images: np.ndarray, seed: int = 0, batch_size: int = 32
) -> np.ndarray:
    """Squared error of the noise that a model predicts in images, at middle noise levels.

    A fifth, two fifths and three fifths of the training steps, each with one noise per image.

    Args:
        unet: predicts the noise; it stays in the mode it is in.
        scheduler: with the noise of training.
        images: floats (N, H, W) in [0, 1].
        seed: of the noise.
        batch_size: images at a time.

    Returns:
        (N,), lower is better, means over pixels and noise levels.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.from_numpy(images[:, None]).float() * 2 - 1
    noise = torch.randn(len(MEMBERSHIP_LEVELS), *tensors.shape, generator=generator)
    errors = torch.zeros(len(MEMBERSHIP_LEVELS), len(tensors))
    for row, level in enumerate(MEMBERSHIP_LEVELS):
        timestep = int(level * scheduler.config.num_train_timesteps)
        for rows in torch.arange(len(tensors)).split(batch_size):
            part, added = tensors[rows].to(unet.device), noise[row, rows].to(unet.device)
            timesteps = torch.full((len(rows),), timestep, device=unet.device)
            predicted = unet(scheduler.add_noise(part, added, timesteps), timesteps).sample
            errors[row, rows] = (predicted - added).square().mean((1, 2, 3)).float().cpu()
    return errors.mean(0).numpy()


def untrained(unet: UNet2DModel, seed: int = 0) -> UNet2DModel:
    """The same network with fresh weights, on the same device, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel.from_config(unet.config).to(unet.device).eval()
