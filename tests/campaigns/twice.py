"""The same command twice at once, into the same folder."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

from campaigns.outcomes import Outcomes
from campaigns.work import REFUSED, WORKS, make_inputs, work


def twice(folder: Path, outcomes: Outcomes, tries: int = 5, of: tuple[str, ...] = (), random_seed: int = 0) -> None:
    """Start each command a second time while it runs; one of them may be refused, and nothing may be wrong.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        tries: for each command.
        of: the commands; by default all but push.
        random_seed: of how much later the second one starts.
    """
    source = random.Random(random_seed)
    inputs = make_inputs(folder / "inputs")
    context = multiprocessing.get_context("forkserver")  # a process that has imported everything, and run nothing
    context.set_forkserver_preload(["campaigns.work"])

    def run(name: str, place: Path, *seconds: float) -> list[int | None]:
        """Run a command once and, after some seconds, again; return the exit statuses."""
        processes = []
        for wait in (0.0, *seconds):
            time.sleep(wait)
            processes.append(context.Process(target=work, args=(name, inputs, place)))
            processes[-1].start()
        for process in processes:
            process.join()
        return [process.exitcode for process in processes]

    for name in of or WORKS:
        began = time.monotonic()
        assert run(name, folder / "whole") == [0], f"{name} fails undisturbed"
        taken = time.monotonic() - began
        expected = WORKS[name].result(folder / "whole")
        for _ in range(tries):
            seconds = source.choice([0.0, source.uniform(0, taken)])

            def attempt(name: str = name, seconds: float = seconds, expected: dict = expected) -> None:
                place = folder / "shared"
                statuses = run(name, place, seconds)
                assert set(statuses) <= {0, REFUSED} and 0 in statuses, f"they end with {statuses}"
                assert run(name, place) in ([0], [REFUSED]), "it fails afterwards"
                found = WORKS[name].result(place)
                differing = sorted(key for key in expected | found if expected.get(key) != found.get(key))
                assert not differing, f"{differing} differ"

            outcomes.record(f"{name} twice at once", attempt, seconds, limits=False)
            shutil.rmtree(folder / "shared", ignore_errors=True)
        shutil.rmtree(folder / "whole", ignore_errors=True)
