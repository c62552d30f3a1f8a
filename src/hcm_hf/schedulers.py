"""The noise schedules that diffusion models train with, and the samplers by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin, UniPCMultistepScheduler

from hcm_hf.utils.arguments import one_of


def linear_schedule() -> DDPMScheduler:
    """The noise of DDPM: 1,000 timesteps, betas linear from 1e-4 to 0.02, predicting the noise itself."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="epsilon"
    )


def cosine_schedule() -> DDPMScheduler:
    """1,000 steps of the cosine schedule (https://huggingface.co/papers/2102.09672, equation 17), predicting v.

    v = alpha * noise - sigma * image (https://huggingface.co/papers/2202.00512, appendix D).
    """
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",  # few steps start from pure noise too: https://huggingface.co/papers/2305.08891
    )


class UniPCScheduler(UniPCMultistepScheduler):
    """UniPC, https://huggingface.co/papers/2302.04867, with the `generator` that `DDPMPipeline` passes to a step."""

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """One step; it is deterministic and leaves `generator` alone. See `UniPCMultistepScheduler.step`."""
        return super().step(model_output, timestep, sample, return_dict=return_dict)


class FineDPMSolverScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ whose steps grow shorter towards the image: step i of N ends at i^2 / N^2 of the noise's time.

    The last of 20 evenly spaced steps of the cosine schedule removes detail below its noise level, 0.09 of the range
    from black to white, and so the texture of a slice.

    Two options of its configuration say where it stops adding noise and where it stops calling the network, both as
    the standard deviation of noise over that of the image:

    - `stochastic_floor`: steps that end below it are those of the deterministic solver; 0 by default, for none.
    - `last_sigma`: the noise level of the last call, from which the image is predicted; 0 by default, for that which
      the steps give.
    """

    own_options = ("stochastic_floor", "last_sigma")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **options: Any) -> Any:
        """As diffusers', which does not know the two options and would say that they are ignored."""
        scheduler, unused = super().from_config(without_own_options(config), return_unused_kwargs=True, **options)
        scheduler.register_to_config(**{name: config[name] for name in cls.own_options if name in config})
        return (scheduler, unused) if return_unused_kwargs else scheduler

    @property
    def stochastic_floor(self) -> float:
        """The noise level below which steps are deterministic."""
        return self.config["stochastic_floor"] if "stochastic_floor" in self.config else 0.0

    @property
    def last_sigma(self) -> float:
        """The noise level of the last call of the network."""
        return self.config["last_sigma"] if "last_sigma" in self.config else 0.0

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Set the timesteps, from the last of training down. See `DPMSolverMultistepScheduler`."""
        most = self.config.num_train_timesteps
        left = np.arange(num_inference_steps, 0, -1)
        timesteps = (most * (left / num_inference_steps) ** 2).round().astype(int) - 1
        if self.last_sigma > 0 and num_inference_steps > 1:
            sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt().numpy()
            last = min(int(np.searchsorted(sigmas, self.last_sigma)), most - num_inference_steps)
            shrinking = ((left - 1) / (num_inference_steps - 1)) ** 2
            timesteps = (last + (most - 1 - last) * shrinking).round().astype(int)
            left = left + last
        super().set_timesteps(timesteps=np.maximum(timesteps, left - 1).tolist(), device=device)  # no two are the same

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """One step, without noise where it ends below the stochastic floor. See `DPMSolverMultistepScheduler.step`."""
        if self.step_index is None:
            self._init_step_index(timestep)
        algorithm_type = self.config.algorithm_type
        if self.sigmas[self.step_index + 1] < self.stochastic_floor:
            self.register_to_config(algorithm_type=algorithm_type.removeprefix("sde-"))
        try:
            return super().step(model_output, timestep, sample, generator, variance_noise, return_dict)
        finally:
            self.register_to_config(algorithm_type=algorithm_type)


def without_own_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration without what only `FineDPMSolverScheduler` knows."""
    return {name: value for name, value in config.items() if name not in FineDPMSolverScheduler.own_options}


@dataclass(frozen=True)
class Sampler:
    """A sampler of diffusion models.

    Attributes:
        scheduler: the scheduler's class.
        num_inference_steps: the default number of sampling steps.
        options: options of the scheduler, besides the configuration that the model was trained with.
    """

    scheduler: type[SchedulerMixin]
    num_inference_steps: int
    options: dict[str, bool | int | str]


def _dpm(algorithm_type: str, solver_order: int) -> dict[str, bool | int | str]:
    """All options in which the solvers differ, as a saved model may hold those of another."""
    return {"thresholding": True, "algorithm_type": algorithm_type, "solver_order": solver_order}


# The samplers of diffusion models, by name. All clip the predicted image to [-1, 1]: DDPM as it is configured, the
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
    """Return the sampler `name` for the noise schedule of `scheduler`, and its default number of sampling steps.

    Sampling always starts at the last timestep of training, as images start from pure noise
    (https://huggingface.co/papers/2305.08891, section 3.3).

    Raises:
        InputError: if the name is unknown; the message lists the known ones.
    """
    one_of("scheduler", name, SAMPLERS)
    sampler = SAMPLERS[name]
    fine = issubclass(sampler.scheduler, FineDPMSolverScheduler)
    config = scheduler.config if fine else without_own_options(scheduler.config)
    converted = sampler.scheduler.from_config(config, timestep_spacing="trailing", **sampler.options)
    return converted, sampler.num_inference_steps
