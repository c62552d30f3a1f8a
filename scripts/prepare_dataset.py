"""Turn ACDC into a dataset of slices, split by patient.

python scripts/prepare_dataset.py --acdc ACDC/database --output_dir data/acdc-64
python scripts/prepare_dataset.py --acdc acdc.zip --output_dir data/hcm-128 --resolution 128 --groups HCM
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.utils.process import count_cores


def main(
    acdc: Path,
    output_dir: Path,
    resolution: int = 64,
    groups: tuple[str, ...] = (),
    all_frames: bool = False,
    num_proc: int = count_cores(),
    seed: int = 0,
    push_to_hub: bool = False,
    hub_dataset_id: str | None = None,
    public: bool = False,
    i_have_the_rights: bool = False,
) -> None:
    """Turn ACDC into a dataset of slices, split by patient.

    Args:
        acdc: the ACDC folder or its .zip, with training/ and testing/ or one tree of patients.
        output_dir: where the dataset goes: a new or empty folder.
        resolution: pixels a side of 128 mm around the heart.
        groups: the groups to keep: DCM HCM MINF NOR RV; all of them by default.
        all_frames: also the frames between ED and ES where the 4-D cine is there.
        num_proc: processes that read patients.
        seed: of the split.
        push_to_hub: put the dataset on the Hub, privately; log in with `hf auth login` first.
        hub_dataset_id: the repository, user/name; by default the name of OUTPUT_DIR in your account.
        public: make it a public one.
        i_have_the_rights: you may publish these patients; needed for a public one of real patients.
    """
    if push_to_hub:  # what is wrong there shows before the preparation
        repo_id = hcm_hf.check_repository(hub_dataset_id or output_dir.resolve().name, "dataset", not public)
    elif hub_dataset_id or public:
        raise hcm_hf.InputError("--hub_dataset_id and --public are for --push_to_hub; give that too.")
    report = hcm_hf.prepare_dataset(acdc, output_dir, resolution, groups, all_frames, num_proc, seed)
    print(report)
    print(f"dataset: {output_dir}")
    if push_to_hub:
        try:
            print(f"on the Hub: {hcm_hf.push_dataset(output_dir, repo_id, not public, i_have_the_rights)}")
        except hcm_hf.InputError as error:
            raise hcm_hf.InputError(
                f"{error} The dataset is there: scripts/push.py --dataset {output_dir}."
            ) from error


if __name__ == "__main__":
    run(main)
