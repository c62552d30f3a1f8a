"""Devices and processes, as accelerate finds them."""

import torch
from accelerate import Accelerator


def make_accelerator(**options) -> Accelerator:
    """An `Accelerator` that also joins the processes of `torchrun` on a machine without a GPU."""
    return Accelerator(cpu=not torch.accelerator.is_available(), **options)
