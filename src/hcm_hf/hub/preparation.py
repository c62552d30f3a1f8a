"""The command that prepares a dataset and may push it to the Hub."""

from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from hcm_hf.data import preparation as data
from hcm_hf.utils.calls import arguments_of, deferred
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import count_cores


def prepare_dataset(
    prepare: Annotated[
        partial[data.PreparationReport],
        tyro.conf.arg(constructor=deferred(data.prepare_dataset, num_proc=count_cores()), name=""),
    ],
    push_to_hub: bool = False,
    hub_dataset_id: str | None = None,
    public: bool = False,
    i_have_the_rights: bool = False,
) -> None:
    """Turn ACDC into a dataset of slices, split by patient.

    Args:
        prepare: the preparation.
        push_to_hub: push the dataset to the Hub, privately; log in with `hf auth login` first.
        hub_dataset_id: the repository, user/name; by default the name of OUTPUT_DIR in your account.
        public: make the repository public.
        i_have_the_rights: you may publish these patients; needed for a public repository of real patients.
    """
    from hcm_hf.hub import push as hub  # slow to import

    output_dir = Path(str(arguments_of(prepare)["output_dir"]))
    if push_to_hub:  # before the preparation, not after it
        repo_id = hub.check_repository(hub_dataset_id or output_dir.resolve().name, "dataset", not public)
    elif hub_dataset_id or public:
        raise InputError("--hub_dataset_id and --public are for --push_to_hub; give that too.")
    print(prepare())
    print(f"dataset: {output_dir}")
    if push_to_hub:
        try:
            print(f"on the Hub: {hub.push_dataset(output_dir, repo_id, not public, i_have_the_rights)}")
        except InputError as error:
            raise InputError(f"{error} The dataset is there: scripts/push.py --dataset {output_dir}.") from error
