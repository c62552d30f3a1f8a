"""Devices and processes of accelerate, and a description of the machine."""

import atexit
import importlib.metadata
import os
import platform
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.process import count_cores
from hcm_hf.version import __version__


PACKAGES = (
    *("torch", "diffusers", "accelerate", "datasets", "evaluate", "safetensors", "numpy", "scipy", "pillow"),
    *("nibabel", "matplotlib"),
)
# Variables by which `accelerate launch` passes on what nothing here uses: the flag, and the value that leaves it out.
_UNUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", "1"),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", "no"),
    "ACCELERATE_USE_DEEPSPEED": ("use_deepspeed", "false"),
    "ACCELERATE_USE_FSDP": ("use_fsdp", "false"),
    "ACCELERATE_USE_MEGATRON_LM": ("use_megatron_lm", "false"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("use_parallelism_config", "false"),
}
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}  # by accelerate's name of a mixed precision


def find_device(name: str | None = None) -> torch.device:
    """Return the device of a name; by default the accelerator if there is one, and else the CPU.

    Args:
        name: as torch writes it: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: if torch knows no such device, or it is not there.
    """
    if name is None:  # torch names the accelerator that it was built for, there or not
        there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return there or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a build without CUDA asserts
        raise InputError(f"device {name} is not there; leave it out to use {find_device()}.") from error
    if device.type == "meta":
        raise InputError(f"device {name} computes nothing; leave it out to use {find_device()}.")
    return device


def autocast(device: torch.device, mixed_precision: str | None) -> AbstractContextManager:
    """Return the context that computes in a mixed precision.

    Args:
        device: where it computes.
        mixed_precision: "no" or None for none, "fp16" or "bf16".

    Raises:
        InputError: if it is another.
    """
    if mixed_precision in (None, "no"):
        return nullcontext()
    if mixed_precision not in AUTOCAST:
        raise InputError(f"mixed_precision is {mixed_precision}; choose among no, {', '.join(AUTOCAST)}.")
    return torch.autocast(device.type, AUTOCAST[mixed_precision])


def name_device(device: torch.device) -> str:
    """Return the name of the processor or of the GPU, as its maker gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else device.type


def make_accelerator(
    mixed_precision: str | None = None, log_with: Sequence[str] = (), project_dir: Path | None = None
) -> Accelerator:
    """Create an `Accelerator` as in a fresh process; it also joins the processes of `torchrun` on a CPU.

    Accelerate keeps the precision of the first one for the whole process. This one takes its own, and the earlier one
    keeps its own too.

    Args:
        mixed_precision: "no", "fp16" or "bf16"; by default the setting of `accelerate launch`.
        log_with: trackers, by name.
        project_dir: folder of the trackers' logs.

    Raises:
        InputError: if the device does not support the precision, or `accelerate launch` was given what is not used.
    """
    for variable, (flag, without) in _UNUSED.items():
        if (value := os.environ.get(variable, without)).lower() != without:
            raise InputError(
                f"`accelerate launch` has {flag} at {value.lower()}, which is not used here and would change nothing; "
                "leave it out, also in the file of `accelerate config`."
            )
    AcceleratorState._shared_state = {}
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=mixed_precision,
            log_with=list(log_with) or None,
            project_dir=project_dir,
        )
    except (ValueError, ImportError) as error:
        mixed_precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
        if mixed_precision in (None, "no"):
            raise
        raise InputError(f"mixed_precision {mixed_precision} does not work here: {error}") from error
    if accelerator.mixed_precision not in ("no", *AUTOCAST):
        raise InputError(
            f"mixed_precision is {accelerator.mixed_precision}; choose among no, {', '.join(AUTOCAST)}, also in "
            "`accelerate launch`."
        )
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
        "accelerator": name_device(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
