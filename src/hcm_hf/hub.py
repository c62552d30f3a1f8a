"""Models, datasets and Spaces to the Hub: each push is one commit, or none where nothing has changed."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from diffusers import DiffusionPipeline
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from hcm_hf.cards import LOSSES, SAMPLES, render_card, render_dataset_card
from hcm_hf.config import CONFIG_FILE
from hcm_hf.data.dataset import LICENSES, load_dataset
from hcm_hf.data.dataset import REPORT_FILE as PREPARATION_FILE
from hcm_hf.errors import InputError
from hcm_hf.evaluation import read_training
from hcm_hf.figures import image_grid, save_png
from hcm_hf.generation import hash_model, image_generator
from hcm_hf.pipeline import HCMPipeline, find_pipeline, pipeline_patterns, prepare_sampling
from hcm_hf.report import REPORT_FILE
from hcm_hf.repositories import LOGIN, explained
from hcm_hf.version import __version__


METRICS_FILE = "metrics.json"
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 4, 8
_SAMPLE_STEPS = 50  # of a diffusion model
# What a push of a model may replace: files of another pipeline that lay there before would be loaded with it.
_OWN_FILES = ("model_index.json", "*/config.json", "*/*.safetensors", "scheduler/*", METRICS_FILE, LOSSES, SAMPLES)


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
    pipeline = HCMPipeline.from_pretrained(folder)
    repo_id = prepare_repository(repo_id, "model", private, token, write=not create_pr)

    found, training = found and _report_without_paths(found, training, repo_id), _without_paths(training)
    own = pipeline_patterns(folder, model)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for pattern in own for path in folder.glob(pattern)
    }
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
    ).encode()
    message = f"{training['family']}, recipe {training['recipe']}, hcm_hf {__version__}"
    return _commit(repo_id, "model", files, message, _OWN_FILES, revision, create_pr, token)


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
        dataset: a folder that `prepare_dataset` wrote.
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
    path = Path(dataset) / PREPARATION_FILE
    if not path.is_file():
        raise InputError(f"--dataset {dataset} has no {PREPARATION_FILE}; prepare it with scripts/prepare_dataset.py.")
    preparation = json.loads(path.read_text(encoding="utf-8"))
    real = LICENSES[preparation["source"]] != LICENSES["synthetic"]
    if real and not i_have_the_rights and (not private or _is_public(repo_id, "dataset", token)):
        raise InputError(
            f"{dataset} holds real patients and {repo_id} would be public; keep it private, or say "
            "--i_have_the_rights if you may publish them (ACDC: CC BY-NC-SA 4.0, with its citation)."
        )
    repo_id = prepare_repository(repo_id, "dataset", private, token, write=not create_pr)
    files, sizes = {PREPARATION_FILE: path.read_bytes()}, {}
    with TemporaryDirectory() as temporary:
        for name, split in splits.items():
            parquet = Path(temporary) / f"{name}.parquet"
            split.to_parquet(parquet)
            files[f"data/{parquet.name}"] = parquet.read_bytes()
            sizes[name] = f"data/{parquet.name}", parquet.stat().st_size
    files[constants.REPOCARD_NAME] = render_dataset_card(repo_id, preparation, splits, sizes).encode()
    message = f"{preparation['source']} at {preparation['resolution']} px, hcm_hf {__version__}"
    return _commit(repo_id, "dataset", files, message, ("data/*",), revision, create_pr, token)


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
    repo_id = prepare_repository(repo_id, "space", private, token, write=not create_pr)
    own = (f"{package.name}/*",)
    return _commit(
        repo_id, "space", files, f"{folder.resolve().name}, hcm_hf {__version__}", own, revision, create_pr, token
    )


def prepare_repository(
    repo_id: str, repo_type: str, private: bool | None, token: str | None = None, write: bool = True
) -> str:
    """Make a repository where it does not exist, and see that it may be written to.

    Returns:
        Its full name, with the account where `repo_id` has none.

    Raises:
        InputError: if that cannot be, or the repository is public though it is to be private.
    """
    if token is None and get_token() is None:
        raise InputError(f"You are not logged in to the Hub, so {repo_id} cannot be written; {LOGIN}.")
    api = HfApi(token=token)
    with explained(repo_id, repo_type):
        sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
        full = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **sdk).repo_id
        if write:
            api.auth_check(full, repo_type=repo_type, write=True)
    if private and _is_public(full, repo_type, token):
        raise InputError(f"The {repo_type} {full} exists and is public; make it private first, or name another.")
    return full


def _is_public(repo_id: str, repo_type: str, token: str | None) -> bool:
    """Whether there is such a repository and everybody can see it."""
    with explained(repo_id, repo_type):
        try:
            return not HfApi(token=token).repo_info(repo_id, repo_type=repo_type).private
        except RepositoryNotFoundError:
            return False


def _commit(
    repo_id: str,
    repo_type: str,
    files: Mapping[str, bytes],
    message: str,
    own: Sequence[str],
    revision: str | None,
    create_pr: bool,
    token: str | None,
) -> str:
    """One commit that holds `files` and, of what fits the patterns `own`, nothing else."""
    api, where = HfApi(token=token), {"repo_type": repo_type}
    with explained(repo_id, repo_type, revision), _card_checked(repo_id):
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True, **where)
        before = api.list_repo_files(repo_id, revision=revision, **where)
        operations = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [
            CommitOperationDelete(path)
            for path in before
            if path not in files and any(fnmatch.fnmatch(path, pattern) for pattern in own)
        ]
        commit = api.create_commit(
            repo_id, operations, commit_message=message, revision=revision, create_pr=create_pr, **where
        )
    return commit.pr_url or commit.commit_url


@contextmanager
def _card_checked(repo_id: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # what the Hub says of a card that it rejects
        if isinstance(error, InputError) or "README.md" not in str(error):
            raise
        reason = "; ".join(line.strip("- ") for line in str(error).splitlines()[1:] if line.strip())
        raise InputError(f"The Hub rejects the card of {repo_id} ({reason}); nothing was pushed.") from error


def _read_report(path: Path, model: str | Path, model_hash: str) -> dict:
    path = path / REPORT_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--report {path} does not exist; write one with scripts/score.py.")
    report = json.loads(path.read_text(encoding="utf-8"))
    if report["generator"].get("model_hash") != model_hash:
        raise InputError(
            f"--report {path} is about another model ({report['generator'].get('model')}) than --model {model}; score "
            "that one."
        )
    return report


def _samples(pipeline: DiffusionPipeline) -> tuple[bytes, str]:
    """A grid of images of seed 0 as PNG, and how they were made where there is a choice."""
    steps = {"num_inference_steps": _SAMPLE_STEPS} if "scheduler" in pipeline.components else {}
    arguments, made_with = prepare_sampling(pipeline, **steps)
    pipeline.set_progress_bar_config(desc="Samples", leave=False)
    generators = [image_generator(0, index) for index in range(_SAMPLE_ROWS * _SAMPLE_COLUMNS)]
    images = pipeline(len(generators), generator=generators, output_type="np", **arguments).images[..., 0]
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / SAMPLES
        save_png(image_grid(np.split(images, _SAMPLE_ROWS)), path)
        parts = [f"class {made_with['class']}"] if made_with["class"] else []
        parts += [f"{made_with['scheduler']}, {made_with['num_inference_steps']} steps"] if steps else []
        return path.read_bytes(), "; ".join(parts)


def _sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _without_paths(training: dict) -> dict:
    """What a training run wrote, without the paths of the machine that it ran on."""
    kept = {key: value for key, value in training.items() if key not in ("output_dir", "report_to")}
    return kept | {"dataset": training.get("dataset_repository") or Path(training["dataset"]).name}


def _report_without_paths(report: dict, training: dict, repo_id: str) -> dict:
    name, encoder = report["dataset"]["name"], report["encoder"]
    if name != training.get("dataset_repository"):
        name = Path(name).name
    return report | {
        "generator": report["generator"] | {"model": repo_id},
        "dataset": report["dataset"] | {"name": name},
        "encoder": encoder and encoder | {"source": Path(encoder["source"]).name},
    }


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
