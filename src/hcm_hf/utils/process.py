"""Processor cores, worker processes and the signals that stop a process."""

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hcm_hf.utils.errors import InputError


# Signals that ask a process to stop: from a user, a scheduler, a closing terminal, and Slurm's --signal=USR1@60.
STOP_SIGNALS = [
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if name in signal.Signals.__members__
]
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # a container's share of the processors: microseconds, and the period


def count_cores() -> int:
    """Return the number of processor cores that a scheduler or container lets this process use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _CPU_MAX.is_file():
        time, period = _CPU_MAX.read_text(encoding="ascii").split()
        if time != "max":
            cores = min(cores, math.ceil(int(time) / int(period)))
    return cores


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    if sys.platform == "win32":
        import psutil  # accelerate brings it

        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def map_processes(function: Callable, *iterables: Iterable, num_proc: int) -> Iterator:
    """Map a function over iterables with `num_proc` processes, in order; 1 is this process itself.

    Raises:
        InputError: if a process is killed.
    """
    if num_proc <= 1:
        yield from map(function, *iterables)
        return
    # Not forked, as the parent may run threads of torch.
    with ProcessPoolExecutor(num_proc, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, *iterables)
        except BrokenProcessPool as error:
            raise InputError(
                f"One of {num_proc} processes was killed: set num_proc to 1 if memory ran out, or if your script "
                "starts them outside of `if __name__ == '__main__':`."
            ) from error
        finally:  # also when the caller stops early
            pool.shutdown(cancel_futures=True)


@contextmanager
def stop_signals(handle: Callable[[int, FrameType | None], None]) -> Iterator[dict[signal.Signals, Any]]:
    """Handle the signals that ask to stop within the block; yield the handlers of before, which return after it.

    Ignored signals stay ignored, as SIGHUP under `nohup`. Handlers that are not Python's stay in place.
    """
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield {}
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
