"""Write a synthetic cohort in the ACDC layout: patients of all five groups, with masks and no download.

python scripts/write_phantom.py --output_dir data/phantom
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.utils.process import count_cores


def main(
    output_dir: Path,
    num_patients_per_group: int = 20,
    seed: int = 0,
    cine: bool = False,
    num_proc: int = count_cores(),
) -> None:
    """Write a synthetic cohort in the ACDC layout.

    Args:
        output_dir: a new or empty folder.
        num_patients_per_group: patients of each of the five groups.
        seed: of the patients.
        cine: also write the whole heart beat of each patient.
        num_proc: processes that draw patients.
    """
    hcm_hf.write_cohort(output_dir, num_patients_per_group, seed=seed, cine=cine, num_proc=num_proc)
    print(f"cohort: {output_dir}")


if __name__ == "__main__":
    run(main)
