"""The commands that may end on the Hub: a training, a preparation, and pushes."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from hcm_hf.evaluation.segmentation import find_segmenter
from hcm_hf.hub.push import check_repository, push_dataset, push_model, push_space
from hcm_hf.hub.trained import push_trained
from hcm_hf.training import loop
from hcm_hf.training.config import TrainingConfig
from hcm_hf.utils.calls import arguments_of, deferred, lazy
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import count_cores


PREPARE = deferred(lazy("data.preparation:prepare_dataset"), without=["segmenter"], acdc=None, num_proc=count_cores())


def train(
    config: TrainingConfig, push_to_hub: bool = False, hub_model_id: str | None = None, hub_private_repo: bool = False
) -> Path:
    """Train a generator; run the same command again to resume.

    Args:
        config: what to train.
        push_to_hub: push the best model to the Hub after the training; log in with `hf auth login` first.
        hub_model_id: the repository, user/name; by default hcm-FAMILY of your account.
        hub_private_repo: make a new repository private.

    Returns:
        The run's folder.
    """
    repo_id, private = hub_model_id or f"hcm-{config.family}", hub_private_repo or None
    pushes = push_to_hub and os.environ.get("RANK", "0") == "0"  # one of several processes
    if pushes:
        repo_id = check_repository(repo_id, "model", private)  # before the training, not after it
    output_dir = loop.train(config)
    if pushes:
        print(f"on the Hub: {push_model(output_dir, repo_id, private=private)}")
    return output_dir


def prepare_dataset(
    prepare: Annotated[partial, tyro.conf.arg(constructor=PREPARE, name="")],
    segmenter: Path | None = None,
    push_to_hub: bool = False,
    hub_dataset_id: str | None = None,
    public: bool = False,
    i_have_the_rights: bool = False,
) -> None:
    """Turn patients of ACDC or of cohorts of your own into a dataset of slices, split by patient.

    Args:
        prepare: the preparation.
        segmenter: folder of an encoder that shows where a heart without a mask is, or the name of a trained one; by
            default hcm-encoder-64, if it is there.
        push_to_hub: push the dataset to the Hub, privately; log in with `hf auth login` first.
        hub_dataset_id: the repository, user/name; by default the name of OUTPUT_DIR in your account.
        public: make the repository public.
        i_have_the_rights: you may publish these patients; needed for a public repository of real patients.
    """
    output_dir = Path(str(arguments_of(prepare)["output_dir"]))
    if push_to_hub:  # before the preparation, not after it
        repo_id = check_repository(hub_dataset_id or output_dir.resolve().name, "dataset", not public)
    elif hub_dataset_id or public:
        raise InputError("hub_dataset_id and `public` are for push_to_hub; give that too.")
    print(prepare(segmenter=find_segmenter(segmenter)))
    print(f"dataset: {output_dir}")
    if push_to_hub:
        try:
            print(f"on the Hub: {push_dataset(output_dir, repo_id, not public, i_have_the_rights)}")
        except InputError as error:
            raise InputError(f"{error} The dataset is there: scripts/push.py --dataset {output_dir}.") from error


def push(
    repo_id: str | None = None,
    model: Path | None = None,
    dataset: Path | None = None,
    space: Path | None = None,
    report: Path | None = None,
    models: tuple[str, ...] = (),
    pretrained: str | None = None,
    private: bool = False,
    public: bool = False,
    i_have_the_rights: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Put a model, a dataset or a Space on the Hugging Face Hub in one commit; none where nothing has changed.

    Log in with `hf auth login` first.

    Args:
        repo_id: the repository, user/name; it is created where it does not exist. `pretrained` needs none.
        model: folder of a training run.
        dataset: folder of a prepared dataset.
        space: a folder of spaces/.
        report: folder of a report on the model; without one its card says "not evaluated".
        models: repositories of the models that the Space serves, each user/name; by default those of the last push.
        pretrained: an account: all trained models that come with this package go there, each in a commit of its own.
        private: make a new repository private; a dataset's is private anyway.
        public: make a new repository public.
        i_have_the_rights: you may publish the patients of this dataset; needed for a public one of real patients.
        revision: a branch; created where it does not exist.
        create_pr: open a pull request instead of committing.

    Returns:
        The address of the commit, or of the earlier one that holds all this.
    """
    if sum(one is not None for one in (model, dataset, space, pretrained)) != 1:
        raise InputError("Give one of `model`, `dataset`, `space` and `pretrained`.")
    if pretrained is not None:
        return push_trained(pretrained)
    if repo_id is None:
        raise InputError("repo_id is missing; name the repository, user/name.")
    if private and public:
        raise InputError("`private` and `public` exclude each other; give one.")
    if report is not None and model is None:
        raise InputError(f"report {report} belongs to a `model`; leave it out.")
    if models and space is None:
        raise InputError(f"models {' '.join(models)} belongs to a `space`; leave it out.")
    visibility = True if private else False if public else None
    if model is not None:
        return push_model(model, repo_id, report, visibility, revision, create_pr)
    if space is not None:
        return push_space(space, repo_id, models or None, visibility, revision, create_pr)
    return push_dataset(str(dataset), repo_id, not public, i_have_the_rights, revision, create_pr)
