import os
import signal

import numpy as np
import pytest

from hcm_hf.utils import process
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import STOP_SIGNALS, count_cores, map_processes, peak_memory, stop_signals


def test_only_the_cores_that_may_be_used_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_CPU_MAX", tmp_path / "cpu.max")
    allowed = os.sched_getaffinity(0)
    assert count_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    for text, expected in (("max 100000", 64), ("250000 100000", 3), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert count_cores() == expected


def test_the_most_memory_is_that_of_this_process_in_bytes():
    held = np.ones(2**25)
    assert held.nbytes < peak_memory() < 2**40


def test_processes_keep_the_order():
    for num_proc in (1, 2):
        assert list(map_processes(pow, range(5), [2] * 5, num_proc=num_proc)) == [0, 1, 4, 9, 16]


def kill_itself(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_one_sentence():
    with pytest.raises(InputError, match="One of 2 processes was killed: set num_proc to 1"):
        list(map_processes(kill_itself, range(3), num_proc=2))


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_are_handled_within_the_block_alone(number):
    before, received = signal.getsignal(number), []
    with stop_signals(lambda number, frame: received.append(number)):
        os.kill(os.getpid(), number)
    assert received == [number] and signal.getsignal(number) == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_was_ignored_stays_ignored(number):
    """What nohup does of SIGHUP, and a shell of the SIGINT of what runs in its background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals(lambda number, frame: pytest.fail("handled")):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
