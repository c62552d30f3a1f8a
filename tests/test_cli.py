import errno
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hcm_hf
from hcm_hf import cli
from hcm_hf.cli import COMMANDS, run, with_flags
from hcm_hf.utils.errors import Diverged, InputError, Interrupted
from hcm_hf.utils.process import STOP_SIGNALS


SCRIPTS = Path(__file__).parents[1] / "scripts"


def hcm(*arguments):
    return subprocess.run([sys.executable, "-m", "hcm_hf", *arguments], capture_output=True, text=True)


def test_help_lists_the_commands_and_needs_no_library():
    code = """
import sys
from hcm_hf.cli import main
sys.argv = ["hcm-hf", "--help"]
try:
    main()
except SystemExit as stop:
    print(stop.code, sorted({"torch", "tyro", "numpy", "datasets"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    listed = dict(re.findall(r"^  ([a-z_]+)  +(.+)$", said, flags=re.MULTILINE))
    assert listed == {name: command.summary for name, command in COMMANDS.items()}
    assert "bad input" in said and "diverged" in said and "128 + signal" in said
    assert said.splitlines()[-1] == "0 []"


def test_the_help_of_no_command_imports_torch():
    """Nor a wrong flag; both answer at once."""
    code = f"""
import sys
from hcm_hf.cli import main
for name in {list(COMMANDS)}:
    for flag in ("--help", "--no_such_flag"):
        sys.argv = ["hcm-hf", name, flag]
        try:
            main()
        except SystemExit as stop:
            print("told", name, flag, stop.code, sorted({{"torch", "diffusers", "datasets"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    told = [line for line in said.splitlines() if line.startswith("told ")]
    answers = (("--help", 0), ("--no_such_flag", 2))
    assert told == [f"told {name} {flag} {status} []" for name in COMMANDS for flag, status in answers]


def test_each_script_is_its_command():
    scripts = set(COMMANDS) - sys.stdlib_module_names  # a script of such a name would hide Python's own module
    assert {path.stem for path in SCRIPTS.glob("*.py")} == scripts == set(COMMANDS) - {"inspect"}
    for name in scripts:
        text = (SCRIPTS / f"{name}.py").read_text()
        assert f'main("{name}")' in text and f"scripts/{name}.py " in text and len(text.splitlines()) <= 7


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_explains_each_flag(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hcm-hf", name.replace("_", "-"), "--help"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert end.value.code == 0 and said.startswith(f"usage: hcm-hf {name.replace('_', '-')} ")
    explained = re.split(r" (?:positional arguments|options) ", said, maxsplit=1)[1]  # what comes after the usage
    flags = re.split(r" (?=--[a-z_]+ (?:\{|\[|[A-Z]|--no_))", explained)[1:]
    assert flags or "positional arguments" in said
    for flag in flags:
        explained = re.sub(r"\((?:required|default: [^)]*)\)|^--\S+(?:, | )\S+", "", flag).strip()
        assert len(explained) > 3, flag
        assert not re.search(r"\b(as in|see) `", explained), flag  # in a command line there is nothing else to see


@pytest.mark.parametrize(("arguments", "message"), [(["paint"], "no command 'paint'; choose among"), ([], "")])
def test_an_unknown_command_is_bad_input(arguments, message):
    result = hcm(*arguments)
    assert result.returncode == 2 and message in result.stderr


def test_names_of_commands_may_have_hyphens(tmp_path):
    settings = ("--num_patients_per_group", "1", "--num_proc", "1")
    result = hcm("write-phantom", "--output_dir", tmp_path / "cohort", *settings)
    assert (result.returncode, result.stdout) == (0, f"cohort: {tmp_path / 'cohort'}\n"), result.stderr
    assert len(list((tmp_path / "cohort" / "training").iterdir())) == 5


@pytest.mark.parametrize(
    ("message", "given", "expected"),
    [
        ("seed is -1; it must be 0 or more.", {"seed": -1}, "--seed is -1; it must be 0 or more."),
        ("num_images and 9; raise num_images.", {"num_images": 9}, "--num_images and 9; raise --num_images."),
        ("--num_images is 0.", {"num_images": 0}, "--num_images is 0."),
        ("Unknown family 'dgan'; choose a family.", {"family": "dgan"}, "Unknown --family 'dgan'; choose a family."),
        ("model runs/x holds no model.", {"model": "runs/x"}, "--model runs/x holds no model."),
        ("models b/c is no model.", {"models": ("a/b", "b/c")}, "--models b/c is no model."),
        ("`model` and `report` are given.", {"model": None}, "--model and `report` are given."),
        ("/tmp/num_images/a.png is cut short.", {"num_images": 9}, "/tmp/num_images/a.png is cut short."),
    ],
)
def test_messages_name_arguments_as_flags(message, given, expected):
    assert with_flags(message, given) == expected


def test_public_names_are_there():
    assert len(hcm_hf.__all__) <= 15 and set(dir(hcm_hf)) == set(hcm_hf.__all__)
    assert all(callable(vars(hcm_hf)["__getattr__"](name)) for name in hcm_hf.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hcm_hf.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("Bad."), 2, "error: Bad.\n"),
        (Diverged("Worse."), 1, "error: Worse.\n"),
        (Interrupted("Later.", signal.SIGHUP), 129, "Later.\n"),
        (OSError(errno.EIO, "", "/x"), 2, "error: Cannot use /x (Input/output error); look after its disk.\n"),
    ],
)
def test_the_status_tells_what_went_wrong(error, status, said, monkeypatch, capsys):
    def main() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["main"])
    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == status and capsys.readouterr().err == said


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_command_that_a_signal_stops_says_so_by_its_status(number, tmp_path):
    """And what it has half written is removed."""
    code = f"""
import os, time
from hcm_hf.cli import run
from hcm_hf.utils.files import replacing
def main() -> None:
    with replacing({str(tmp_path / "result")!r}) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), {int(number)})
        time.sleep(30)
run(main)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (128 + number, "Interrupted; nothing is half-written.\n")
    assert not list(tmp_path.iterdir())


def test_a_command_is_parsed_without_running_it(tmp_path):
    call = cli.parse("generate", ["--model", "nowhere", "--output_dir", str(tmp_path / "images"), "--num_images", "3"])
    assert cli.arguments_of(call)["num_images"] == 3 and not (tmp_path / "images").exists()
    with pytest.raises(InputError, match="There is no command 'draw'"):
        cli.parse("draw", [])
    with pytest.raises(SystemExit):
        cli.parse("generate", ["--num_image", "3"])
