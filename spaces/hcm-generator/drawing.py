"""How pipelines are called: with a look at what they have so far, and on the way between two latents."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any

import torch

from hcm_hf.generation.images import image_generator
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling


def follow(
    pipeline: HCMPipeline, steps: Collection[int], generators: list[torch.Generator], **arguments: Any
) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Call a diffusion pipeline in a thread, and yield the tensors of some of its steps while it goes on."""
    found, stopped = SimpleQueue(), Event()

    def note(pipeline: HCMPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        if stopped.is_set():
            raise CancelledError
        if step + 1 in steps:
            found.put((step + 1, dict(tensors)))
        return tensors

    def call() -> None:
        arguments["callback_on_step_end_tensor_inputs"] = pipeline._callback_tensor_inputs
        try:
            pipeline(len(generators), generators, output_type="latent", callback_on_step_end=note, **arguments)
        finally:
            found.put(None)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call)
        try:
            yield from iter(found.get, None)
        finally:
            stopped.set()  # whoever asked may have gone
        done.result()


def first_of_seed(
    pipeline: HCMPipeline, sampling: Sampling, seed: int
) -> tuple[Mapping[str, str | float] | None, torch.Tensor]:
    """What the first image of a seed shows, and its latents (1, D); a pipeline of pairs draws them in this order."""
    generator, known, asked = [image_generator(seed, 0)], pipeline.conditions, sampling.conditions or {}
    label = known.draw(asked, 1, generator) if pipeline.makes_masks else None
    latents = pipeline.network.sample_latents(1, generator)
    if not known.axes:
        return None, latents
    label = known.draw(asked, 1, generator) if label is None else label
    return known.describe(int(label)) | {name: asked[name] for name in known.ranges if name in asked}, latents


def slerp(first: torch.Tensor, last: torch.Tensor, num: int) -> torch.Tensor:
    """Latents (num, D) from `first` to `last`, (1, D) each, at even angles."""
    parts = torch.linspace(0, 1, num).to(first)[:, None]
    cosine = torch.nn.functional.cosine_similarity(first, last).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle < 1e-4:
        return first + parts * (last - first)
    return (torch.sin((1 - parts) * angle) * first + torch.sin(parts * angle) * last) / torch.sin(angle)
