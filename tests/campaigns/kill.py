"""SIGKILL at random moments: the same command again gives what it would have given undisturbed."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

from hub_server import HubServer

from campaigns.outcomes import Outcomes
from campaigns.work import REPOSITORY, WORKS, make_inputs, work


def kill(
    folder: Path, outcomes: Outcomes, hub: HubServer, tries: int = 5, of: tuple[str, ...] = (), random_seed: int = 0
) -> None:
    """Kill each command at random moments, up to three times in a row, and run it to its end.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        hub: that of the tests, to push to.
        tries: for each command.
        of: the commands; by default all.
        random_seed: of the moments.
    """
    source = random.Random(random_seed)
    inputs = make_inputs(folder / "inputs")
    context = multiprocessing.get_context("forkserver")  # a process that has imported everything, and run nothing
    context.set_forkserver_preload(["campaigns.work"])

    def run(name: str, place: Path, seconds: float | None) -> tuple[float, int | None]:
        """Run a command, kill it after some seconds; return how long it took and its exit status."""
        (folder / "started").unlink(missing_ok=True)
        process = context.Process(target=work, args=(name, inputs, place, folder / "started"))
        process.start()
        while process.is_alive() and not (folder / "started").exists():
            time.sleep(0.005)
        began = time.monotonic()
        process.join(seconds)
        process.kill()
        process.join()
        return time.monotonic() - began, process.exitcode

    def result(name: str, place: Path) -> dict:
        return hub.files("model", REPOSITORY) if name == "push" else WORKS[name].result(place)

    for name in of or (*WORKS, "push"):
        _reset(hub)
        taken, status = run(name, folder / "whole", None)
        assert status == 0, f"{name} ends with {status} undisturbed"
        expected = result(name, folder / "whole")
        for _ in range(tries):
            _reset(hub)
            moments = [source.uniform(0, taken) for _ in range(source.randint(1, 3))]

            def attempt(name: str = name, moments: list[float] = moments, expected: dict = expected) -> None:
                place = folder / "killed"
                for moment in moments:
                    run(name, place, moment)
                _, status = run(name, place, None)
                assert status == 0, f"the command ends with {status} when it is run again"
                found = result(name, place)
                differing = sorted(key for key in expected | found if expected.get(key) != found.get(key))
                assert not differing, f"{differing} differ"

            outcomes.record(f"SIGKILL of {name}", attempt, moments, limits=False)
            shutil.rmtree(folder / "killed", ignore_errors=True)
        shutil.rmtree(folder / "whole", ignore_errors=True)


def _reset(hub: HubServer) -> None:
    hub.reset()
    hub.add_account("ada", "ada-writes")
