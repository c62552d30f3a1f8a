"""Devices and processes, as accelerate finds them, and the machine around them."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch
from accelerate import Accelerator

from hcm_hf.version import __version__


PACKAGES = (
    *("torch", "diffusers", "accelerate", "datasets", "evaluate", "safetensors", "numpy", "scipy", "pillow"),
    *("nibabel", "matplotlib"),
)


def make_accelerator(**options) -> Accelerator:
    """An `Accelerator` that also joins the processes of `torchrun` on a machine without a GPU."""
    return Accelerator(cpu=not torch.accelerator.is_available(), **options)


def describe_environment(device: torch.device) -> dict:
    """Packages and machine, without a path, a user or a host."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "hcm_hf": __version__,
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
