"""Models, datasets and Spaces to the Hub: each push is one commit, or none where nothing has changed."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from hcm_hf.data.dataset import load_dataset, read_preparation
from hcm_hf.data.preparation import LICENSES
from hcm_hf.data.preparation import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.schema import SPLITS
from hcm_hf.evaluation.report import REPORT_FILE, Report
from hcm_hf.generation.images import image_generator
from hcm_hf.hub.cards import LOSSES, SAMPLES, render_card, render_dataset_card
from hcm_hf.hub.commit import CARD, Target, push
from hcm_hf.hub.publishable import (
    SPACE_MODELS,
    known_preparation,
    known_training,
    own_columns,
    pipeline_files,
    read_regular,
    space_files,
    to_json,
)
from hcm_hf.pipelines.auto import ROOT_CONFIG, HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.pipelines.notes import run_name
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import LOGIN, checked_token, explained, read_name
from hcm_hf.utils.names import CONFIG_FILE
from hcm_hf.utils.pictures import draw_masks, image_grid
from hcm_hf.version import __version__


METRICS_FILE = "metrics.json"
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 4, 8
_SAMPLE_SCALE = 2  # of each pixel
# What a push may replace or remove: what one of this package has written there, and no file of anybody else.
_OWN_MODEL_FILES = (
    *("model_index.json", METRICS_FILE, LOSSES, SAMPLES, "scheduler/scheduler_config.json"),
    *("unet/config.json", "unet/diffusion_pytorch_model*", "network/config.json", "network/diffusion_pytorch_model*"),
)
_OWN_DATA_FILES = tuple(f"data/{split}{rest}" for split in SPLITS for rest in (".parquet", "-*.parquet"))


def push_model(
    model: str | Path,
    repo_id: str,
    report: str | Path | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Put a trained generator on the Hub: pipeline, card, report, figures and training configuration in one commit.

    The same push twice makes no second commit. What has become of a push that fails is looked up and said.

    Args:
        model: folder of a training run (its best model), or of a pipeline with its `training_config.json`.
        repo_id: `user/name`; it is made where it does not exist.
        report: folder of `score`'s report on this model, or its `report.json`.
        private: whether a new repository is private; by default as the account is set.
        revision: a branch, made from `main` where it does not exist.
        create_pr: open a pull request instead of committing.
        token: by default that of `hf auth login`; it is written nowhere.

    Returns:
        The address of the commit, or of the one that holds all this already.

    Raises:
        InputError: if the model or the report is not there, they do not belong together, or the Hub refuses.
    """
    if not Path(model).is_dir():
        raise InputError(f"model {model} does not exist; name the folder of a training run.")
    folder = find_pipeline(model)
    run = folder.parent if (folder.parent / CONFIG_FILE).is_file() else folder
    training = read_training(run)
    if not training:
        raise InputError(f"model {model} has no {CONFIG_FILE} beside it; name the folder of a training run.")
    found = None if report is None else _read_report(Path(report), model, hash_model(folder))
    token = checked_token(token)
    repo_id = check_repository(repo_id, "model", private, token, write=not create_pr)
    pipeline = HCMPipeline.from_pretrained(folder)
    files = pipeline_files(folder, pipeline)

    training = known_training(training)
    training["dataset_repository"] = _on_hub(training.get("dataset_repository"), "dataset", token)
    if not training["dataset_repository"]:
        training["dataset"] = Path(training["dataset"]).name
    if teacher := training.get("teacher"):
        training["teacher"] = _on_hub(teacher, "model", token) or run_name(teacher)
    files[CONFIG_FILE] = to_json(training)
    if pipeline.library_name != "diffusers":  # whose downloads are counted by another file
        facts = {key: training[key] for key in ("family", "recipe", "resolution")}
        files[ROOT_CONFIG] = to_json({"library_name": pipeline.library_name} | facts)
    if found is not None:
        name, encoder = found.dataset.name, Path(found.encoder.source).name if found.encoder else None
        named = not Path(name).exists() and _on_hub(name, "dataset", token)
        found = found.renamed(repo_id, name if named else Path(name).name, encoder)
        files[METRICS_FILE] = to_json(found.to_json())
    if (run / LOSSES).exists():
        files[LOSSES] = read_regular(run, LOSSES)
    draw, sampling = _samples(pipeline)
    files[CARD] = render_card(
        repo_id,
        training,
        library_name=pipeline.library_name,
        report=found,
        figures=(*files, SAMPLES),
        num_samples=_SAMPLE_ROWS * _SAMPLE_COLUMNS,
        sampling=sampling,
        axes=pipeline.conditions.axes if pipeline.makes_masks else {},
    ).encode()
    message = f"{training['family']}, recipe {training['recipe']}, hcm_hf {__version__}"
    target = Target(repo_id, "model", private, revision, create_pr, token)
    return push(target, files, message, _OWN_MODEL_FILES, {SAMPLES: draw})


