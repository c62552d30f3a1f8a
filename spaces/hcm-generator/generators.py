"""The generators of the page: what they can be asked for, and how they draw."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from drawing import first_of_seed, follow, slerp
from notes import MOST_GROUPS, Notes
from scores import Scores

from hcm_hf.data.cohort import LEVELS, PHASES
from hcm_hf.data.vocabulary import is_word
from hcm_hf.generation.images import image_generator
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import Conditions
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.pairs import WALL
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.schedulers import SAMPLERS
from hcm_hf.utils.errors import InputError


MOST_IMAGES, MOST_STEPS, MOST_CALLS = 64, 1000, 3200  # of one request; calls are images times steps
MOST_GUIDANCE = 5
LARGEST_SEED = 2**31 - 1
DEFAULT_SCHEDULER, DEFAULT_STEPS = "ddpm", DDPMPipeline.preview_steps  # offered for the study's DDPM
SERVED: dict[str, "Generator"] = {}  # a process that is lent a GPU inherits them, where arguments must be pickled
LARGEST_SIDE, MOST_CATEGORIES = 512, 100  # of what is served
_ANSWERS = {"phase": PHASES, "level": LEVELS}  # to what a model may be asked besides its groups


@dataclass(frozen=True)
class Request:
    """What a visitor asks a generator for.

    Attributes:
        model: the generator's name.
        num_images: how many.
        seed: image i comes from the random generator of (seed, i), as in `generate.py`.
        conditions: what to show, where that can be asked for.
        category: value of the categorical code, where there is one; None leaves it to chance.
        continuous: values of the continuous codes; None leaves them to chance.
        scheduler: of a diffusion model.
        num_inference_steps: of a diffusion model.
        guidance_scale: of a diffusion model that can be asked for something.
    """

    model: str
    num_images: int = 12
    seed: int = 0
    conditions: Mapping[str, str | float] | None = None
    category: int | None = None
    continuous: tuple[float, ...] | None = None
    scheduler: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def check(self) -> None:
        """Raise an `InputError` for what no generator takes."""
        check_whole("num_images", self.num_images, 1, MOST_IMAGES)
        if self.category is not None:
            check_whole("category", self.category, 0, LARGEST_SEED)
        for code in self.continuous or ():
            if not isinstance(code, int | float) or not -1 <= code <= 1:
                raise InputError(f"A continuous code is {code!r}; give numbers from -1 to 1.")
        check_whole("seed", self.seed, 0, LARGEST_SEED)
        scale = 1 if self.guidance_scale is None else self.guidance_scale
        if not isinstance(scale, int | float) or not 1 <= scale <= MOST_GUIDANCE:
            raise InputError(f"guidance_scale is {scale!r}; give a number from 1 to {MOST_GUIDANCE}.")
        if self.num_inference_steps is not None:
            check_whole("num_inference_steps", self.num_inference_steps, 1, MOST_STEPS)
            calls = self.num_images * self.num_inference_steps * (1 if scale == 1 else 2)  # guidance asks twice
            if calls > MOST_CALLS:
                raise InputError(
                    f"{self.num_images} images of {self.num_inference_steps} steps are more than {MOST_CALLS} steps "
                    "in all, guided ones counted twice; ask for fewer images or steps."
                )


@dataclass(frozen=True)
class Drawing:
    """Images on their way, or done.

    Attributes:
        images: float32 (N, H, W) in [0, 1].
        done: part of the work, 1 at the end.
        masks: uint8 (N, H, W), 0 to 3; None where the model makes none.
        conditions: what each shows, where that can be asked for.
        seconds: since the request was taken up.
    """

    images: np.ndarray
    done: float = 1.0
    masks: np.ndarray | None = None
    conditions: Sequence[Mapping[str, str | float | None]] = ()
    seconds: float = 0.0


class Generator:
    """A trained model of the page.

    Args:
        name: as visitors choose it.
        folder: holds the pipeline.
        notes: what its run says of itself.
        scores: of its report.
        losses: the figure of its losses.
        page: address of its model card, if it has one.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        notes: Notes,
        scores: Scores | None = None,
        losses: Path | None = None,
        page: str | None = None,
    ):
        self.name, self.folder, self.notes, self.page = name, folder, notes, page
        self.scores, self.losses = scores, losses
        self._lock = Lock()
        SERVED[self.key] = self

    @property
    def key(self) -> str:
        """Its entry in `SERVED`."""
        return str(self.folder)

    @cached_property
    def pipeline(self) -> HCMPipeline:
        """The pipeline; use `load`, which several threads may call."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipeline = HCMPipeline.from_pretrained(self.folder, device=device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def load(self) -> HCMPipeline:
        """The pipeline, loaded by whoever comes first."""
        with self._lock:
            return self.pipeline

    @property
    def label(self) -> str:
        """Name, size and recipe."""
        size, recipe = self.notes.resolution, self.notes.recipe
        return " · ".join([self.name, *([f"{size} px"] if size else []), *([recipe] if recipe else [])])

    @property
    def denoises(self) -> bool:
        """Whether it takes steps, and a scheduler."""
        return self.load().denoises

    @property
    def sampling(self) -> tuple[str | None, int | None]:
        """The scheduler and number of steps of a diffusion model, unless others are asked for."""
        return self.load().sampling_defaults.scheduler, self.load().preview_steps

    @property
    def has_own_sampling(self) -> bool:
        """Whether that is what it was trained or tuned for."""
        return self.denoises and self.load().sampling_defaults.num_inference_steps == self.load().preview_steps

    @property
    def conditions(self) -> Conditions:
        """What can be asked for."""
        return self.load().conditions

    @property
    def makes_masks(self) -> bool:
        """Whether its images come with their segmentations."""
        return self.load().makes_masks

    def ask(self, answers: Mapping[str, str | float | None]) -> Mapping[str, str | float] | None:
        """What a pipeline takes as `conditions`.

        Args:
            answers: by a question or an amount of `conditions`; "any" leaves it open, None is the model's default.

        Raises:
            InputError: if the model has no such question or answer.
        """
        asked = {name: answer for name, answer in answers.items() if answer is not None}
        for name, answer in asked.items():
            if name not in (*self.conditions.axes, *self.conditions.ranges):
                raise InputError(f"{name} {answer!r} given, but {self.name} cannot be asked for a {name}.")
        return self.conditions.complete(asked) or None

    @cached_property
    def opening(self) -> tuple[Request, Drawing] | None:
        """What a visitor sees first, drawn once; None of a model that needs long."""
        if self.denoises and not self.has_own_sampling:
            return None
        request = Request(self.name, conditions=self.ask({}))
        *_, drawing = self.draw(request, num_previews=1)
        return request, drawing

    @property
    def num_codes(self) -> tuple[int, int]:
        """Number of values of the categorical code, and of continuous codes."""
        return self.load().num_codes

    def try_out(self) -> None:
        """Draw an image, and look at all that the page will say of this model.

        Raises:
            InputError: if the page cannot serve it.
        """
        (image,) = list(self.draw(Request(self.name, 1, num_inference_steps=1 if self.denoises else None)))[-1].images
        if not np.isfinite(image).all():
            raise InputError("its images are not finite numbers; train it again.")
        if max(image.shape) > LARGEST_SIDE:
            raise InputError(f"its images are larger than {LARGEST_SIDE} pixels a side.")
        others = dict(self.conditions.axes)
        groups = others.pop("group", ())
        odd = [*(group for group in groups if not is_word(group)), *(set(others) - set(_ANSWERS))]
        odd += set(self.conditions.ranges) - {WALL}
        odd += [name for axis, names in others.items() for name in names if name not in _ANSWERS.get(axis, ())]
        if odd:
            raise InputError(f"it can be asked for '{odd[0]}', which this page does not know.")
        if len(groups) > MOST_GROUPS:
            raise InputError(f"it can be asked for more than {MOST_GROUPS} groups.")
        self.check(Request(self.name, 1))
        if self.num_codes[0] > MOST_CATEGORIES:
            raise InputError(f"its code has more than {MOST_CATEGORIES} categories.")

    def draw(self, request: Request, num_previews: int = 8) -> Iterator[Drawing]:
        """Draw images; a diffusion model shows some of its steps on the way.

        Raises:
            InputError: if the model does not take what is asked for.
        """
        self.check(request)
        started = time.perf_counter()
        generators = [image_generator(request.seed, index) for index in range(request.num_images)]
        for drawing in self._steps(request, generators, num_previews):
            yield replace(drawing, seconds=time.perf_counter() - started)

    def check(self, request: Request) -> None:
        """Raise an `InputError` unless this model can draw what is asked for."""
        request.check()
        self._prepare(request)

    def _prepare(self, request: Request) -> tuple[HCMPipeline, Sampling]:
        """A pipeline that samples as the request says, and its settings in full."""
        pipeline, codes = self.load(), (request.category, request.continuous)
        if not self.denoises:  # raises for a code that the network does not have
            pipeline.network.set_codes(pipeline.network.sample_latents(1), *codes)
        elif codes != (None, None):
            raise InputError(f"Codes given, but {self.name} has no codes.")
        steps = request.num_inference_steps or self.sampling[1]
        Request(self.name, request.num_images, num_inference_steps=steps).check()
        sampling = Sampling(
            request.conditions,
            scheduler=request.scheduler,
            num_inference_steps=steps,
            guidance_scale=request.guidance_scale,
        )
        return sampling.applied_to(pipeline)

    def _steps(self, request: Request, generators: list[torch.Generator], num_previews: int) -> Iterator[Drawing]:
        pipeline, sampling = self._prepare(request)
        if not self.denoises:
            yield _draw_once(pipeline, request, generators, sampling)
            return
        steps, asked = sampling.num_inference_steps, sampling.conditions or {}
        amounts = {name: asked.get(name) for name in self.conditions.ranges}
        shown = {round(steps * part / num_previews) for part in range(1, num_previews)}
        for step, tensors in follow(pipeline, shown | {steps}, generators, **sampling.arguments):
            images, masks = pipeline.decode(tensors["latents"])
            masks = None if masks is None else masks.byte().cpu().numpy()
            labels = tensors["labels"].tolist() if "labels" in tensors else ()
            conditions = [self.conditions.describe(label) | amounts for label in labels]
            yield Drawing(images[:, 0].cpu().numpy(), step / steps, masks, conditions)

    def interpolate(self, request: Request, other_seed: int) -> np.ndarray:
        """Images (N, H, W) on the great circle between the latents of two seeds.

        Codes and what is shown do not move: they are those of the request, or of its seed.

        Raises:
            InputError: if the model has no latents, or as `draw`.
        """
        check_whole("other_seed", other_seed, 0, LARGEST_SEED)
        if self.denoises:
            raise InputError(f"{self.name} is a diffusion model: its images do not follow one latent each.")
        self.check(request)
        pipeline, sampling = self._prepare(request)
        network = pipeline.network
        (shown, first), (_, last) = (first_of_seed(pipeline, sampling, seed) for seed in (request.seed, other_seed))
        first = network.set_codes(first, request.category, request.continuous)
        latents = slerp(first, last, request.num_images)
        if num_codes := sum(network.num_codes):
            latents[:, -num_codes:] = first[:, -num_codes:]
        return pipeline(latents=latents, output_type="np", conditions=shown).images[..., 0]


def _draw_once(
    pipeline: HCMPipeline, request: Request, generators: list[torch.Generator], sampling: Sampling
) -> Drawing:
    """Images of a network that is called once, with their segmentations if it makes them."""
    count, network, known = len(generators), pipeline.network, pipeline.conditions
    if pipeline.makes_masks:
        output = pipeline(count, generators, output_type="np", **sampling.arguments)
        return Drawing(output.images[..., 0], masks=output.masks, conditions=output.conditions)
    latents = network.set_codes(network.sample_latents(count, generators), request.category, request.continuous)
    labels = known.draw(sampling.conditions, count, generators) if known.axes else None  # as the pipeline draws them
    images = pipeline(latents=latents, class_labels=labels, output_type="np").images
    return Drawing(
        images[..., 0], conditions=[known.describe(label) for label in labels.tolist()] if known.axes else ()
    )


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise an `InputError` unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; give a whole number from {low} to {high}.")


def scheduler_names() -> list[str]:
    """The samplers of diffusion models."""
    return list(SAMPLERS)
