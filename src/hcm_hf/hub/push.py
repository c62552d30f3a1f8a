"""Models, datasets and Spaces to the Hub: each push is one commit, or none where nothing has changed."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from hcm_hf.data.dataset import load_dataset, read_preparation
from hcm_hf.data.preparation import LICENSES
from hcm_hf.data.preparation import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.schema import SPLITS
from hcm_hf.hub.cards import LOSSES, SAMPLES, render_dataset_card
from hcm_hf.hub.commit import CARD, Target, push
from hcm_hf.hub.publishable import (
    SPACE_MODELS,
    known_preparation,
    own_columns,
    space_files,
    to_json,
)
from hcm_hf.hub.repository import METRICS_FILE, find_model, model_files
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import LOGIN, checked_token, explained, read_name
from hcm_hf.version import __version__


# What a push may replace or remove: what one of this package has written there, and no file of anybody else.
OWN_MODEL_FILES = (
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
    found = find_model(model, report)
    token = checked_token(token)
    repo_id = check_repository(repo_id, "model", private, token, write=not create_pr)
    made = model_files(found, repo_id, lambda name, kind: _on_hub(name, kind, token))
    target = Target(repo_id, "model", private, revision, create_pr, token)
    return push(target, made.files, made.message, OWN_MODEL_FILES, {SAMPLES: made.draw_samples})


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


def _on_hub(name: str | None, repo_type: str, token: str | bool | None) -> str | None:
    """The id of the repository of this name, if there is one: a folder can have such a name, too."""
    found = name and read_name(name)
    if not found:
        return None
    with explained(found[1], repo_type):
        return found[1] if HfApi(token=token).repo_exists(found[1], repo_type=repo_type) else None