def push_dataset(
    dataset: str | Path,
    repo_id: str,
    private: bool = True,
    i_have_the_rights: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Put a prepared dataset on the Hub: a Parquet file per split, its card and `preparation.json`, in one commit.

    `dataset` is a folder that `prepare_dataset` wrote, or `generate_images` with `save_dataset`. For a public
    repository of real patients `i_have_the_rights` says that you may publish them. All else is as in `push_model`.

    Raises:
        InputError: if the dataset is not there, is not to be published, or the Hub refuses.
    """
    splits = load_dataset(dataset)
    preparation = known_preparation(read_preparation(dataset))
    if preparation.get("source") not in LICENSES:
        raise InputError(f"dataset {dataset} has no {PREPARATION_FILE}; prepare it with scripts/prepare_dataset.py.")
    drawn = preparation["source"] in ("synthetic", "generated")  # which go as their models do: by their licence
    if not drawn and not private and not i_have_the_rights:
        raise InputError(
            f"{dataset} holds real patients and {repo_id} would be public; keep it private, or say "
            "i_have_the_rights if you may publish them (ACDC: CC BY-NC-SA 4.0, with its citation)."
        )
    token = checked_token(token)
    repo_id = check_repository(repo_id, "dataset", private, token, write=not create_pr)
    splits = datasets.DatasetDict({name: own_columns(splits[name]) for name in SPLITS})
    files, sizes = {PREPARATION_FILE: to_json(preparation)}, {}
    with TemporaryDirectory() as temporary:
        for name, split in splits.items():
            parquet = Path(temporary) / f"{name}.parquet"
            split.to_parquet(parquet)
            files[f"data/{parquet.name}"] = parquet.read_bytes()
            sizes[name] = f"data/{parquet.name}", parquet.stat().st_size
    files[CARD] = render_dataset_card(repo_id, preparation, splits, sizes).encode()
    message = f"{preparation['source']} at {preparation['resolution']} px, hcm_hf {__version__}"
    target = Target(repo_id, "dataset", private, revision, create_pr, token)
    return push(target, files, message, _OWN_DATA_FILES)


def push_space(
    folder: str | Path,
    repo_id: str,
    models: Sequence[str] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Put a Space on the Hub, with this package's source beside it where it needs that.

    `folder` is the Space's, with its README.md; `models` are the repositories of the models that it is to serve, by
    default those of the push before, if there are any. All else is as in `push_model`.

    Raises:
        InputError: if the folder is no Space, or the Hub refuses.
    """
    folder, token = Path(folder), checked_token(token)
    files = space_files(folder)
    name = folder.resolve().name
    if f"{name}.py" in files and repo_id.rpartition("/")[2] != name:
        raise InputError(f"evaluate loads {name}.py by its repository's name; call it {name}.")
    repo_id = check_repository(repo_id, "space", private, token, write=not create_pr)
    if models is not None:
        files[SPACE_MODELS] = to_json([_existing_model(one, token) for one in models])
    target = Target(repo_id, "space", private, revision, create_pr, token)
    return push(target, files, f"{name}, hcm_hf {__version__}", ("hcm_hf/*",))


def _existing_model(name: str, token: str | bool | None) -> str:
    """A model's repository as a Space reads it, `user/name` or `user/name@revision`."""
    found = read_name(name)
    if found is None or found[0] not in (None, "model"):
        raise InputError(f"models {name} is no model of the Hub; give user/name.")
    _, repo_id, revision = found
    with explained(repo_id, "model", revision):
        HfApi(token=token).repo_info(repo_id, revision=revision)
    return repo_id if revision is None else f"{repo_id}@{revision}"


def check_repository(
    repo_id: str, repo_type: str, private: bool | None, token: str | bool | None = None, write: bool = True
) -> str:
    """See that a repository may be written to, or made, and that it is as private as it is to be; nothing is changed.

    Returns its full name, with the account where `repo_id` has none.

    Raises:
        InputError: if it is not, or nobody is logged in.
    """
    token, named = checked_token(token), read_name(repo_id)
    if named is not None and named[0] not in (None, repo_type):
        raise InputError(f"{repo_id} is a {named[0]}, not a {repo_type}; give user/name of one.")
    if named is not None and named[2] is not None:
        raise InputError(f"{repo_id} names a revision; give {named[1]}, and {named[2]} as `revision`.")
    repo_id = repo_id if named is None else named[1]
    if token is False or (token is None and get_token() is None):
        raise InputError(f"You are not logged in to the Hub, so {repo_id} cannot be written; {LOGIN}.")
    api = HfApi(token=token)
    where: dict[str, Any] = {"repo_type": repo_type}
    with explained(repo_id, repo_type):
        account = api.whoami()
        full = repo_id if "/" in repo_id else f"{account['name']}/{repo_id}"
        try:
            existing = api.repo_info(full, **where)
        except RepositoryNotFoundError:
            existing = None
        if existing is not None and write:
            api.auth_check(full, write=True, **where)
    if existing is None:
        owners = [account["name"], *(one["name"] for one in account.get("orgs", []))]
        if full.partition("/")[0] not in owners:
            raise InputError(f"There is no {repo_type} {full}, and you are {account['name']}: name one of your own.")
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"The token may only read, so {full} cannot be made; {LOGIN} with one that may write.")
    elif private and not existing.private:
        raise InputError(
            f"The {repo_type} {full} is public, and it was to be private; make it private on its page, name another, "
            "or push it as a public one (`public`, in Python private=False)."
        )
    elif private is False and existing.private:
        raise InputError(
            f"The {repo_type} {full} is private, and it was to be public; make it public on its page, or push it as a "
            "private one (without `public`, in Python without private=False)."
        )
    return full


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


def _on_hub(name: str | None, repo_type: str, token: str | bool | None) -> str | None:
    """The id of the repository of this name, if there is one: a folder can have such a name, too."""
    found = name and read_name(name)
    if not found:
        return None
    with explained(found[1], repo_type):
        return found[1] if HfApi(token=token).repo_exists(found[1], repo_type=repo_type) else None
