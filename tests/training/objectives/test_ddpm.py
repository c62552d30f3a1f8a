from types import SimpleNamespace

import pytest
import torch
from tiny import batch_of
from torch import nn

from hcm_hf.training.objectives.ddpm import Diffusion


class Noiseless(nn.Module):
    """Predicts no noise at all."""

    def forward(self, noisy, timesteps):
        self.seen = noisy, timesteps
        return SimpleNamespace(sample=torch.zeros_like(noisy))


def test_diffusion_loss_by_hand():
    """One who predicts no noise errs by the noise's own square; what it sees is equation 4 of the paper."""
    network = Noiseless()
    objective = Diffusion(network)
    images, noise, timesteps = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    loss = objective.loss(images, noise, timesteps)
    assert loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-6)
    alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[timesteps].view(3, 1, 1, 1)
    torch.testing.assert_close(network.seen[0], alpha.sqrt() * images + (1 - alpha).sqrt() * noise)


def test_diffusion_validation_visits_all_timesteps_evenly():
    visited = []

    class Watching(Noiseless):
        def forward(self, noisy, timesteps):
            visited.extend(timesteps.tolist())
            return super().forward(noisy, timesteps)

    loss = Diffusion(Watching()).validation_loss(batch_of(torch.zeros(25, 1, 8, 8)))
    assert sorted(visited) == list(range(5, 1000, 10)) and visited != sorted(visited)
    assert loss.item() == pytest.approx(1, abs=0.05)
