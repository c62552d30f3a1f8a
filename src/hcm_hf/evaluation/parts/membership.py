"""The part of a report on membership: whether a diffusion model's denoising errors betray its training patients."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DModel

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.metrics.memorization import membership_auc


MEMBERSHIP_LEVELS = (0.2, 0.4, 0.6)  # parts of the training steps at which `denoising_errors` looks


def can_test_membership(comparison: Comparison) -> bool:
    """Whether there is a diffusion model, and more than one patient on both sides."""
    sides = comparison.reference.training, comparison.reference.heldout
    return comparison.model is not None and min(len(side.identities) for side in sides) > 1


def membership_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """How well denoising errors tell training patients from held-out ones; the control was never trained."""
    training, heldout = comparison.reference.training, comparison.reference.heldout
    model, seed = comparison.model, comparison.seed
    assert model is not None  # see `can_test_membership`
    about: dict[str, Any] = {
        "protocol": "denoising",
        "n_generated": 0,
        "n_real": len(training.images) + len(heldout.images),
        "n_patients": len(np.unique(training.patients)) + len(np.unique(heldout.patients)),
    }
    rows: Rows = {}
    for name, unet in (("generated", model.unet), ("untrained", untrained(model.unet, seed))):
        seen, unseen = (denoising_errors(unet, model.scheduler, side.images, seed) for side in (training, heldout))
        found = membership_auc(seen, unseen, training.patients, heldout.patients, seed=seed)
        rows[name] = {"membership_auc": Number.estimate(*found, (0, 1), **about)}
    return rows


@torch.no_grad()
def denoising_errors(
    unet: UNet2DModel, scheduler: SchedulerMixin, images: np.ndarray, seed: int = 0, batch_size: int = 32
) -> np.ndarray:
    """Squared error of the noise that a model predicts in images, at middle noise levels.

    A fifth, two fifths and three fifths of the training steps, each with one noise per image.

    Args:
        unet: predicts the noise; it stays in the mode it is in.
        scheduler: with the noise of training.
        images: floats (N, H, W) in [0, 1].
        seed: of the noise.
        batch_size: images at a time.

    Returns:
        (N,), lower is better, means over pixels and noise levels.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.from_numpy(images[:, None]).float() * 2 - 1
    noise = torch.randn(len(MEMBERSHIP_LEVELS), *tensors.shape, generator=generator)
    errors = torch.zeros(len(MEMBERSHIP_LEVELS), len(tensors))
    for row, level in enumerate(MEMBERSHIP_LEVELS):
        timestep = int(level * scheduler.config.num_train_timesteps)
        for rows in torch.arange(len(tensors)).split(batch_size):
            part, added = tensors[rows].to(unet.device), noise[row, rows].to(unet.device)
            timesteps = torch.full((len(rows),), timestep, device=unet.device)
            predicted = unet(scheduler.add_noise(part, added, timesteps), timesteps).sample
            errors[row, rows] = (predicted - added).square().mean((1, 2, 3)).float().cpu()
    return errors.mean(0).numpy()


def untrained(unet: UNet2DModel, seed: int = 0) -> UNet2DModel:
    """The same network with fresh weights, on the same device, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel.from_config(unet.config).to(unet.device).eval()
