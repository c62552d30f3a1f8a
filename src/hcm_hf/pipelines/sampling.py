"""How images are sampled: settings that travel as one, whatever the family."""

import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, cast

from hcm_hf.utils.errors import InputError


if TYPE_CHECKING:
    from hcm_hf.pipelines.auto import HCMPipeline


FINE = ("stochastic_floor", "last_sigma")  # options of the scheduler sde-dpmsolver++
OF_DIFFUSION = ("scheduler", "num_inference_steps", "guidance_scale", *FINE)  # settings of diffusion models


@dataclass(frozen=True)
class Sampling:
    """How to sample; what is left at None is the pipeline's default.

    Attributes:
        conditions: what the images show, for a model with conditions: {"group": "HCM", "phase": "ED", "level": "mid"},
            and {"wall_thickness": 21} in mm where it takes one. "any" leaves a condition open.
        class_labels: the same as a label or, for one more release, as names in a string.
        scheduler: of a diffusion model: "ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++" or "unipc".
        num_inference_steps: sampling steps of a diffusion model; with another scheduler than its own 1000 for ddpm,
            50 for ddim and 20 for the others.
        guidance_scale: of classifier-free guidance, for a diffusion model with conditions; 1 is none.
        stochastic_floor: of sde-dpmsolver++, the noise level (over the image's) below which steps add no noise.
        last_sigma: of sde-dpmsolver++, the noise level of the last call of the network.
    """

    conditions: Mapping[str, str | float | None] | None = None
    class_labels: str | int | None = None
    scheduler: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    stochastic_floor: float | None = None
    last_sigma: float | None = None

    def applied_to(self, pipeline: "HCMPipeline") -> "tuple[HCMPipeline, Sampling]":
        """Return a pipeline that samples so, and the settings in full.

        The pipeline is a copy that shares its networks with the one given, which keeps its scheduler.

        Raises:
            InputError: if the pipeline has no use for a setting, or does not take its value.
        """
        from hcm_hf.schedulers import FineDPMSolverScheduler, convert_scheduler  # which imports torch

        full, own = self._with_conditions(pipeline), pipeline.sampling_defaults
        known = (*FINE, *(name for name in OF_DIFFUSION if vars(own)[name] is not None)) if pipeline.denoises else ()
        for name in OF_DIFFUSION:
            if name not in known and vars(self)[name] is not None:
                kind = "diffusion model has no classes" if pipeline.denoises else "model is no diffusion model"
                raise InputError(f"{name} {vars(self)[name]} given, but this {kind}; leave it out.")
        if not pipeline.denoises:
            return pipeline, full
        assert own.scheduler is not None  # as a diffusion model has one
        name = self.scheduler or own.scheduler
        converted, usual = convert_scheduler(pipeline.scheduler, name)
        steps = own.num_inference_steps if name == own.scheduler else usual
        steps = steps if self.num_inference_steps is None else self.num_inference_steps
        scale = own.guidance_scale if self.guidance_scale is None else self.guidance_scale
        full = replace(full, scheduler=name, num_inference_steps=steps, guidance_scale=scale)
        full.check(converted.config.num_train_timesteps)
        full = replace(full, guidance_scale=None if scale is None else float(scale))
        fine = {name: vars(self)[name] for name in FINE if vars(self)[name] is not None}
        if fine and not isinstance(converted, FineDPMSolverScheduler):
            raise InputError(f"{next(iter(fine))} is for the scheduler sde-dpmsolver++, not {name}; leave it out.")
        converted.register_to_config(**fine)
        bound = copy(pipeline)
        bound.scheduler = converted
        return bound, full

    def check(self, num_train_timesteps: int) -> None:
        """Raise an `InputError` unless a diffusion model can take so many steps, with such guidance."""
        steps, most = self.num_inference_steps, num_train_timesteps
        if not isinstance(steps, Integral) or not 1 <= steps <= most:
            raise InputError(f"num_inference_steps is {steps}; choose from 1 to {most}.")
        if self.guidance_scale is not None and not _is_amount(self.guidance_scale):
            raise InputError(f"guidance_scale is {self.guidance_scale}; give 0 or more, 1 for none.")
        for name in FINE:
            if vars(self)[name] is not None and not _is_amount(vars(self)[name]):
                raise InputError(f"{name} is {vars(self)[name]}; give 0 for none, or more.")

    def _with_conditions(self, pipeline: "HCMPipeline") -> "Sampling":
        """The same with all that the images show in `conditions`."""
        if not pipeline.conditions.axes:
            asked = self.class_labels if self.conditions is None else self.conditions
            if asked is not None:
                name = "class_labels" if self.conditions is None else "conditions"
                raise InputError(f"{name} {asked} given, but this model has no classes; leave it out.")
            return self
        asked = one_of(conditions=self.conditions, class_labels=self.class_labels)
        return replace(self, conditions=pipeline.conditions.complete(asked), class_labels=None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for a call of the pipeline."""
        of_scheduler = ("scheduler", *FINE)
        return {name: value for name, value in vars(self).items() if name not in of_scheduler and value is not None}

    @property
    def noted(self) -> dict[str, Any]:
        """What to note beside the images: `class`, and of a diffusion model how it was sampled."""
        answers = {name: one for name, one in (self.conditions or {}).items() if one is not None}
        words = " ".join(one if isinstance(one, str) else f"{name} {one:g}" for name, one in answers.items())
        shown = None if self.conditions is None else words or "any"
        steps = {name: vars(self)[name] for name in OF_DIFFUSION}
        return {"class": shown} | {name: value for name, value in steps.items() if value is not None}

    @property
    def network_calls(self) -> int:
        """How often the network is called for each image; guidance calls it twice a step."""
        return (self.num_inference_steps or 1) * (1 if self.guidance_scale in (None, 1) else 2)


DEFAULT_SAMPLING = Sampling()


def _is_amount(value: object) -> bool:
    return isinstance(value, Real) and 0 <= cast(float, value) <= sys.float_info.max


def one_of(**values: Any) -> Any:
    """Return the one argument that is given; None if none is.

    Raises:
        InputError: if more are.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are both given; give {next(iter(given))}.")
    return next(iter(given.values()), None)
