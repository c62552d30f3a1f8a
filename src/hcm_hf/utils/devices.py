"""Devices and processes of accelerate, and a description of the machine."""

import atexit
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


def make_accelerator(**options) -> Accelerator:
    """Make an `Accelerator` as in a new process; without a GPU it also joins the processes of `torchrun`.

    Settings that are not among `options` are those of `accelerate launch`. Without the reset below, accelerate would
    use the precision of the accelerator made before.
    """
    AcceleratorState._shared_state = {}
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    if accelerator.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    """End the process group in order: threads of it that outlive Python abort a process that is finished."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch after the block or function."""
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
    """Describe packages and machine, without paths and names of user or host."""
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
