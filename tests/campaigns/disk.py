"""Disks that fill, become read-only or lose a folder, clocks that are set back, and what a power cut would leave.

A fault happens at a random one of the moments at which a command opens a file for writing or renames one, in a small
file system of its own where one may be mounted: `unshare --map-root-user --mount make campaign ARGUMENTS=disk`.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from campaigns.outcomes import Outcomes
from campaigns.work import WORKS, make_inputs
from hcm_hf.utils.errors import InputError


_SIZE = "size=64m"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
Fault = Callable[[Path], object]
_watched: list[Callable[[str, tuple], None]] = []


def disk(folder: Path, outcomes: Outcomes, tries: int = 5, of: tuple[str, ...] = (), random_seed: int = 0) -> None:
    """Disturb each command, then take the fault away and run it again.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        tries: for each command and fault.
        of: the commands; by default all.
        random_seed: of the moments.
    """
    sys.addaudithook(lambda event, arguments: [watch(event, arguments) for watch in _watched] and None)
    source = random.Random(random_seed)
    inputs, place = make_inputs(folder / "inputs"), folder / "disk"
    faults: dict[str, Fault] = {"folder vanishes": _vanish, "clock set back": _set_back}
    if mounted := _mount(place):
        faults = {"disk full": _fill, "read-only disk": _forbid} | faults
    else:
        print("No file system may be mounted here: no full and no read-only disks.")
    for name in of or WORKS:
        work = WORKS[name]
        with _noticing(place, None) as moments, _power(place) as lost:
            work.do(inputs, place)
        expected = work.result(place)
        outcomes.record(f"{name}: power cut after the end", lambda lost=lost: _check_lost(lost), place)
        for fault, happen in faults.items():
            for _ in range(tries):
                _clear(place, mounted)
                moment = source.randrange(len(moments))

                def attempt(
                    happen: Fault = happen, moment: int = moment, name: str = name, expected: dict = expected
                ) -> None:
                    refusal = None
                    try:
                        with _noticing(place, lambda: happen(place), moment):
                            WORKS[name].do(inputs, place)
                    except InputError as error:
                        refusal = error
                    finally:
                        _mend(place, mounted)
                    WORKS[name].do(inputs, place)
                    found = WORKS[name].result(place)
                    differing = sorted(key for key in expected | found if expected.get(key) != found.get(key))
                    assert not differing, f"{differing} differ"
                    if refusal is not None:
                        raise refusal

                outcomes.record(f"{name}: {fault}", attempt, moment, limits=False)
        _clear(place, mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def _noticing(place: Path, happen: Callable[[], object] | None, moment: int = 0) -> Iterator[list[str]]:
    """Note each write below a folder; at one of them let something happen."""
    noticed: list[str] = []
    clock = time.time, time.time_ns

    def watch(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if not (writes or event == "os.rename") or not str(arguments[0]).startswith(str(place)):
            return
        noticed.append(str(arguments[0]))
        if happen is not None and len(noticed) == moment + 1:
            happen()

    _watched.append(watch)
    try:
        yield noticed
    finally:
        _watched.remove(watch)
        time.time, time.time_ns = clock


@contextmanager
def _power(place: Path) -> Iterator[dict[str, int]]:
    """Collect the files that were renamed to their place before they were on the disk, and never waited for later."""
    waited, synced, lost = os.fsync, set[int](), dict[str, int]()

    def fsync(descriptor: int) -> None:
        waited(descriptor)
        number = os.fstat(descriptor).st_ino
        synced.add(number)
        for path in [path for path, inode in lost.items() if inode == number]:
            del lost[path]

    def watch(event: str, arguments: tuple) -> None:
        if event != "os.rename" or not str(arguments[0]).endswith(".tmp"):
            return
        source = Path(os.fsdecode(arguments[0]))
        for path in [source, *source.rglob("*")]:
            if path.is_file() and path.stat().st_ino not in synced:
                lost[f"{arguments[1]}/{path.relative_to(source)}"] = path.stat().st_ino

    os.fsync = fsync
    _watched.append(watch)
    try:
        yield lost
    finally:
        os.fsync = waited
        _watched.remove(watch)


def _check_lost(lost: dict[str, int]) -> None:
    assert not lost, f"{sorted(lost)} are not on the disk"


def _mount(place: Path) -> bool:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", _SIZE, "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _fill(place: Path) -> None:
    block = bytes(2**16)
    descriptor = os.open(place / ".filler", os.O_CREAT | os.O_WRONLY)
    try:
        while os.write(descriptor, block) == len(block):
            pass
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _forbid(place: Path) -> None:
    """Make the disk read-only; one on which a file is open for writing stays as it is."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], capture_output=True)


def _vanish(place: Path) -> None:
    for path in place.iterdir():
        shutil.rmtree(path, ignore_errors=True)


def _set_back(place: Path) -> None:
    """Set the clock of this process back by a year; what it was, `_noticing` restores."""
    now, now_ns = time.time, time.time_ns
    time.time, time.time_ns = lambda: now() - 3e7, lambda: now_ns() - 3 * 10**16


def _mend(place: Path, mounted: bool) -> None:
    if mounted:
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    (place / ".filler").unlink(missing_ok=True)


def _clear(place: Path, mounted: bool) -> None:
    _mend(place, mounted)
    for path in place.iterdir():
        shutil.rmtree(path, ignore_errors=True)
