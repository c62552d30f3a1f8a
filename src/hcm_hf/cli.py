"""A function's signature as a command line; what goes wrong ends in one sentence."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import tyro

from hcm_hf.utils.errors import InputError, Interrupted
from hcm_hf.utils.files import explained
from hcm_hf.utils.process import stop_signals


def run(function: Callable[..., None]) -> None:
    """Parse the command line into the arguments of `function` and call it.

    An `InputError`, or what the system says of a file, is printed as one sentence and ends the process with status 2,
    as an unknown flag does; a training that diverged ends with 1. A signal that asks to stop ends it with 128 + its
    number, as shells expect.
    """
    received = [signal.SIGINT]

    def interrupt(number: int, frame: FrameType | None) -> None:
        received[0] = number
        raise KeyboardInterrupt  # so that what is half-written is removed

    try:
        with stop_signals(interrupt), explained():
            tyro.cli(function, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes, all of which find the same, one speaks
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        print("Interrupted; nothing is half-written.", file=sys.stderr)
        sys.exit(128 + received[0])
