"""What the page's buttons and the API's endpoints do."""

import inspect
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import gradio as gr
import numpy as np
from copies import find_neighbours
from generators import SERVED, Drawing, Generator, Request, check_whole
from PIL import Image

from hcm_hf.errors import InputError
from hcm_hf.figures import draw_masks, image_grid, new_figure
from hcm_hf.generation import MANIFEST_FILE, MASK_STACK_FILE, MASK_SUFFIX, STACK_FILE, write_stack
from hcm_hf.models.conditions import OPEN, Conditions
from hcm_hf.report import GLANCE, transposed_table
from hcm_hf.version import __version__


try:
    from spaces import GPU  # what ZeroGPU installs, not the folder of that name
except ImportError:
    GPU = None

SHOWN_PIXELS = 256  # a side of an image on the page; the files keep their size
COMPARED = 4  # images of each generator
QUESTIONS = ("group", "phase", "level")  # that a model may be asked, where it knows the answers
COPY_SECONDS = 600  # after which gradio has its own copy of a file
_WORK = tempfile.TemporaryDirectory(prefix="hcm-generator-")
_PROGRESS = gr.Progress()  # where a handler has it as a default, gradio hands in its own
Made = tuple[Request, Drawing]  # what a visitor has made last


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


def explained(function: Callable) -> Callable:
    """Bad input reaches the visitor, and the API's caller, as its one sentence."""

    @wraps(function)
    def stream(*arguments: Any, **options: Any) -> Iterator:
        try:
            yield from function(*arguments, **options)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    @wraps(function)
    def answer(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return stream if inspect.isgeneratorfunction(function) else answer


class Handlers:
    """What the page's buttons and the API's endpoints do; the inputs are checked here, whatever the page allows."""

    def __init__(self, generators: Mapping[str, Generator], dataset: str | None):
        self.generators, self.dataset = generators, dataset

    def find(self, model: str) -> Generator:
        """The generator of that name."""
        if not isinstance(model, str) or model not in self.generators:
            raise InputError(f"There is no generator '{model}'; choose among {', '.join(self.generators)}.")
        return self.generators[model]

    @explained
    def generate(
        self,
        model: str,
        num_images: int,
        seed: int,
        class_labels: str | None,
        fix_codes: bool,
        category: int,
        code_1: float,
        code_2: float,
    ) -> tuple[list, str, Made]:
        """Draw images with a VAE or GAN; the same seed gives the same images.

        Args:
            model: the generator's name.
            num_images: how many, 1 to 64.
            seed: from 0; image i comes from (seed, i).
            class_labels: the patient's group, for a generator with classes; null for the others.
            fix_codes: whether the codes of an InfoGAN are those given; otherwise they are drawn like the rest.
            category: value of the categorical code, from 0.
            code_1: first continuous code, -1 to 1.
            code_2: second continuous code, -1 to 1.

        Returns:
            The images with their numbers, and the time that they took.
        """
        request = self._latent_request(model, num_images, seed, class_labels, fix_codes, category, code_1, code_2)
        generator = self.find(model)
        if generator.denoises:
            raise InputError(f"{model} is a diffusion model; ask for it with /denoise.")
        generator.check(request)
        (drawing,) = draw(generator.key, request)
        return _captioned(drawing), _time(drawing.seconds, request), (request, drawing)

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
        progress: gr.Progress = _PROGRESS,
    ) -> Iterator[tuple[list, str, Made | None]]:
        """Draw images with a diffusion model, and show them on their way from noise.

        Args:
            model: the generator's name.
            num_images: how many, 1 to 64.
            seed: from 0; image i comes from (seed, i).
            scheduler: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; null for the model's own.
            num_inference_steps: calls of the network per image, 1 to 1000, null for the model's own number; images
                times steps are 3200 at most.
            group: diagnosis group of the patients that the images are to be like, for a model with conditions: DCM,
                HCM, MINF, NOR or RV; "any" draws it as in the data, null is the model's default, HCM.
            phase: ED or ES, likewise; null is "any".
            level: part of the heart, base, mid or apex, likewise; null is "any".
            guidance_scale: 1 to 5, how closely the conditions are followed; 1 is without guidance.
            overlay: whether the images show the segmentations that come with them, in colour.
            progress: gradio's.

        Returns:
            The images with what they show or their numbers, and the time that they took; the last ones are done.
        """
        generator = self.find(model)
        if not generator.denoises:
            raise InputError(f"{model} is no diffusion model; ask for it with /generate.")
        own_scheduler, own_steps = generator.sampling
        request = Request(
            model,
            _whole(num_images),
            _whole(seed),
            generator.ask(dict(zip(QUESTIONS, (group, phase, level), strict=True))),
            scheduler=scheduler or own_scheduler,
            num_inference_steps=own_steps if num_inference_steps is None else _whole(num_inference_steps),
            guidance_scale=None if guidance_scale == 1 else guidance_scale,
        )
        generator.check(request)
        progress(0)
        for drawing in draw(generator.key, request):
            progress(drawing.done)
            done = drawing.done == 1
            yield (
                _captioned(drawing, overlay and done),  # in the noise there is no heart
                _time(drawing.seconds, request) if done else f"{drawing.done:.0%}",
                (request, drawing) if done else None,
            )

    def show(self, made: Made | None, overlay: bool) -> list | dict:
        """The images made last in this session, with their segmentations or without."""
        return gr.skip() if made is None else _captioned(made[1], overlay)

    @explained
    def interpolate(
        self,
        model: str,
        num_images: int,
        seed: int,
        class_labels: str | None,
        fix_codes: bool,
        category: int,
        code_1: float,
        code_2: float,
        other_seed: int,
    ) -> list:
        """Go from the first image of one seed to the first of another, along their latents.

        Args:
            model: a VAE or GAN.
            num_images: how many on the way, both ends included.
            seed: where to begin.
            class_labels: as in /generate.
            fix_codes: as in /generate.
            category: as in /generate.
            code_1: as in /generate.
            code_2: as in /generate.
            other_seed: where to end.
        """
        request = self._latent_request(model, num_images, seed, class_labels, fix_codes, category, code_1, code_2)
        generator = self.find(model)
        generator.check(request)
        return _captioned(Drawing(travel(generator.key, request, _whole(other_seed))))

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
        for index, generator in enumerate(self.generators.values()):
            progress((index, len(self.generators)))
            given = generator.denoises and not generator.has_own_sampling
            steps = (scheduler, _whole(num_inference_steps)) if given else (None, None)
            request = Request(generator.name, COMPARED, _whole(seed), None, None, None, *steps)
            generator.check(request)
            *_, drawing = draw(generator.key, request)
            grid = drawing.images.reshape(2, -1, *drawing.images.shape[1:])
            seconds.append(drawing.seconds)
            caption = f"{generator.name.rpartition('/')[2]} · {drawing.seconds / COMPARED:.2g} s"
            shown.append((_shown(grid, _new_folder() / "grid.png"), caption))
            total = sum(seconds)
            yield shown, f"{len(shown)} / {len(self.generators)} · {total:.3g} s"

    @explained
    def nearest(self, made: Made | None, index: int) -> tuple[list, float, float, float, Any]:
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
        check_whole("index", _whole(index), 0, len(images) - 1)
        generator = self.find(request.model)
        dataset = self.dataset_of(generator)
        if dataset is None:
            raise InputError(f"The slices that {request.model} was trained on are not here; start with --dataset.")
        found = find_neighbours(images[index], dataset, tuple(generator.training.get("groups", ("HCM",))))
        folder = _new_folder()
        captions = [
            f"{value:.2f} {caption}" for value, caption in zip(found.correlations, found.captions, strict=True)
        ]
        pairs = zip([images[index], *found.images], [str(index), *captions], strict=True)
        shown = [(_shown(image, folder / f"{rank}.png"), caption) for rank, (image, caption) in enumerate(pairs)]
        highest = float(found.correlations[0])
        return (
            shown,
            round(highest, 3),
            round(100 * found.rank, 1),
            round(found.threshold, 3),
            _histogram(found.heldout, highest, found.threshold),
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
        request, drawing = made
        settings = {key: value for key, value in vars(request).items() if value is not None and key != "num_images"}
        folder, count = _new_folder(), len(drawing.images)
        name = f"{request.model.replace('/', '-')}-seed{request.seed}"
        pictures = {".png": np.rint(drawing.images * 255).astype(np.uint8)}
        if drawing.masks is not None:
            pictures[MASK_SUFFIX] = drawing.masks
        with ZipFile(folder / f"{name}.zip", "w", ZIP_STORED) as archive:
            lines = []
            for index in range(count):
                files = {suffix: f"{index:06d}{suffix}" for suffix in pictures}
                for suffix, file in files.items():
                    Image.fromarray(pictures[suffix][index]).save(folder / file, format="PNG")
                    archive.write(folder / file, file)
                entry = {"file": files[".png"]}
                if drawing.masks is not None:
                    entry |= {"mask": files[MASK_SUFFIX], **drawing.conditions[index]}
                lines.append(json.dumps({**entry, **settings, "version": __version__, "synthetic": True}) + "\n")
            archive.writestr(MANIFEST_FILE, "".join(lines))
        stacks = [folder / f"{name}-{STACK_FILE}"]
        write_stack(folder, count, stacks[0])
        if drawing.masks is not None:
            stacks.append(folder / f"{name}-{MASK_STACK_FILE}")
            write_stack(folder, count, stacks[1], MASK_SUFFIX)
        for file in folder.glob("*.png"):
            file.unlink()
        files = [str(path) for path in (folder / f"{name}.zip", *stacks)]
        return files[0], files[1], files[2] if drawing.masks is not None else None

    @explained
    def describe(self, model: str) -> list:
        """What to show for a generator, in the order of the page's controls, facts and leftovers of the last one."""
        generator = self.find(model)
        denoises, classes, conditions = generator.denoises, generator.class_names, generator.conditions
        paired = bool(conditions.axes)  # what can be asked for comes with its segmentation
        visible = lambda shown: gr.update(visible=bool(shown))  # noqa: E731
        controls = [
            gr.update(visible=bool(classes), value=generator.default_class),
            visible(generator.num_codes[1] == 2),
            gr.update(value=False),
            visible(denoises),
            *(gr.update(value=value) for value in generator.sampling),
            visible(paired),
            *(_question(conditions, axis) for axis in QUESTIONS),
            gr.update(value=1),
            visible(paired),
            gr.update(value=paired),
            visible(not denoises),
            visible(denoises),
            visible(paired),
            visible(not denoises),
            visible(denoises),
        ]
        dataset, report = self.dataset_of(generator), generator.report
        names = [name for name in GLANCE if report and name in report["rows"]["generated"]]
        table = transposed_table(report["rows"], names) if report else ""
        if report:
            data = report["dataset"]
            table += (
                f"\n\n{report['n_generated']} / {report['n_heldout']} ({report['n_heldout_patients']} patients, "
                f"split {data['split']}, {', '.join(data['groups'])}), seed {report['seed']}, "
                f"hcm_hf {report['hcm_hf_version']}"
            )
        link = f"[{generator.page}]({generator.page})" if generator.page else ""
        return [
            *controls,
            visible(dataset is None),
            visible(dataset is not None),
            visible(report is None),
            table,
            gr.update(value=_copied(generator.losses), visible=generator.losses is not None),
            link,
            *(None, "", None),
            *[gr.update(interactive=False)] * 3,
            *(None, None),
        ]

    def _latent_request(self, model, num_images, seed, class_labels, fix_codes, category, code_1, code_2) -> Request:
        """What the page's controls, or the API's arguments, ask of a VAE or GAN."""
        codes = (_whole(category), (code_1, code_2)) if fix_codes else (None, None)
        class_labels = class_labels or self.find(model).default_class
        return Request(model, _whole(num_images), _whole(seed), class_labels, *codes)

    def dataset_of(self, generator: Generator) -> str | None:
        """Where the slices are that a generator was trained on, if they are at hand."""
        noted = generator.training.get("dataset")
        if self.dataset is not None:
            return self.dataset
        return generator.training.get("dataset_repository") or (noted if noted and Path(noted).is_dir() else None)


def _whole(value: object) -> object:
    """Widgets send whole numbers as floats; what is none is left for the check to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _question(conditions: Conditions, axis: str) -> dict:
    """What a control for a question shows: the model's default, or that all answers are welcome."""
    known = axis in conditions.axes
    return gr.update(visible=known, value=conditions.defaults.get(axis, OPEN) if known else None)


def _captioned(drawing: Drawing, overlay: bool = False) -> list[tuple[str, str]]:
    """Pictures of the images and what they show, or their numbers."""
    folder, images = _new_folder(), drawing.images
    if overlay and drawing.masks is not None:
        images = draw_masks(images, drawing.masks, _enlargement(images.shape[-1]))
    captions = [" ".join(filter(None, answers.values())) for answers in drawing.conditions]
    captions = captions or map(str, range(len(images)))
    shown = (_shown(image, folder / f"{index:06d}.png") for index, image in enumerate(images))
    return list(zip(shown, captions, strict=True))


def _shown(images: np.ndarray, path: Path) -> str:
    """One image (H, W) or (H, W, 3), or rows of them (R, N, H, W), enlarged for the page, as a file.

    gradio copies a file once, but writes the same picture anew each time, even while somebody is loading it.
    """
    rows = images if images.ndim == 4 else [images[None]]
    grid = image_grid(rows, _enlargement(rows[0].shape[2]), gap=2 if images.ndim == 4 else 0)
    grid.save(path, format="PNG")
    return str(path)


def _enlargement(side: int) -> int:
    return max(1, SHOWN_PIXELS // side)


def _time(seconds: float, request: Request) -> str:
    return f"{request.num_images} × {seconds / request.num_images:.3g} s = {seconds:.3g} s"


def _histogram(heldout: np.ndarray, value: float, threshold: float) -> Any:
    figure = new_figure(7, 2.4)
    axes = figure.add_subplot(xlabel="CC", yticks=[])
    axes.hist(heldout, bins=24, color="#bbb")
    axes.axvline(threshold, color="#c33", linestyle=":", label="99 %")
    axes.axvline(value, color="#000", linewidth=2)
    axes.legend(frameon=False, loc="center left")
    return figure


def _copied(path: Path | None) -> str | None:
    """A copy where gradio may read: it serves nothing of the folders that models lie in."""
    return None if path is None else shutil.copy(path, _new_folder() / path.name)


def _new_folder() -> Path:
    """A folder for files that gradio copies to its own cache at once."""
    return Path(tempfile.mkdtemp(dir=_WORK.name))


def tidy() -> None:
    """Remove the folders of earlier requests."""
    for old in Path(_WORK.name).iterdir():
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > COPY_SECONDS:
                shutil.rmtree(old, ignore_errors=True)


def keep_tidy() -> None:
    """Tidy for as long as the page is served."""
    while True:
        time.sleep(COPY_SECONDS)
        tidy()
