"""What an objective is: a family's networks and the losses that train them.

An objective never sees an optimizer, a step number, a path or a device's name. The loop steps the optimizer of the
named network each time `losses` yields, before it lets `losses` go on.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, ModelMixin
from torch import nn

from hcm_hf.data.slices import SliceBatch


class Objective(nn.Module):
    """A family's networks and losses; a subclass's children are its networks.

    Attributes:
        sampled: name of the network that makes images; EMA averages it and the pipeline holds it.
        asks: whether it takes a `Vocabulary`, of which its pipeline can be asked to show something.
        num_compared: generated images that a validation loss compares with the held-out slices, where it does.
    """

    sampled: str
    asks: bool = False
    num_compared: ClassVar[int] = 256

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield `(network name, scalar loss)` in the order of the paper's algorithm."""
        raise NotImplementedError(f"{type(self).__name__} does not define losses.")

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Return a deterministic scalar on held-out slices; lower is better."""
        raise NotImplementedError(f"{type(self).__name__} does not define validation_loss.")

    def validation_details(self, batch: SliceBatch) -> dict[str, float]:
        """What else is logged of held-out slices, by name; no checkpoint is chosen by it."""
        return {}

    def pipeline(self) -> DiffusionPipeline | ModelMixin:
        """Return the pipeline to save, without changing the networks."""
        raise NotImplementedError(f"{type(self).__name__} does not define pipeline.")

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """Return 16 images, (16, H, W, 1) in [0, 1], for the sample grid; quick to make."""
        generator = torch.Generator().manual_seed(0)
        return self.pipeline()(batch_size=16, generator=generator, output_type="np").images


def fixed_noise_loss(
    loss: Callable[..., torch.Tensor], scheduler: DDPMScheduler, clean: torch.Tensor, *columns: torch.Tensor
) -> torch.Tensor:
    """Mean of `loss(clean, *columns, noise, timesteps)` at fixed noise and at timesteps that are spread evenly."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    order = torch.randperm(len(clean), generator=generator)
    timesteps = ((order + 0.5) / len(order) * scheduler.config.num_train_timesteps).long().to(clean.device)
    parts = [column.split(64) for column in (clean, *columns, noise, timesteps)]
    first, *others = (len(part[0]) * loss(*part) for part in zip(*parts, strict=True))
    return sum(others, first) / len(clean)
