"""The command line: `hcm-hf NAME`, `python -m hcm_hf NAME` and `scripts/NAME.py` are the same command.

There is no scripts/inspect.py, which would hide Python's own module from the other scripts.

A command is a function of the package. Its signature and docstring are the flags, their defaults and their help.
"""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hcm_hf.utils.calls import arguments_of, deferred, lazy
from hcm_hf.utils.errors import InputError, Interrupted
from hcm_hf.utils.files import explained
from hcm_hf.utils.process import stop_signals
from hcm_hf.version import __version__


@dataclass(frozen=True)
class Command:
    """A function of the package as a command.

    Attributes:
        function: "module:function", the module within `hcm_hf`; imported when the command runs.
        summary: one line for `hcm-hf --help`.
        shows: what is printed at the end: by label a path, in which {NAME} is an argument and {result} what the
            function returned. Files that were not written are left out. Without it the result itself is printed.
    """

    function: str
    summary: str
    shows: Mapping[str, str] = field(default_factory=dict)


COMMANDS = {
    "write_phantom": Command(
        "data.phantom:write_cohort",
        "write a synthetic cohort in the layout of ACDC, M&Ms or M&Ms-2",
        {"cohort": "{output_dir}"},
    ),
    "inspect": Command("data.inspection:inspect", "say what a folder or table of patients holds, and write its table"),
    "prepare_dataset": Command(
        "hub.commands:prepare_dataset", "turn ACDC or a cohort of your own into a dataset split by patient"
    ),
    "train": Command(
        "hub.commands:train",
        "train a generator, or resume its training",
        {"best model": "{result}/best", "loss curve": "{result}/losses.png"},
    ),
    "train_encoder": Command(
        "training.encoder:train_encoder",
        "train the encoder that the evaluation measures with",
        {"feature encoder": "{result}/features/best", "segmenter": "{result}/segmenter/best"},
    ),
    "generate": Command(
        "generation.images:generate_images",
        "generate images into a folder",
        {"images": "{output_dir}", "dataset": "{output_dir}/dataset"},
    ),
    "score": Command(
        "evaluation.scoring:score",
        "score generated images against real slices",
        {"report": "{output_dir}/report.md", "grid": "{output_dir}/grid.png"},
    ),
    "models": Command("hub.trained:list_models", "list the trained models that come with the package"),
    "verify": Command("hub.trained:verify", "check that trained models are whole and draw what they drew"),
    "pack": Command("hub.trained:pack", "write a trained model as a repository of the Hub", {"model": "{result}"}),
    "methods": Command(
        "hub.methods:methods", "write the methods section of a paper from a run's notes and its report"
    ),
    "push": Command("hub.commands:push", "put a model, a dataset or a Space on the Hugging Face Hub"),
    "reproduce": Command("study.reproduction:reproduce", "run the whole study: dataset, models, reports, tables"),
    "sweep_steps": Command(
        "study.sweep:sweep_steps",
        "quality and time by sampler and number of sampling steps",
        {"table": "{output_dir}/steps.md"},
    ),
    "draw_tradeoff": Command(
        "study.tradeoff:draw_tradeoff",
        "draw quality against time of scored models",
        {"figure": "{output_file}", "table": "{output_file.parent}/{output_file.stem}.md"},
    ),
    "draw_pairs": Command(
        "study.pairs:draw_pairs", "draw slices with their segmentations", {"figure": "{output_file}"}
    ),
    "contrast_groups": Command(
        "study.contrast:contrast_groups",
        "draw slices of two or more groups with their segmentations, and measure their walls",
    ),
    "examine_codes": Command(
        "study.codes:examine_codes",
        "correlate InfoGAN's codes with measurements of the heart",
        {"table": "{output_dir}/codes.md"},
    ),
    "examine_walls": Command(
        "study.walls:examine_walls",
        "ask a model for walls from thin to thick, and measure what it draws",
        {"table": "{output_dir}/walls.md", "figure": "{output_dir}/walls.png", "pairs": "{output_dir}/pairs.png"},
    ),
    "planted": Command(
        "study.planted:score_planted",
        "score sets of images whose faults are known",
        {"table": "{output_dir}/planted.md"},
    ),
    "reader_sheet": Command(
        "study.reader:reader_sheet",
        "write a blinded sheet of real and generated slices, or score a reader's answers",
        {"sheet": "{output_dir}/sheet", "key": "{output_dir}/key.csv", "result": "{output_dir}/reading.md"},
    ),
    "usefulness": Command(
        "study.usefulness.run:usefulness",
        "test whether synthetic slices help a network that is trained on few patients",
        {"table": "{output_dir}/usefulness.md", "figure": "{output_dir}/gain.png"},
    ),
    "overtrain": Command("study.overtraining:overtrain", "train a model that must fail the test for copies"),
    "benchmark": Command("study.benchmark:benchmark", "measure what the package costs against plain code"),
}

