import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from game import GAME, LOG3, PENALTY, REAL, SMOOTHED, Fixed, dark_generator
from tiny import batch_of, build_tiny
from torch import nn

from hcm_hf.training.objectives.gan import (
    GAN,
    adversarial_loss,
    describe,
    frozen,
    gradient_penalty,
    kernel_distance,
)


def test_adversarial_loss_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4
    assert adversarial_loss(logits, 1.0).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert adversarial_loss(logits, 0.0).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    smooth = (math.log(2) + 0.9 * math.log(4 / 3) + 0.1 * math.log(4)) / 2
    assert adversarial_loss(logits, 0.9).item() == pytest.approx(smooth)


def test_gradient_penalty_of_a_linear_discriminator():
    linear = nn.Linear(16, 1, bias=False)
    penalty = gradient_penalty(lambda images: linear(images.flatten(1)).flatten(), torch.rand(5, 1, 4, 4))
    assert penalty.item() == pytest.approx(linear.weight.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, linear.weight.detach())


def test_gradient_penalty_of_a_quadratic_discriminator_looks_at_the_real_images():
    images = torch.rand(4, 1, 8, 8) * 2 - 1  # D(x) = |x|^2 / 2 has the gradient x
    penalty = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, images)
    assert penalty.item() == pytest.approx(images.square().sum((1, 2, 3)).mean().item() / 2, rel=1e-5)
    assert not images.requires_grad


def test_gan_losses_by_hand():
    discriminator = Fixed([torch.tensor(LOG3)], [torch.tensor(-LOG3)])  # says 3/4 of real, 1/4 of generated
    losses = dict(GAN(dark_generator(), discriminator, GAME).losses(batch_of(REAL)))
    assert losses["discriminator"].item() == pytest.approx(SMOOTHED + math.log(4 / 3) + PENALTY)
    assert losses["generator"].item() == pytest.approx(math.log(4))


def test_a_lazy_penalty_is_rarer_and_counts_more_so_that_its_mean_stays():
    discriminator = Fixed([torch.tensor(LOG3)], [torch.tensor(-LOG3)])
    lazy = GAN(dark_generator(), discriminator, replace(GAME, penalty_interval=4))
    found = []
    for seed in range(400):
        torch.manual_seed(seed)
        found.append(round(next(lazy.losses(batch_of(REAL)))[1].item() - SMOOTHED - math.log(4 / 3), 3))
    assert set(found) == {0.0, 4 * PENALTY}
    assert sum(found) / len(found) == pytest.approx(PENALTY, rel=0.2)


@pytest.mark.parametrize("family", ["gan", "acgan", "infogan"])
def test_discriminators_see_real_and_generated_images_through_the_same_changes(family):
    """In both steps; and what the generator learns comes back through them."""
    objective = build_tiny(family)
    objective.game = replace(objective.game, augmentation=1.0)
    batch = batch_of(torch.rand(6, 1, 16, 16) * 2 - 1, [0] * 6)
    seen = []
    objective.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    objective.generator.register_forward_hook(lambda module, inputs, output: output * 0 + batch.images)
    names = {}
    for name, loss in objective.losses(batch):
        loss.backward()
        names[name] = len(seen)
    real, generated, penalised = seen[:3]
    assert torch.equal(real, generated) and torch.equal(real, penalised) and not torch.equal(real, batch.images)
    assert names == {"discriminator": 3, "generator": 4}
    assert not torch.equal(seen[3], batch.images) and not torch.equal(seen[3], real)  # drawn anew


def slices(number, seed, **change):
    """Noise below a bright disc, whose radius varies."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = 6 + 4 * torch.rand(number, 1, 1, generator=generator) + change.get("wider", 0)
    disc = (torch.hypot(x - 16, y - 16) < radius).float()
    noise = torch.randn(number, 32, 32, generator=generator) * change.get("noise", 0.1)
    return (disc - 0.5 + noise).clamp(-1, 1)[:, None]


def test_kernel_distance_ranks_what_it_should():
    real = slices(40, seed=0)
    same = kernel_distance(slices(200, seed=1), real)
    assert abs(same) < 0.2
    collapsed = slices(1, seed=1).expand(200, -1, -1, -1)
    shifted, smooth = slices(200, seed=1, wider=3), slices(200, seed=1, noise=0.0)
    for worse in (shifted, smooth, collapsed, torch.zeros(200, 1, 32, 32)):
        assert kernel_distance(worse, real) > 3 * max(same, torch.tensor(0.05))


def test_kernel_distance_is_unbiased():
    values = torch.stack([kernel_distance(slices(50, seed=2 * i), slices(50, seed=2 * i + 1)) for i in range(40)])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5


def test_description_is_pooled_pixels_and_the_power_spectrum():
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    pixels, spectrum = describe(images)
    assert pixels.shape == (2, 256) and spectrum.shape == (2, 16)
    np.testing.assert_allclose(pixels[0, 0], images[0, 0, :2, :2].mean(), rtol=1e-7)
    np.testing.assert_allclose(spectrum[:, 0], torch.log(images.sum((1, 2, 3)) ** 2 / 32**2 + 1e-6), rtol=1e-7)
    white = np.exp(describe(torch.randn(500, 1, 32, 32, dtype=torch.float64))[1]).mean(0)
    assert (np.abs(white - 1) < 0.2).all()  # a flat spectrum, one at unit variance


def test_images_that_are_not_finite_have_no_distance():
    """So that the run reports a divergence, not bad input."""
    generated = slices(10, seed=0)
    generated[3, 0, 5, 5] = math.nan
    assert torch.isnan(kernel_distance(generated, slices(10, seed=1)))


def test_frozen_lets_gradients_through_and_is_undone():
    network = nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError), frozen(network):
        network(x).sum().backward()
        raise RuntimeError
    assert x.grad is not None and network.weight.grad is None and network.weight.requires_grad
