"""Folders that all workers of a test run share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of that name; the first worker that needs it makes it, and the others wait."""
    base = factory.getbasetemp()
    folder = (base if worker == "master" else base.parent) / name
    made = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker that failed has left
            make(folder)
            made.touch()
    return folder
