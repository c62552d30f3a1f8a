"""Images for whoever asks: checked, drawn on a GPU that is lent for it where there is one, and explained."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import gradio as gr
import numpy as np
from generators import SERVED, Drawing, Generator, Request

from hcm_hf.hub.serving import hide_folders
from hcm_hf.pipelines.pairs import WALL
from hcm_hf.utils.errors import InputError


try:
    from spaces import GPU  # what ZeroGPU installs, not the folder of that name
except ImportError:
    GPU = None

COMPARED = 4  # images of each generator
QUESTIONS = ("group", "phase", "level")  # that a model may be asked, where it knows the answers
Answers = Mapping[str, str | float | None]  # to these, and the thickness of the wall


def on_gpu(seconds: Callable[..., float]) -> Callable[[Callable], Callable]:
    """Ask ZeroGPU for a GPU for as long as the inputs need; without it nothing changes."""
    if GPU is None:
        return lambda function: function
    return GPU(duration=lambda *arguments: int(seconds(*arguments)) + 10)


def seconds_needed(key: str, request: Request, *_: int) -> float:
    """How long a GPU is needed at most, from what was seen on two CPU cores."""
    generator = SERVED[key]
    calls = request.num_inference_steps or generator.sampling[1] or 1
    guided = 1 if request.guidance_scale in (None, 1) else 2
    return 0.03 * calls * guided * request.num_images


@on_gpu(seconds_needed)
def draw(key: str, request: Request) -> Iterator[Drawing]:
    """Draw images, on a GPU that is lent for it where there is one."""
    yield from SERVED[key].draw(request)


@on_gpu(seconds_needed)
def travel(key: str, request: Request, other_seed: int) -> np.ndarray:
    """Interpolate, likewise."""
    return SERVED[key].interpolate(request, other_seed)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn bad input into its sentence, and what nobody foresaw into one that shows nothing of the server."""
    try:
        yield
    except InputError as error:
        raise gr.Error(hide_folders(str(error)), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        sentence = "The server could not do this; its log says why. Please try again."
        raise gr.Error(sentence, print_exception=False) from error


def explained(function: Callable) -> Callable:
    """What goes wrong reaches the visitor, and the API's caller, as one sentence."""

    @wraps(function)
    def stream(*arguments: Any, **options: Any) -> Iterator:
        with _one_sentence():
            yield from function(*arguments, **options)

    @wraps(function)
    def answer(*arguments: Any, **options: Any) -> Any:
        with _one_sentence():
            return function(*arguments, **options)

    return stream if inspect.isgeneratorfunction(function) else answer


class Studio:
    """Draws with the generators of a page.

    Args:
        generators: by name.
    """

    def __init__(self, generators: Mapping[str, Generator]):
        self.generators = generators

    def find(self, model: str) -> Generator:
        """The generator of that name."""
        if not isinstance(model, str) or model not in self.generators:
            raise InputError(f"There is no generator '{model}'; choose among {', '.join(self.generators)}.")
        return self.generators[model]

    def draw_latent(
        self,
        model: str,
        num_images: int,
        seed: int,
        answers: Answers,
        category: int | None = None,
        continuous: tuple[float, ...] | None = None,
    ) -> tuple[Request, Drawing]:
        """Images of a VAE or GAN, and what was asked for."""
        generator = self.find(model)
        if generator.denoises:
            raise InputError(f"{model} is a diffusion model; ask for it with /denoise.")
        request = _latent_request(generator, num_images, seed, answers, category, continuous)
        (drawing,) = draw(generator.key, request)
        return request, drawing

    def draw_steps(self, request: Request) -> Iterator[Drawing]:
        """Images of a diffusion model on their way from noise."""
        return draw(self.find(request.model).key, request)

    def draw_between(
        self,
        model: str,
        num_images: int,
        seed: int,
        other_seed: int,
        answers: Answers,
        category: int | None = None,
        continuous: tuple[float, ...] | None = None,
    ) -> Drawing:
        """Images of a VAE or GAN on the way from one seed to another."""
        generator = self.find(model)
        request = _latent_request(generator, num_images, seed, answers, category, continuous)
        return Drawing(travel(generator.key, request, whole(other_seed)))

    def draw_all(
        self, seed: int, scheduler: str | None, num_inference_steps: int | None
    ) -> Iterator[tuple[Generator, Drawing]]:
        """Four images of each generator."""
        for generator in self.generators.values():
            given = generator.denoises and not generator.has_own_sampling
            steps = (scheduler, whole(num_inference_steps) or None) if given else (None, None)
            request = Request(generator.name, COMPARED, whole(seed), generator.ask({}), None, None, *steps)
            generator.check(request)
            *_, drawing = draw(generator.key, request)
            yield generator, drawing

    def ask(
        self,
        model: str,
        num_images: int,
        seed: int,
        scheduler: str | None,
        num_inference_steps: int | None,
        answers: Answers,
        guidance_scale: float,
    ) -> Request:
        """What is asked of a diffusion model, checked."""
        generator = self.find(model)
        if not generator.denoises:
            raise InputError(f"{model} is no diffusion model; ask for it with /generate.")
        own_scheduler, own_steps = generator.sampling
        request = Request(
            model,
            whole(num_images),
            whole(seed),
            generator.ask(answers),
            scheduler=scheduler or own_scheduler,
            num_inference_steps=whole(num_inference_steps) or own_steps,
            guidance_scale=None if guidance_scale == 1 else guidance_scale,
        )
        generator.check(request)
        return request


def answers_of(group: str | None, phase: str | None, level: str | None, wall_thickness: float | None) -> Answers:
    """What a visitor asks for; a wall of 0 mm is left to the model."""
    return {"group": group, "phase": phase, "level": level, WALL: wall_thickness or None}


def _latent_request(
    generator: Generator,
    num_images: int,
    seed: int,
    answers: Answers,
    category: int | None,
    continuous: tuple[float, ...] | None,
) -> Request:
    """What is asked of a VAE or GAN, checked."""
    asked = generator.ask(answers)
    request = Request(generator.name, whole(num_images), whole(seed), asked, category, continuous)
    generator.check(request)
    return request


def whole(value: object) -> object:
    """Widgets send whole numbers as floats; what is none is left for the check to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
