"""`python -m campaigns NAME`: run a campaign and print its table; the exit status says whether all survived."""

import os
import signal
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hub_server import HubServer, environment


# What reads the environment is imported afterwards; progress bars would hide the table.
HUB = HubServer()
HUB.start()
HOME = TemporaryDirectory(prefix="hcm_hf-campaign-")
os.environ |= environment(HUB.url, HOME.name, token="ada-writes") | {"TQDM_DISABLE": "1"}

import torch  # noqa: E402
import tyro  # noqa: E402

from campaigns.damage import damage  # noqa: E402
from campaigns.disk import disk  # noqa: E402
from campaigns.fuzz import fuzz  # noqa: E402
from campaigns.hosts import hosts  # noqa: E402
from campaigns.kill import kill  # noqa: E402
from campaigns.load import load  # noqa: E402
from campaigns.outcomes import Outcomes  # noqa: E402
from campaigns.twice import twice  # noqa: E402
from hcm_hf.utils.calls import deferred  # noqa: E402


CAMPAIGNS = {"fuzz": fuzz, "damage": damage, "disk": disk, "kill": kill, "hosts": hosts, "twice": twice, "load": load}


def main() -> None:
    torch.set_num_threads(1)
    commands = {
        name: deferred(function, without=("folder", "outcomes", "hub")) for name, function in CAMPAIGNS.items()
    }
    campaign: partial = tyro.extras.subcommand_cli_from_dict(commands, use_underscores=True)
    hub, outcomes = {"hub": HUB} if campaign.func is kill else {}, Outcomes()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        redirect_stdout(sys.stderr),  # what the work says is not the table
        suppress(KeyboardInterrupt),  # what was found until then is printed
    ):
        campaign(folder=Path(folder), outcomes=outcomes, **hub)
    print(outcomes.table())
    sys.exit(any(outcomes.failures.values()))


if __name__ == "__main__":
    main()
