"""Models, datasets and Spaces to the Hub: each push is one commit, or none where nothing has changed."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from diffusers import DiffusionPipeline
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from hcm_hf.cards import LOSSES, SAMPLES, render_card, render_dataset_card
from hcm_hf.config import CONFIG_FILE
from hcm_hf.data.dataset import LICENSES, SPLITS, load_dataset, read_preparation
from hcm_hf.data.dataset import REPORT_FILE as PREPARATION_FILE
from hcm_hf.errors import InputError
from hcm_hf.figures import draw_masks, image_grid, save_png
from hcm_hf.generation import image_generator
from hcm_hf.pipeline import HCMPipeline, find_pipeline, hash_model, pipeline_patterns, prepare_sampling, read_training
from hcm_hf.report import REPORT_FILE
from hcm_hf.repositories import LOGIN, explained, first_line, parse_repository
from hcm_hf.version import __version__


METRICS_FILE = "metrics.json"
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 4, 8
_SAMPLE_SCALE = 2  # of each pixel
_SAMPLE_STEPS = 50  # of a diffusion model that has no number of its own
# What a push may replace or remove: what one of this package has written there, and no file of anybody else.
_OWN_MODEL_FILES = (
    *("model_index.json", METRICS_FILE, LOSSES, SAMPLES, "scheduler/scheduler_config.json"),
    *("unet/config.json", "unet/diffusion_pytorch_model*", "network/config.json", "network/diffusion_pytorch_model*"),
)
_OWN_DATA_FILES = tuple(f"data/{split}{rest}" for split in SPLITS for rest in (".parquet", "-*.parquet"))
_SOURCE_SUFFIXES = (".py", ".md", ".txt", ".typed", ".yaml")


def push_model(
    model: str | Path,
    repo_id: str,
    report: str | Path | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> str:
    """Put a trained generator on the Hub: pipeline, card, report, figures and training configuration in one commit.

    The same push twice makes no second commit. A push that fails leaves the repository as it was.

    Args:
        model: folder of a training run (its best model), or of a pipeline with its `training_config.json`.
        repo_id: `user/name`; it is made where it does not exist.
        report: folder of `score`'s report on this model, or its `report.json`.
        private: whether a new repository is private; by default as the account is set.
        revision: a branch, made from `main` where it does not exist.
        create_pr: open a pull request instead of committing.
        token: by default that of `hf auth login`; it is written nowhere.

    Returns:
        The address of the commit, or of the repository where there was nothing new.

    Raises:
        InputError: if the model or the report is not there, they do not belong together, or the Hub refuses.
    """
    if not Path(model).is_dir():
        raise InputError(f"--model {model} does not exist; name the folder of a training run.")
    folder = find_pipeline(model)
    run = folder.parent if (folder.parent / CONFIG_FILE).is_file() else folder
    training = read_training(run)
    if not training:
        raise InputError(f"--model {model} has no {CONFIG_FILE} beside it; name the folder of a training run.")
    found = None if report is None else _read_report(Path(report), model, hash_model(folder))
    repo_id = check_repository(repo_id, "model", private, token, write=not create_pr)
    pipeline = HCMPipeline.from_pretrained(folder)

    found, training = found and _report_without_paths(found, training, repo_id), _without_paths(training)
    paths = [path for pattern in pipeline_patterns(folder, model) for path in folder.glob(pattern)]
    files = {path.relative_to(folder).as_posix(): _without_origin(path) for path in paths}
    files[CONFIG_FILE] = _json(training)
    if found is not None:
        files[METRICS_FILE] = _json(found)
    if (run / LOSSES).is_file():
        files[LOSSES] = (run / LOSSES).read_bytes()
    files[SAMPLES], sampling = _samples(pipeline)
    files[constants.REPOCARD_NAME] = render_card(
        repo_id,
        training,
        library_name=type(pipeline).__module__.partition(".")[0],
        report=found,
        figures=files,
        num_samples=_SAMPLE_ROWS * _SAMPLE_COLUMNS,
        sampling=sampling,
        axes=dict(pipeline.config.get("axes", ())),
    ).encode()
    message = f"{training['family']}, recipe {training['recipe']}, hcm_hf {__version__}"
    target = _Target(repo_id, "model", private, revision, create_pr, token)
    return _commit(target, files, message, _OWN_MODEL_FILES)


def push_dataset(
    dataset: str | Path,
    repo_id: str,
    private: bool = True,
    i_have_the_rights: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> str:
    """Put a prepared dataset on the Hub: a Parquet file per split, its card and `preparation.json`, in one commit.

    Args:
        dataset: a folder that `prepare_dataset` wrote, or `generate_images` with `save_dataset`.
        repo_id: `user/name`; it is made where it does not exist.
        private: whether the repository is private.
        i_have_the_rights: that you may publish these patients; needed for a public repository of real ones.
        revision: as in `push_model`.
        create_pr: as in `push_model`.
        token: as in `push_model`.

    Returns:
        The address of the commit, or of the repository where there was nothing new.

    Raises:
        InputError: if the dataset is not there, is not to be published, or the Hub refuses.
    """
    splits = load_dataset(dataset)
    preparation = read_preparation(dataset)
    if preparation.get("source") not in LICENSES:
        raise InputError(f"--dataset {dataset} has no {PREPARATION_FILE}; prepare it with scripts/prepare_dataset.py.")
    real = preparation["source"] == "acdc"  # generated slices go as their models do: by their licence
    if real and not private and not i_have_the_rights:
        raise InputError(
            f"{dataset} holds real patients and {repo_id} would be public; keep it private, or say "
            "--i_have_the_rights if you may publish them (ACDC: CC BY-NC-SA 4.0, with its citation)."
        )
    repo_id = check_repository(repo_id, "dataset", private, token, write=not create_pr)
    files, sizes = {PREPARATION_FILE: _json(preparation)}, {}
    with TemporaryDirectory() as temporary:
        for name, split in splits.items():
            parquet = Path(temporary) / f"{name}.parquet"
            split.to_parquet(parquet)
            files[f"data/{parquet.name}"] = parquet.read_bytes()
            sizes[name] = f"data/{parquet.name}", parquet.stat().st_size
    files[constants.REPOCARD_NAME] = render_dataset_card(repo_id, preparation, splits, sizes).encode()
    message = f"{preparation['source']} at {preparation['resolution']} px, hcm_hf {__version__}"
    target = _Target(repo_id, "dataset", private, revision, create_pr, token)
    return _commit(target, files, message, _OWN_DATA_FILES)


def push_space(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> str:
    """Put a Space on the Hub, with this package's source beside it, so that it needs no release of it.

    Args:
        folder: of the Space, with its README.md.
        repo_id: `user/name`; it is made where it does not exist.
        private: whether a new repository is private; by default as the account is set.
        revision: as in `push_model`.
        create_pr: as in `push_model`.
        token: as in `push_model`.

    Returns:
        The address of the commit, or of the repository where there was nothing new.

    Raises:
        InputError: if the folder is no Space, or the Hub refuses.
    """
    folder, package = Path(folder), Path(__file__).parent
    if not (folder / constants.REPOCARD_NAME).is_file():
        raise InputError(f"{folder} holds no README.md; name a folder of spaces/.")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _sources(folder)}
    files |= {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in _sources(package)}
    metric = f"{folder.resolve().name}.py"
    if metric in files and repo_id.rpartition("/")[2] != folder.resolve().name:
        raise InputError(f"evaluate loads {metric} by its repository's name; call it {folder.resolve().name}.")
    repo_id = check_repository(repo_id, "space", private, token, write=not create_pr)
    target = _Target(repo_id, "space", private, revision, create_pr, token)
    return _commit(target, files, f"{folder.resolve().name}, hcm_hf {__version__}", (f"{package.name}/*",))


def check_repository(
    repo_id: str, repo_type: str, private: bool | None, token: str | None = None, write: bool = True
) -> str:
    """See that a repository may be written to, or made, and that it is as private as it is to be; nothing is changed.

    Returns:
        Its full name, with the account where `repo_id` has none.

    Raises:
        InputError: if it is not, or nobody is logged in.
    """
    if token is None and get_token() is None:
        raise InputError(f"You are not logged in to the Hub, so {repo_id} cannot be written; {LOGIN}.")
    api, where = HfApi(token=token), {"repo_type": repo_type}
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
        raise InputError(f"The {repo_type} {full} is public; say --public, make it private there, or name another.")
    elif private is False and existing.private:
        raise InputError(f"The {repo_type} {full} is private; make it public on its page, or leave out --public.")
    return full


@dataclass(frozen=True)
class _Target:
    """Where a push goes."""

    repo_id: str
    repo_type: str
    private: bool | None
    revision: str | None
    create_pr: bool
    token: str | None


def _commit(target: _Target, files: Mapping[str, bytes], message: str, own: Sequence[str]) -> str:
    """One commit that holds `files` and, of what fits the patterns `own`, nothing else."""
    api, where = HfApi(token=target.token), {"repo_type": target.repo_type}
    repo_id, revision = target.repo_id, target.revision
    with _card_checked(repo_id), explained(repo_id, target.repo_type, revision):
        sdk = {"space_sdk": "gradio"} if target.repo_type == "space" else {}
        api.create_repo(repo_id, private=target.private, exist_ok=True, **sdk, **where)
        if revision is not None and not target.create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True, **where)
        before = api.repo_info(repo_id, revision=revision, **where)
        operations = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [
            CommitOperationDelete(one.rfilename)
            for one in before.siblings
            if one.rfilename not in files and any(fnmatch.fnmatchcase(one.rfilename, pattern) for pattern in own)
        ]
        commit = api.create_commit(
            repo_id,
            operations,
            commit_message=message,
            revision=revision,
            create_pr=target.create_pr,
            parent_commit=before.sha,  # so that what somebody else pushes meanwhile is not mixed with this
            **where,
        )
    return commit.pr_url or commit.commit_url


@contextmanager
def _card_checked(repo_id: str) -> Iterator[None]:
    """What goes wrong in a push besides what `explained` knows: a card that is rejected, an upload that fails."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, ValueError) and "README.md" in str(error):
            reason = "; ".join(line.strip("- ") for line in str(error).splitlines()[1:] if line.strip())
            raise InputError(f"The Hub rejects the card of {repo_id} ({reason}); nothing was pushed.") from None
        reason = first_line(error.__cause__ or error)
        raise InputError(f"The push to {repo_id} failed ({reason}); nothing was changed there, push again.") from None


