"""Exponential moving average (EMA) of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class AveragedWeights:
    """Exponential moving average of a network's parameters; buffers are copied.

    Averaged or newly estimated statistics of batch normalisation made worse images (docs/explanation/tuning.md).

    The decay is capped at (1 + step) / (10 + step), so that the first steps do not linger.

    Args:
        network: the network to follow.
        decay: decay per step; 0 turns averaging off.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.network = network
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self.network.named_parameters())
        for name, tensor in self.network.state_dict().items():
            if name in parameters:
                self.weights[name].lerp_(tensor, 1 - decay)
            else:
                self.weights[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights within the block, and its own again after it."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
