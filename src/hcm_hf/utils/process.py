"""This process and what surrounds it: the cores it may use, the processes it starts, the signals that stop it."""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hcm_hf.utils.errors import InputError


# That ask a process to stop: of a user, a scheduler, a terminal that closes, and Slurm's --signal=USR1@60.
STOP_SIGNALS = [
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if name in signal.Signals.__members__
]
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # what a container may use of the processors: microseconds, and of how many


def count_cores() -> int:
    """The processor cores that this process may use: a scheduler or a container often leaves it a few of all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _CPU_MAX.is_file():
        time, period = _CPU_MAX.read_text(encoding="ascii").split()
        if time != "max":
            cores = min(cores, math.ceil(int(time) / int(period)))
    return cores


def map_processes(function: Callable, *iterables: Iterable, num_proc: int) -> Iterator:
    """`map` by `num_proc` processes, in order; 1 is this process itself.

    Raises:
        InputError: if a process is killed.
    """
    if num_proc <= 1:
        yield from map(function, *iterables)
        return
    # Not forked: the parent may hold threads of torch.
    with ProcessPoolExecutor(num_proc, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, *iterables)
        except BrokenProcessPool as error:
            raise InputError(
                f"One of {num_proc} processes was killed, most often as memory ran out; use fewer with --num_proc."
            ) from error
        finally:  # also when no more is wanted
            pool.shutdown(cancel_futures=True)


@contextmanager
def stop_signals(handle: Callable[[int, FrameType | None], None]) -> Iterator[dict[signal.Signals, Any]]:
    """Have the signals that ask to stop handled within the block, and as before after it; yields what that was.

    Those that this process was told to ignore, as `nohup` tells it of SIGHUP, stay ignored; those with a handler that
    is not Python's are left to it.
    """
    if threading.current_thread() is not threading.main_thread():  # Python takes signals in the main thread alone
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
