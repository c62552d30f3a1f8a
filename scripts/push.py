"""Put a model, a dataset or a Space on the Hugging Face Hub; log in with `hf auth login` first.

python scripts/push.py --model runs/dcgan --report reports/dcgan --repo_id user/hcm-dcgan --private
python scripts/push.py --dataset data/acdc-64 --repo_id user/hcm-acdc
python scripts/push.py --space spaces/hcm-generator --repo_id user/hcm-generator --models user/hcm-dcgan user/hcm-ddpm
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    repo_id: str,
    model: Path | None = None,
    dataset: Path | None = None,
    space: Path | None = None,
    report: Path | None = None,
    models: tuple[str, ...] = (),
    private: bool = False,
    public: bool = False,
    i_have_the_rights: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> None:
    """Put a model, a dataset or a Space on the Hugging Face Hub in one commit; none where nothing has changed.

    Args:
        repo_id: the repository, user/name; it is made where it does not exist.
        model: folder of a training run.
        dataset: folder of a prepared dataset.
        space: a folder of spaces/.
        report: folder of score.py's report on the model; without one its card says "not evaluated".
        models: the models of the Hub that the Space is to serve, each user/name; by default those of the last push.
        private: make a new repository private; a dataset's is private anyway.
        public: make a new repository public.
        i_have_the_rights: you may publish the patients of this dataset; needed for a public one of real patients.
        revision: a branch; made where it does not exist.
        create_pr: open a pull request instead of committing.
    """
    if sum(one is not None for one in (model, dataset, space)) != 1:
        raise hcm_hf.InputError("Give one of --model, --dataset and --space.")
    if private and public:
        raise hcm_hf.InputError("--private and --public exclude each other; give one.")
    if report is not None and model is None:
        raise hcm_hf.InputError(f"--report {report} belongs to a --model; leave it out.")
    if models and space is None:
        raise hcm_hf.InputError(f"--models {' '.join(models)} belongs to a --space; leave it out.")
    visibility, where = True if private else False if public else None, {"revision": revision, "create_pr": create_pr}
    if model is not None:
        url = hcm_hf.push_model(model, repo_id, report, private=visibility, **where)
    elif dataset is not None:
        rights = {"private": not public, "i_have_the_rights": i_have_the_rights}
        url = hcm_hf.push_dataset(dataset, repo_id, **rights, **where)
    else:
        url = hcm_hf.push_space(space, repo_id, models or None, private=visibility, **where)
    print(url)


if __name__ == "__main__":
    run(main)
