"""`python -m campaigns NAME`: run a campaign and print its table; the exit status says whether all survived."""

import os
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory


# Progress bars of the work itself would hide the table; what reads the environment is imported afterwards.
os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import torch  # noqa: E402
import tyro  # noqa: E402

from campaigns.damage import damage  # noqa: E402
from campaigns.fuzz import fuzz  # noqa: E402
from hcm_hf.utils.calls import deferred  # noqa: E402


CAMPAIGNS = {"fuzz": fuzz, "damage": damage}


def main() -> None:
    torch.set_num_threads(1)
    commands = {name: deferred(function, without=("folder",)) for name, function in CAMPAIGNS.items()}
    campaign: partial = tyro.extras.subcommand_cli_from_dict(commands, use_underscores=True)
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # what the work says is not the table
        outcomes = campaign(Path(folder))
    print(outcomes.table())
    sys.exit(any(outcomes.failures.values()))


if __name__ == "__main__":
    main()
