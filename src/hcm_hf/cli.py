"""A function's signature as a command line; bad input ends in one sentence."""

import os
import signal
import sys
from collections.abc import Callable

import tyro

from hcm_hf.errors import InputError, Interrupted


def run(function: Callable[..., None]) -> None:
    """Parse the command line into the arguments of `function` and call it.

    An `InputError` is printed as one sentence and ends the process with status 2, as an unknown flag does; a signal
    ends it with 128 + its number, as shells expect.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half-written is removed
    try:
        tyro.cli(function, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes, all of which find the same, one speaks
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        print("Interrupted; nothing is half-written.", file=sys.stderr)
        sys.exit(130)
