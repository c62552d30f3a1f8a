import json
import resource
import shutil
import time

import contract
import pytest
import saved_files
from tiny import build_tiny

from hcm_hf.pipelines.auto import HCMPipeline


def save_each(kinds, folder):
    """Save an untrained pipeline of each kind in a folder of its name, and return the folder of all."""
    for kind, (family, recipe) in kinds.items():
        build_tiny(family, recipe=recipe).pipeline().save_pretrained(folder / kind)
    return folder


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """A tiny saved pipeline of each kind, by its name."""
    return save_each(contract.KINDS, tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def load(kinds):
    def load(kind, **options):
        pipeline = HCMPipeline.from_pretrained(kinds / kind, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny saved pipeline of a kind."""
    return save_each(saved_files.KINDS, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def model(saved, tmp_path):
    """A copy of one, with other values in some of its files."""

    def copy(kind, file=saved_files.INDEX, **changes):
        folder = shutil.copytree(saved / kind, tmp_path / kind)
        change(folder / file, **changes)
        return folder

    return copy


@pytest.fixture
def little_memory():
    """Within the test this process gets half a GiB more than it has, and ten seconds."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    started = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - started < 10


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
