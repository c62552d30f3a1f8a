"""What the pages and READMEs show works: Python is run, commands are run or, where `pages.py` says so, parsed."""

import ast
import re
import shlex
import shutil
import sys
from pathlib import Path

import pages
import pytest
from accelerate.commands.launch import launch_command_parser
from mktestdocs import check_md_file, register_executor
from tiny import build_tiny, save_run
from torch.distributed.run import get_args_parser

from hcm_hf import cli


ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "README.es.md", "CONTRIBUTING.md"]
PAGES += sorted(
    path.relative_to(ROOT / "docs").as_posix()
    for path in (ROOT / "docs").rglob("*.md")
    if "results" not in path.parts and "```" in path.read_text()
)


def text_of(page):
    """The page as a reader sees it, with the account of the tests' Hub."""
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    return path.read_text().replace("user/", "ada/")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, dataset_dir):
    """A checkout as the pages assume it: the repository's folders, a small dataset, and a tiny run of each family."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("scripts", "spaces", "pretrained", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(dataset_dir, folder / "data" / "acdc-64")
    training = {"learning_rate": 2e-4, "train_batch_size": 32, "num_epochs": 3, "seed": 0}
    for family in ("vae", "dcgan", "acgan", "infogan", "ddpm"):
        (folder / "runs" / family).mkdir(parents=True)
        save_run(folder / "runs" / family, build_tiny(family), family=family, **training)
    return folder


@pytest.fixture
def here(workplace, hub, monkeypatch):
    """The workplace as the current folder, with an empty Hub."""
    monkeypatch.chdir(workplace)
    return workplace


def commands_in(block):
    lines = block.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def without_launcher(words):
    """A command as it is without accelerate or torchrun, whose own flags are parsed."""
    if words[:2] == ["accelerate", "launch"]:
        given = launch_command_parser().parse_args(words[2:])
    elif words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
    else:
        return words
    return ["python", given.training_script, *given.training_script_args]


def check_never_run(words):
    """Whether a command is one that no test runs; what can be known of it is checked."""
    line = " ".join(words)
    if not any(line.startswith(start) for start in pages.NEVER_RUN):
        return False
    if words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"
        for word in words[1:]:
            if word.startswith("ARGUMENTS="):
                cli.parse("reproduce", shlex.split(word.partition("=")[2]))
    if line.startswith("python spaces/"):
        tree = ast.parse((ROOT / words[1]).read_text())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        started = next(
            node.args[0].id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run"
        )
        known = {one.arg for one in (*functions[started].args.args, *functions[started].args.kwonlyargs)}
        assert {word[2:] for word in words if word.startswith("--")} <= known
    return True


def check_command(words, runs, monkeypatch):
    if check_never_run(words):
        return
    words = without_launcher(words)
    if words[0] == "hcm-hf":
        name, arguments = words[1], words[2:]
    else:
        assert words[0] == "python" and words[1].startswith("scripts/"), f"unknown command: {' '.join(words)}"
        assert (ROOT / words[1]).is_file()
        name, arguments = Path(words[1]).stem, words[2:]
    if not runs:
        cli.parse(name, arguments)
        return
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    cli.main(name)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page, here, tmp_path, monkeypatch):
    copy = tmp_path / "page.md"
    copy.write_text(text_of(page))
    runs = page not in pages.PARSED_ONLY

    def execute(block):
        for words in commands_in(block):
            check_command(words, runs, monkeypatch)

    register_executor("bash", execute)
    check_md_file(copy, lang="bash")
    check_md_file(copy, memory=True, lang="python")


def test_a_wrong_flag_in_a_page_is_noticed(monkeypatch, capsys):
    for line in (
        "hcm-hf generate --model x --output_dir y --num_image 3",
        "python scripts/train.py --num_epochs many",
    ):
        with pytest.raises(SystemExit):
            check_command(shlex.split(line), False, monkeypatch)
    with pytest.raises(AssertionError, match="no target"):
        check_command(["make", "nothing"], False, monkeypatch)
    with pytest.raises(AssertionError, match="unknown command"):
        check_command(["rm", "-r", "data"], False, monkeypatch)
    with pytest.raises(SystemExit):
        check_command(shlex.split("accelerate launch --num_cpu_thread 2 scripts/train.py"), False, monkeypatch)