EXIT_STATUS = """exit status:
  0    done
  1    a training diverged
  2    bad input, named in one sentence
  128 + signal (130 for Ctrl-C, 143 for SIGTERM)  interrupted; the same command goes on"""


def main(name: str | None = None) -> None:
    """Run a command of this process's arguments.

    Args:
        name: of the command; without one it is the first argument.
    """
    program, arguments = None, sys.argv[1:]
    if name is None:
        if arguments[:1] == ["--version"]:
            print(__version__)
            return
        if not arguments or arguments[0] in ("-h", "--help"):
            print(describe())
            sys.exit(0 if arguments else 2)
        name, *arguments = arguments
        program = f"hcm-hf {name}"
    with _exit_status():
        command = _find(name)
        _call(lazy(command.function), arguments, program, command.shows)


def parse(name: str, arguments: Sequence[str]) -> functools.partial:
    """Return the call that a command would make, without making it.

    Args:
        name: of the command.
        arguments: its flags.

    Raises:
        InputError: if there is no such command.
        SystemExit: if the flags are wrong, or ask for help.
    """
    return _parse(lazy(_find(name).function), arguments, f"hcm-hf {name}")


def _find(name: str) -> Command:
    command = COMMANDS.get(name.replace("-", "_"))
    if command is None:
        raise InputError(f"There is no command '{name}'; choose among {', '.join(COMMANDS)}.")
    return command


def _parse(function: Callable[..., object], arguments: Sequence[str], program: str | None) -> functools.partial:
    import tyro  # not needed for `hcm-hf --help`

    return tyro.cli(
        deferred(function), prog=program, args=arguments, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True
    )


def run(function: Callable[..., object]) -> None:
    """Run a function that is in no table as the command of this process; a Space's page is started so."""
    with _exit_status():
        _call(function, sys.argv[1:])


def describe() -> str:
    """What `hcm-hf --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    usage = "usage: hcm-hf NAME [OPTIONS]\n       hcm-hf NAME --help"
    return "\n".join([usage, "", "Synthetic cardiac MRI.", "", "commands:", *lines, "", EXIT_STATUS])


def _call(
    function: Callable[..., object],
    arguments: Sequence[str],
    program: str | None = None,
    shows: Mapping[str, str] | None = None,
) -> None:
    """Parse the arguments of a function, call it, and print what it made or returned."""
    call = _parse(function, arguments, program)
    given = arguments_of(call)
    try:
        result = call()
    except InputError as error:
        error.args = (with_flags(str(error), given),)
        raise
    if not shows and result is not None:
        print(result)
    for label, template in (shows or {}).items():
        path = template.format(**given, result=result)
        if Path(path).exists():
            print(f"{label}: {path}")


def with_flags(message: str, given: Mapping[str, object]) -> str:
    """Write the arguments that a message names as flags: "seed is -1" becomes "--seed is -1".

    A name without an underscore can be a word of the sentence: it is taken for an argument where its value follows, or
    where it stands in backquotes.
    """
    for name, value in given.items():
        values = value if isinstance(value, tuple) and value else (value,)
        follows = "" if "_" in name else rf"(?= (?:is )?'?(?:{'|'.join(re.escape(str(one)) for one in values)}))"
        message = message.replace(f"`{name}`", f"--{name}")
        message = re.sub(rf"(?<![\w./-]){name}(?![\w/=]){follows}", f"--{name}", message)
    return message


@contextmanager
def _exit_status() -> Iterator[None]:
    """End the process with a status of `EXIT_STATUS` and one sentence, not a traceback."""
    received = [signal.SIGINT]

    def interrupt(number: int, frame: FrameType | None) -> None:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt  # so that what is half-written is removed

    try:
        with stop_signals(interrupt), explained():
            yield
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":  # all processes find the same error; one prints it
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        print("Interrupted; nothing is half-written.", file=sys.stderr)
        sys.exit(128 + received[0])
