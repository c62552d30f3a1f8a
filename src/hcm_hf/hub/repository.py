"""A trained generator as a repository of the Hub: every file of it, and nothing else."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.report import REPORT_FILE, Report
from hcm_hf.generation.images import image_generator
from hcm_hf.hub.cards import LOSSES, SAMPLES, render_card
from hcm_hf.hub.commit import CARD
from hcm_hf.hub.publishable import known_training, pipeline_files, read_regular, to_json
from hcm_hf.pipelines.auto import ROOT_CONFIG, HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.pipelines.notes import run_name
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import last_part
from hcm_hf.utils.names import CONFIG_FILE
from hcm_hf.utils.pictures import draw_masks, image_grid
from hcm_hf.version import __version__


METRICS_FILE = "metrics.json"
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 4, 8
_SAMPLE_SCALE = 2  # of each pixel


@dataclass(frozen=True)
class TrainedModel:
    """A trained generator on this machine.

    Attributes:
        run: the folder of its training, or of its pipeline where that holds what the training wrote.
        folder: the folder of its pipeline.
        pipeline: the generator.
        training: what the training wrote of itself.
        report: its evaluation, if there is one.
    """

    run: Path
    folder: Path
    pipeline: HCMPipeline
    training: dict
    report: Report | None


@dataclass(frozen=True)
class ModelRepository:
    """What is pushed.

    Attributes:
        files: content by path.
        draw_samples: makes the picture of samples, which takes a while.
        message: of the commit.
    """

    files: dict[str, bytes]
    draw_samples: Callable[[], bytes]
    message: str


def find_model(model: str | Path, report: str | Path | None = None) -> TrainedModel:
    """Load a trained generator with its report.

    Args:
        model: folder of a training run (its best model), or of a pipeline with its `training_config.json`.
        report: folder of `score`'s report on this model, or the report's file.

    Raises:
        InputError: if the model or the report is not there, or they do not belong together.
    """
    if not Path(model).is_dir():
        raise InputError(f"model {model} does not exist; name the folder of a training run.")
    folder = find_pipeline(model)
    run = folder.parent if (folder.parent / CONFIG_FILE).is_file() else folder
    training = read_training(run)
    if not training:
        raise InputError(f"model {model} has no {CONFIG_FILE} beside it; name the folder of a training run.")
    found = None if report is None else _read_report(Path(report), model, hash_model(folder))
    return TrainedModel(run, folder, HCMPipeline.from_pretrained(folder), training, found)


def model_files(model: TrainedModel, repo_id: str, on_hub: Callable[[str | None, str], str | None]) -> ModelRepository:
    """The files of a generator's repository: pipeline, card, report, figures and training configuration.

    Args:
        model: the generator.
        repo_id: by which its card loads it.
        on_hub: returns the id of the repository of a name and a kind ("model", "dataset"), None if there is none.
    """
    files, pipeline, report = pipeline_files(model.folder, model.pipeline), model.pipeline, model.report
    training = known_training(model.training)
    training["dataset_repository"] = on_hub(training.get("dataset_repository"), "dataset")
    if not training["dataset_repository"]:
        training["dataset"] = last_part(training["dataset"])
    for name in ("teacher", "guide"):
        if folder := training.get(name):
            training[name] = on_hub(folder, "model") or run_name(folder)
    files[CONFIG_FILE] = to_json(training)
    if pipeline.library_name != "diffusers":  # whose downloads are counted by another file
        facts = {key: training[key] for key in ("family", "recipe", "resolution")}
        files[ROOT_CONFIG] = to_json({"library_name": pipeline.library_name} | facts)
    if report is not None:
        name, encoder = report.dataset.name, last_part(report.encoder.source) if report.encoder else None
        named = not Path(name).exists() and on_hub(name, "dataset")
        report = report.renamed(repo_id, name if named else last_part(name), encoder)
        files[METRICS_FILE] = to_json(report.to_json())
    if (model.run / LOSSES).exists():
        files[LOSSES] = read_regular(model.run, LOSSES)
    draw, sampling = _samples(pipeline)
    files[CARD] = render_card(
        repo_id,
        training,
        library_name=pipeline.library_name,
        report=report,
        figures=(*files, SAMPLES),
        num_samples=_SAMPLE_ROWS * _SAMPLE_COLUMNS,
        sampling=sampling,
        axes=pipeline.conditions.axes if pipeline.makes_masks else {},
    ).encode()
    return ModelRepository(files, draw, f"{training['family']}, recipe {training['recipe']}, hcm_hf {__version__}")


def _read_report(path: Path, model: str | Path, model_hash: str) -> Report:
    if not (path / REPORT_FILE if path.is_dir() else path).is_file():
        raise InputError(f"report {path} does not exist; write one with scripts/score.py.")
    report = Report.load(path)
    if report.generator.model_hash != model_hash:
        raise InputError(
            f"report {path} is about another model ({report.generator.model}) than model {model}; score that one."
        )
    return report


def _samples(pipeline: HCMPipeline) -> tuple[Callable[[], bytes], str]:
    """What draws a grid of images of seed 0, as PNG, also with their masks; and how they are made, given a choice."""
    pipeline, sampling = Sampling(num_inference_steps=pipeline.preview_steps).applied_to(pipeline)
    made_with = sampling.noted

    def draw() -> bytes:
        pipeline.set_progress_bar_config(desc="Samples", leave=False)
        generators = [image_generator(0, index) for index in range(_SAMPLE_ROWS * _SAMPLE_COLUMNS)]
        output = pipeline(len(generators), generator=generators, output_type="np", **sampling.arguments)
        images, masks = output.images[..., 0], output.get("masks")
        if masks is None:
            grid = image_grid(np.split(images, _SAMPLE_ROWS), _SAMPLE_SCALE)
        else:
            drawn = [draw_masks(images, shown, _SAMPLE_SCALE) for shown in (np.zeros_like(masks), masks)]
            rows = zip(*(np.split(one, _SAMPLE_ROWS) for one in drawn), strict=True)
            grid = image_grid([row for pair in rows for row in pair], 1)
        buffer = io.BytesIO()
        grid.save(buffer, format="PNG")
        return buffer.getvalue()

    parts = [f"class {made_with['class']}"] if made_with["class"] else []
    parts += [f"{made_with['scheduler']}, {made_with['num_inference_steps']} steps"] if pipeline.denoises else []
    return draw, "; ".join(parts)
