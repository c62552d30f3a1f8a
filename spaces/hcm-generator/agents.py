"""The tools of agents: plain types in, a picture and a few words out, and nothing to remember between calls."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from anyio.to_thread import run_sync
from generators import Drawing, Generator, Request
from gradio.mcp import GradioMCPServer
from pictures import captions_of, show_grid, write_archive
from studio import COMPARED, Studio, answers_of, explained, whole

from hcm_hf.hub.serving import SLOW
from hcm_hf.utils.errors import InputError


COLUMNS = 8  # of the picture
NOTICE = "Synthetic images, for research only, not for diagnosis."


class Agents(Studio):
    """The tools; a docstring's first paragraph, `Args` and `Returns` are what an agent reads."""

    def offer(self) -> None:
        """Make each tool an endpoint of the page that is being built."""
        GradioMCPServer._execute_tool_without_progress = _outputs
        latent = [one for one in self.generators.values() if not one.denoises]
        diffusion = [one for one in self.generators.values() if one.denoises]
        quick = {"concurrency_limit": 4}
        slow = {"concurrency_limit": 1, "concurrency_id": SLOW}
        if latent:
            _offer(self.generate, latent, quick)
            _offer(self.interpolate, latent, quick)
        if diffusion:
            _offer(self.denoise, diffusion, slow)
        _offer(self.compare, [*self.generators.values()], slow)

    @explained
    def generate(
        self,
        model: str,
        num_images: int = 4,
        seed: int = 0,
        group: str | None = None,
        phase: str | None = None,
        level: str | None = None,
        wall_thickness: float = 0,
        category: int | None = None,
        code_1: float | None = None,
        code_2: float | None = None,
        overlay: bool = False,
    ) -> tuple[dict, str, dict]:
        """Draw images with a VAE or GAN, synthetic short-axis cardiac MR slices. The same seed gives them again.

        Args:
            model: name of the generator
            num_images: how many, 1 to 64
            seed: 0 or more; image i comes from (seed, i)
            group: of the patient (ACDC's: DCM, HCM, MINF, NOR or RV), for a model with conditions; "any" draws it as
                in the data, null is the model's default
            phase: ED or ES, for a model with conditions; null is any
            level: part of the heart (base, mid or apex), for a model with conditions; null is any
            wall_thickness: greatest of the wall, mm, for a model that takes it; 0 leaves it to the model
            category: categorical code from 0, for a generator with codes; give all three codes or none
            code_1: first continuous code, -1 to 1, likewise
            code_2: second continuous code, -1 to 1, likewise
            overlay: whether the picture shows the segmentations that come with the images, in colour

        Returns:
            One picture of all images in rows of 8
            What was drawn, as JSON
            Address of a zip with the images as PNG files, and with their segmentations where the model makes them
        """
        codes = _codes(category, code_1, code_2)
        answers = answers_of(group, phase, level, wall_thickness)
        request, drawing = self.draw_latent(model, num_images, seed, answers, *codes)
        return _answer(request, drawing, overlay)

    @explained
    def interpolate(
        self,
        model: str,
        num_images: int = 8,
        seed: int = 0,
        other_seed: int = 1,
        group: str | None = None,
        phase: str | None = None,
        level: str | None = None,
        wall_thickness: float = 0,
        category: int | None = None,
        code_1: float | None = None,
        code_2: float | None = None,
    ) -> tuple[dict, str]:
        """Go from the first image of one seed to the first image of another, along the latents of a VAE or GAN.

        Args:
            model: name of the generator
            num_images: how many images on the way, both ends included, 1 to 64
            seed: where to begin, 0 or more
            other_seed: where to end, 0 or more
            group: of the patient (ACDC's: DCM, HCM, MINF, NOR or RV), for a model with conditions; "any" draws it as
                in the data, null is the model's default
            phase: ED or ES, for a model with conditions; null is any
            level: part of the heart (base, mid or apex), for a model with conditions; null is any
            wall_thickness: greatest of the wall, mm, for a model that takes it; 0 leaves it to the model
            category: categorical code from 0, for a generator with codes; give all three codes or none
            code_1: first continuous code, -1 to 1, likewise
            code_2: second continuous code, -1 to 1, likewise

        Returns:
            One picture of all images in rows of 8
            What was drawn, as JSON
        """
        codes = _codes(category, code_1, code_2)
        answers = answers_of(group, phase, level, wall_thickness)
        drawing = self.draw_between(model, num_images, seed, other_seed, answers, *codes)
        facts = {"model": model, "num_images": len(drawing.images), "seed": seed, "other_seed": other_seed}
        return _picture(drawing), _facts(facts)

    @explained
    def denoise(
        self,
        model: str,
        num_images: int = 1,
        seed: int = 0,
        scheduler: str | None = None,
        num_inference_steps: int | None = None,
        group: str | None = None,
        phase: str | None = None,
        level: str | None = None,
        wall_thickness: float = 0,
        guidance_scale: float = 1,
        overlay: bool = False,
    ) -> tuple[dict, str, dict]:
        """Draw images with a diffusion model, synthetic short-axis cardiac MR slices. The same seed gives them again.

        Args:
            model: name of the generator
            num_images: how many, 1 to 64; images times steps are 3200 at most
            seed: 0 or more; image i comes from (seed, i)
            scheduler: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; null is the model's own
            num_inference_steps: sampling steps, 1 to 1000; null is the model's own number
            group: of the patient (ACDC's: DCM, HCM, MINF, NOR or RV), for a model with conditions; "any" draws it as
                in the data, null is the model's default
            phase: ED or ES, for a model with conditions; null is any
            level: part of the heart (base, mid or apex), for a model with conditions; null is any
            wall_thickness: greatest of the wall, mm, for a model that takes it; 0 leaves it to the model
            guidance_scale: 1 to 5, how closely the conditions are followed; 1 is without guidance
            overlay: whether the picture shows the segmentations that come with the images, in colour

        Returns:
            One picture of all images in rows of 8
            What was drawn, as JSON
            Address of a zip with the images as PNG files, and with their segmentations where the model makes them
        """
        answers = answers_of(group, phase, level, wall_thickness)
        request = self.ask(model, num_images, seed, scheduler, num_inference_steps, answers, guidance_scale)
        *_, drawing = self.draw_steps(request)
        return _answer(request, drawing, overlay)

    @explained
    def compare(
        self, seed: int = 0, scheduler: str | None = None, num_inference_steps: int | None = None
    ) -> tuple[dict, str]:
        """Draw four images of one seed with every generator, and tell how long an image took.

        Args:
            seed: 0 or more
            scheduler: of the diffusion models that have none of their own; null is ddpm
            num_inference_steps: of the diffusion models that have no number of their own, 1 to 800; null is 50

        Returns:
            One picture with a row of four images for each generator
            The generators in the order of the rows, with the seconds that an image took, as JSON
        """
        drawn = list(self.draw_all(seed, scheduler, num_inference_steps))
        seconds = {generator.name: round(drawing.seconds / COMPARED, 4) for generator, drawing in drawn}
        side = max(drawing.images.shape[-1] for _, drawing in drawn)
        rows = [_padded(drawing.images, side) for _, drawing in drawn]
        facts = {"seed": whole(seed), "seconds_per_image": seconds}
        return _picture(Drawing(np.concatenate(rows)), COMPARED), _facts(facts)


