"""What the page's buttons and the API's endpoints do."""

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import gradio as gr
from copies import find_neighbours, open_to_all
from generators import Drawing, Generator, Request, check_whole
from pictures import draw_histogram, show, show_file, show_grid, show_images, write_archive
from scores import ASKED, Scores
from studio import COMPARED, QUESTIONS, Studio, answers_of, explained, whole

from hcm_hf.data.dataset import read_preparation
from hcm_hf.hub.serving import new_folder
from hcm_hf.pipelines.conditions import OPEN, Conditions
from hcm_hf.pipelines.pairs import WALL
from hcm_hf.utils.errors import InputError


_PROGRESS = gr.Progress()  # where a handler has it as a default, gradio hands in its own
Made = tuple[Request, Drawing]  # what a visitor has made last
MOST_WALL = 40  # mm


class Handlers(Studio):
    """What the page's buttons and the API's endpoints do; the inputs are checked here, whatever the page allows.

    Args:
        generators: by name.
        dataset: the slices that they were trained on, if every visitor may see them.
    """

    def __init__(self, generators: Mapping[str, Generator], dataset: str | None):
        super().__init__(generators)
        self.dataset = dataset

    @explained
    def generate(
        self,
        model: str,
        num_images: int,
        seed: int,
        group: str | None = None,
        fix_codes: bool = False,
        category: int = 0,
        code_1: float = 0,
        code_2: float = 0,
        phase: str | None = None,
        level: str | None = None,
        wall_thickness: float = 0,
        overlay: bool = False,
    ) -> tuple[list, str, Made]:
        """Draw images with a VAE or GAN; the same seed gives the same images.

        Args:
            model: the generator's name.
            num_images: how many, 1 to 64.
            seed: from 0; image i comes from (seed, i).
            group: diagnosis group of the patients that the images are to be like, for a model with conditions (of
                ACDC: DCM, HCM, MINF, NOR or RV); "any" draws it as in the data, null is the model's default.
            fix_codes: whether the codes of an InfoGAN are those given; otherwise they are drawn like the rest.
            category: value of the categorical code, from 0.
            code_1: first continuous code, -1 to 1.
            code_2: second continuous code, -1 to 1.
            phase: ED or ES, for such a model; null is "any".
            level: part of the heart, base, mid or apex, likewise; null is "any".
            wall_thickness: greatest of the wall, mm, for a model that takes it; 0 leaves it to the model.
            overlay: whether the images show the segmentations that come with them, in colour.

        Returns:
            The images with what they show or their numbers, and the time that they took.
        """
        codes = (whole(category), (code_1, code_2)) if fix_codes else (None, None)
        answers = answers_of(group, phase, level, wall_thickness)
        request, drawing = self.draw_latent(model, num_images, seed, answers, *codes)
        return show_images(drawing, overlay), _time(drawing.seconds, request), (request, drawing)

    @explained
    def denoise(
        self,
        model: str,
        num_images: int,
        seed: int,
        scheduler: str | None = None,
        num_inference_steps: int | None = None,
        group: str | None = None,
        phase: str | None = None,
        level: str | None = None,
        guidance_scale: float = 1,
        overlay: bool = False,
        wall_thickness: float = 0,
        progress: gr.Progress = _PROGRESS,
    ) -> Iterator[tuple[list, str, Made | None]]:
        """Draw images with a diffusion model, and show them on their way from noise.

        Args:
            model: the generator's name.
            num_images: how many, 1 to 64.
            seed: from 0; image i comes from (seed, i).
            scheduler: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; null for the model's own.
            num_inference_steps: calls of the network per image, up to 1000, 0 or null for the model's own number;
                images times steps are 3200 at most.
            group: diagnosis group of the patients that the images are to be like, for a model with conditions (of
                ACDC: DCM, HCM, MINF, NOR or RV); "any" draws it as in the data, null is the model's default.
            phase: ED or ES, likewise; null is "any".
            level: part of the heart, base, mid or apex, likewise; null is "any".
            guidance_scale: 1 to 5, how closely the conditions are followed; 1 is without guidance.
            overlay: whether the images show the segmentations that come with them, in colour.
            wall_thickness: greatest of the wall, mm, for a model that takes it; 0 leaves it to the model.
            progress: gradio's.

        Returns:
            The images with what they show or their numbers, and the time that they took; the last ones are done.
        """
        answers = answers_of(group, phase, level, wall_thickness)
        request = self.ask(model, num_images, seed, scheduler, num_inference_steps, answers, guidance_scale)
        progress(0)
        for drawing in self.draw_steps(request):
            progress(drawing.done)
            done = drawing.done == 1
            yield (
                show_images(drawing, overlay and done),  # in the noise there is no heart
                _time(drawing.seconds, request) if done else f"{drawing.done:.0%}",
                (request, drawing) if done else None,
            )

    def show(self, made: Made | None, overlay: bool) -> list | dict:
        """The images made last in this session, with their segmentations or without."""
        return gr.skip() if made is None else show_images(made[1], overlay)

    @explained
    def interpolate(
        self,
        model: str,
        num_images: int,
        seed: int,
        group: str | None = None,
        fix_codes: bool = False,
        category: int = 0,
        code_1: float = 0,
        code_2: float = 0,
        phase: str | None = None,
        level: str | None = None,
        wall_thickness: float = 0,
        other_seed: int = 1,
    ) -> list:
        """Go from the first image of one seed to the first of another, along their latents.

        Args:
            model: a VAE or GAN.
            num_images: how many on the way, both ends included.
            seed: where to begin.
            group: as in /generate.
            fix_codes: as in /generate.
            category: as in /generate.
            code_1: as in /generate.
            code_2: as in /generate.
            phase: as in /generate.
            level: as in /generate.
            wall_thickness: as in /generate.
            other_seed: where to end.
        """
        codes = (whole(category), (code_1, code_2)) if fix_codes else (None, None)
        answers = answers_of(group, phase, level, wall_thickness)
        return show_images(self.draw_between(model, num_images, seed, other_seed, answers, *codes))

    @explained
    def compare(
        self,
        seed: int,
        scheduler: str | None = None,
        num_inference_steps: int | None = None,
        progress: gr.Progress = _PROGRESS,
    ) -> Iterator[tuple[list, str]]:
        """Draw four images of one seed with every generator, and tell the time that an image took.

        Args:
            seed: from 0.
            scheduler: of the diffusion models that have none of their own.
            num_inference_steps: likewise.
            progress: gradio's.
        """
        shown, seconds = [], []
        for generator, drawing in self.draw_all(seed, scheduler, num_inference_steps):
            seconds.append(drawing.seconds)
            caption = f"{generator.name.rpartition('/')[2]} · {drawing.seconds / COMPARED:.2g} s"
            shown.append((show_grid(drawing, COMPARED // 2), caption))
            progress((len(shown), len(self.generators)))
            yield shown, f"{len(shown)} / {len(self.generators)} · {sum(seconds):.3g} s"

    @explained
    def nearest(self, made: Made | None, index: int) -> tuple[list, float, float, float, object]:
        """The training slices most like one of the images made last in this session, by correlation.

        Args:
            made: what this session has made last.
            index: which image, from 0.

        Returns:
            The image and the slices, most alike first; the highest correlation; the percentage of held-out slices that
            are less like the training slices; the correlation above which lie copies; and the distribution.
        """
        if made is None:
            raise InputError("There is no image yet; generate some first.")
        request, images = made[0], made[1].images
        check_whole("index", whole(index), 0, len(images) - 1)
        generator = self.find(request.model)
        dataset = self.dataset_of(generator)
        if dataset is None:
            raise InputError(f"The slices that {request.model} was trained on are not here; start with --dataset.")
        if self.dataset is None and dataset == generator.notes.repository:
            dataset = open_to_all(dataset)
        found = find_neighbours(images[index], dataset, generator.notes.groups)
        folder = new_folder()
        captions = [
            f"{value:.2f} {caption}".strip() for value, caption in zip(found.correlations, found.captions, strict=True)
        ]
        pairs = zip([images[index], *found.images], [str(index), *captions], strict=True)
        shown = [(show([image[None]], folder / f"{rank}.png"), caption) for rank, (image, caption) in enumerate(pairs)]
        highest = float(found.correlations[0])
        return (
            shown,
            round(highest, 3),
            round(100 * found.rank, 1),
            round(found.threshold, 3),
            draw_histogram(found.heldout, highest, found.threshold),
        )

    @explained
    def archive(self, made: Made | None) -> tuple[str, str, str | None]:
        """The images made last in this session as files, with their segmentations where the model makes them.

        Args:
            made: what this session has made last.

        Returns:
            A zip of PNG files with `manifest.jsonl`, a NIfTI volume of all images, and one of all segmentations.
        """
        if made is None:
            raise InputError("There is no image yet; generate some first.")
        return write_archive(*made)

    def controls(self, generator: Generator) -> list[dict]:
        """How the page's controls begin for a generator, in their order."""
        denoises, masks, conditions = generator.denoises, generator.makes_masks, generator.conditions
        return [
            _visible(generator.num_codes[1] == 2),
            gr.update(value=False),
            _visible(denoises),
            *(gr.update(value=value) for value in generator.sampling),
            _visible(conditions.axes),
            *(_question(conditions, axis) for axis in QUESTIONS),
            _wall(conditions),
            gr.update(value=1, visible=denoises),
            _visible(masks),
            gr.update(value=masks),
            gr.update(visible=not denoises, interactive=True),
            gr.update(visible=denoises, interactive=True),
            _visible(masks),
            _visible(not denoises),
            _visible(denoises),
        ]

    @explained
    def open(self, model: str) -> list:
        """What to show to somebody who comes: as `describe`, with images where they are quickly made."""
        generator = self.find(model)
        described = self.describe(model)
        if generator.opening is None:
            return described
        request, drawing = generator.opening
        files = [gr.update(value=file, interactive=True) for file in write_archive(request, drawing)]
        images = show_images(drawing, generator.makes_masks)
        return [*described[: -len(_NOTHING_MADE)], images, "", (request, drawing), *files, None, None]

    @explained
    def describe(self, model: str) -> list:
        """What to show for a generator, in the order of the page's controls, facts and leftovers of the last one."""
        generator = self.find(model)
        dataset = self.dataset_of(generator)
        link = f"[{generator.page}]({generator.page})" if generator.page else ""
        return [
            *self.controls(generator),
            _visible(dataset is None),
            _visible(dataset is not None),
            *_scored(generator.scores),
            gr.update(value=show_file(generator.losses), visible=generator.losses is not None),
            link,
            *_NOTHING_MADE,
        ]

    def dataset_of(self, generator: Generator) -> str | None:
        """Where the slices are that a generator was trained on, if they may be shown to everybody.

        Those of real patients on this machine are shown where the page was started with their folder, and no others.
        """
        folder = generator.notes.dataset
        if self.dataset is not None:
            return self.dataset
        if folder is not None and Path(folder).is_dir() and read_preparation(folder).get("source") == "synthetic":
            return folder
        return generator.notes.repository


# Images, their time and what was made; files; images on the way, and those most alike.
_NOTHING_MADE = (*(None, "", None), *[gr.update(interactive=False)] * 3, *(None, None))


def _visible(shown: object) -> dict:
    return gr.update(visible=bool(shown))


def _scored(scores: Scores | None) -> list:
    """The questions that have an answer, their numbers, whether there is no report, whether there is one, and all."""
    answers = [(scores and scores.pair(name)) or (None, None) for name in ASKED]
    questions = [_visible(value is not None) for value, _ in answers]
    return [*questions, *chain(*answers), _visible(scores is None), _visible(scores), scores.table if scores else ""]


def _wall(conditions: Conditions) -> dict:
    """The control of the wall's thickness, in whole mm of what the model was trained on."""
    known = WALL in conditions.ranges
    most = math.floor(conditions.ranges[WALL][1]) if known else MOST_WALL
    return gr.update(visible=known, value=0, maximum=most)


def _question(conditions: Conditions, axis: str) -> dict:
    """What a control for a question shows: the model's default, or that all answers are welcome."""
    known = axis in conditions.axes
    return gr.update(visible=known, value=conditions.defaults.get(axis, OPEN) if known else None)


def _time(seconds: float, request: Request) -> str:
    return f"{request.num_images} × {seconds / request.num_images:.3g} s = {seconds:.3g} s"
