"""Devices and processes, as accelerate finds them, and the machine around them."""

import importlib.metadata
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hcm_hf.utils.process import count_cores
from hcm_hf.version import __version__


PACKAGES = (
    *("torch", "diffusers", "accelerate", "datasets", "evaluate", "safetensors", "numpy", "scipy", "pillow"),
    *("nibabel", "matplotlib"),
)


def make_accelerator(**options: object) -> Accelerator:
    """An `Accelerator` as in a fresh process; it also joins those of `torchrun` on a machine without a GPU.

    What is not among `options` is what `accelerate launch` was told. Accelerate itself would take it from the one made
    before, as it keeps their precision for the whole process; that one keeps its own.
    """
    AcceleratorState._shared_state = {}
    return Accelerator(cpu=not torch.accelerator.is_available(), **options)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the random numbers of Python, numpy and torch after the block, or function, as they were before it."""
    kind = torch.accelerator.current_accelerator() or torch.device("cpu")
    devices = range(torch.accelerator.device_count())
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices, device_type=kind.type):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def describe_environment(device: torch.device) -> dict:
    """Packages and machine, without a path, a user or a host."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "hcm_hf": __version__,
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": count_cores(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