def _offer(tool, generators: list[Generator], queue: dict) -> None:
    """An endpoint whose description names the generators; the page's own of that name is another."""
    description = f"{tool.__doc__.strip().splitlines()[0]} Generators: {', '.join(one.name for one in generators)}."
    gr.api(tool, api_name=f"agents_{tool.__name__}", api_description=description, **queue)


async def _outputs(server: GradioMCPServer, job: Any) -> list:
    """What a tool returns, each output for itself: gradio makes one text of them all, the picture too."""
    result = await run_sync(job.result)
    return [*result] if isinstance(result, list | tuple) else [result]


def _codes(
    category: int | None, code_1: float | None, code_2: float | None
) -> tuple[int | None, tuple[float, float] | None]:
    given = [code is not None for code in (category, code_1, code_2)]
    if any(given) and not all(given):
        raise InputError("Some codes are given; give category, code_1 and code_2, or none of them.")
    return (whole(category), (code_1, code_2)) if all(given) else (None, None)


def _answer(request: Request, drawing: Drawing, overlay: bool = False) -> tuple[dict, str, dict]:
    settings = {key: value for key, value in vars(request).items() if value is not None}
    shown = {"images": captions_of(drawing)} if drawing.conditions else {}
    facts = {**settings, **shown, "seconds": round(drawing.seconds, 3)}
    return _picture(drawing, overlay=overlay), _facts(facts), _file(write_archive(request, drawing)[0])


def _picture(drawing: Drawing, columns: int = COLUMNS, overlay: bool = False) -> dict:
    return _file(show_grid(drawing, min(columns, len(drawing.images)), overlay))


def _padded(images: np.ndarray, side: int) -> np.ndarray:
    """Square images (N, H, H) with a black rim, so that they have `side` pixels."""
    rim = side - images.shape[-1]
    return np.pad(images, ((0, 0), *[(rim // 2, rim - rim // 2)] * 2))


def _facts(facts: dict) -> str:
    return json.dumps({**facts, "notice": NOTICE})


def _file(path: str) -> dict:
    """A file as gradio hands it on."""
    return gr.FileData(path=path, orig_name=Path(path).name).model_dump()