def _read_report(path: Path, model: str | Path, model_hash: str) -> dict:
    path = path / REPORT_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--report {path} does not exist; write one with scripts/score.py.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        source = report["generator"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--report {path} is no report of scripts/score.py; write one anew.") from error
    if source.get("model_hash") != model_hash:
        raise InputError(
            f"--report {path} is about another model ({source.get('model')}) than --model {model}; score that one."
        )
    return report


def _samples(pipeline: DiffusionPipeline) -> tuple[bytes, str]:
    """A grid of images of seed 0 as PNG, and how they were made where there is a choice.

    Each row of a model that makes masks is followed by the same with its masks.
    """
    denoises = "scheduler" in pipeline.components
    steps = pipeline.config.get("num_inference_steps", _SAMPLE_STEPS) if denoises else None
    arguments, made_with = prepare_sampling(pipeline, num_inference_steps=steps)
    pipeline.set_progress_bar_config(desc="Samples", leave=False)
    generators = [image_generator(0, index) for index in range(_SAMPLE_ROWS * _SAMPLE_COLUMNS)]
    output = pipeline(len(generators), generator=generators, output_type="np", **arguments)
    images, masks = output.images[..., 0], output.get("masks")
    if masks is None:
        grid = image_grid(np.split(images, _SAMPLE_ROWS), _SAMPLE_SCALE)
    else:
        drawn = [draw_masks(images, shown, _SAMPLE_SCALE) for shown in (np.zeros_like(masks), masks)]
        rows = zip(*(np.split(one, _SAMPLE_ROWS) for one in drawn), strict=True)
        grid = image_grid([row for pair in rows for row in pair], 1)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / SAMPLES
        save_png(grid, path)
        parts = [f"class {made_with['class']}"] if made_with["class"] else []
        parts += [f"{made_with['scheduler']}, {made_with['num_inference_steps']} steps"] if denoises else []
        return path.read_bytes(), "; ".join(parts)


def _sources(folder: Path) -> Iterator[Path]:
    """Files that are source, and nothing that a shell, an editor or a run has left there."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
        if path.is_file() and not path.is_symlink() and not hidden and path.suffix in _SOURCE_SUFFIXES:
            yield path


def _without_origin(path: Path) -> bytes:
    """A pipeline's file; of a configuration without the folder that it was once loaded from."""
    data = path.read_bytes()
    if path.suffix == ".json" and b"_name_or_path" in data:
        return _json({key: value for key, value in json.loads(data).items() if key != "_name_or_path"})
    return data


def _without_paths(training: dict) -> dict:
    """What a training run wrote, without the paths of the machine that it ran on."""
    kept = {key: value for key, value in training.items() if key not in ("output_dir", "report_to")}
    if not training.get("dataset_repository"):
        kept["dataset"] = Path(training["dataset"]).name
    for name in ("teacher", "student"):
        if training.get(name) and parse_repository(training[name]) is None:
            kept[name] = _run_name(training[name])
    return kept


def _run_name(folder: str) -> str:
    """A run's name, also where its best model was named."""
    path = Path(folder)
    return path.parent.name if path.name == "best" else path.name


def _report_without_paths(report: dict, training: dict, repo_id: str) -> dict:
    name, encoder = report["dataset"]["name"], report["encoder"]
    if name.partition("@")[0] != training.get("dataset_repository"):
        name = Path(name).name
    return report | {
        "generator": report["generator"] | {"model": repo_id},
        "dataset": report["dataset"] | {"name": name},
        "encoder": encoder and encoder | {"source": Path(encoder["source"]).name},
    }


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
