import math

import pytest
import torch
from tiny import batch_of, build_tiny

from hcm_hf.models import VAE, MixtureVAE
from hcm_hf.training.objectives.vae import (
    LEAST_VARIANCE,
    SigmaVAE,
    VariationalAutoencoder,
    fit_mixture,
    gaussian_nll,
    image_nll,
    kl_divergence,
)


def test_gaussian_likelihood_and_divergence_by_hand():
    images, means = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [0.0, -1.0]]]])
    assert gaussian_nll(means, images).item() == pytest.approx((6 + 4 * math.log(2 * math.pi)) / 2)
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    assert kl_divergence(mean, log_variance).item() == pytest.approx(0.5 + (4 - 1 - math.log(4)) / 2)
    assert kl_divergence(torch.zeros(3, 2), torch.zeros(3, 2)).tolist() == [0, 0, 0]


def test_gaussian_likelihood_and_divergence_are_those_of_torch():
    images, means, log_variance = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.randn(3, 5)
    expected = -torch.distributions.Normal(means, 1).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_nll(means, images), expected)
    mean = torch.randn(3, 5)
    posterior, prior = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0, 1)
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


class FixedVAE(VAE):
    """Encodes all to the same moments and decodes latents to their first number everywhere."""

    def encode(self, images):
        return torch.full((len(images), 2), 0.5), torch.full((len(images), 2), math.log(4.0))

    def decode(self, latents, class_labels=None):
        return latents[:, :1, None, None].expand(-1, 1, 8, 8)


def test_vae_loss_by_hand():
    """Latents .5 + 2 * noise; 64 pixels."""
    objective = VariationalAutoencoder(FixedVAE(8, latent_dim=2, base_channels=2))
    noise = torch.tensor([[0.25, 7.0], [-0.5, 7.0]])  # reconstructions of 1 and -.5
    divergence = 2 * (0.25 + 4 - 1 - math.log(4)) / 2
    errors = (64 * 1.0 + 64 * 0.25) / 2  # the mean of both images' squared errors
    expected = errors / 2 + 32 * math.log(2 * math.pi) + divergence
    assert objective.loss(torch.zeros(2, 1, 8, 8), noise).item() == pytest.approx(expected, rel=1e-6)


# The tuned VAE.


class FixedMixtureVAE(FixedVAE, MixtureVAE):
    """Encodes all to the mean .5 and the variance 4, decodes latents to their first number everywhere."""


DIVERGENCE = 2 * (0.25 + 4 - 1 - math.log(4)) / 2  # of two latents with these moments


def fixed(warmup_steps=4):
    vae = FixedMixtureVAE(8, latent_dim=2, base_channels=2, num_components=3)
    return SigmaVAE(vae, warmup_steps)


def test_the_bound_at_the_most_likely_variance_has_its_closed_form():
    """D / 2 (log(2 pi MSE) + 1), the mean squared error being over all pixels of all slices."""
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    objective = fixed()
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    errors = images - (0.5 + 2 * noise[:, 0]).view(-1, 1, 1, 1)
    expected = 32 * (math.log(2 * math.pi * errors.square().mean()) + 1) + DIVERGENCE
    assert objective.validation_loss(batch_of(images)).item() == pytest.approx(expected, rel=1e-5)


def test_no_other_variance_is_as_likely():
    error = torch.tensor(0.3)
    best = image_nll(error, error, 64)
    assert all(image_nll(error, factor * error, 64) > best for factor in (0.9, 1.1))


def test_the_density_is_that_of_torch():
    error = torch.randn(1, 1, 8, 8)
    expected = -torch.distributions.Normal(0, 0.3).log_prob(error).sum()
    torch.testing.assert_close(image_nll(error.square().mean(), torch.tensor(0.09), 64), expected)


def test_the_weight_of_the_divergence_grows_by_the_batch_to_one():
    objective = fixed(warmup_steps=4)
    batch = batch_of(torch.rand(3, 1, 8, 8))
    weights = []
    for _ in range(6):
        weights.append(objective.kl_weight().item())
        list(objective.losses(batch))
    assert weights == [0, 0.25, 0.5, 0.75, 1, 1]


def test_training_losses_by_hand():
    """The first is at the variance 1 and without the divergence, the second at the first batch's variance."""
    objective = fixed(warmup_steps=2)
    images = torch.rand(4, 1, 8, 8)
    variance = 1.0
    for weight in (0, 0.5):
        torch.manual_seed(1)
        (_, loss), *_ = objective.losses(batch_of(images))
        torch.manual_seed(1)
        error = (images - (0.5 + 2 * torch.randn(4, 2)[:, 0]).view(-1, 1, 1, 1)).square().mean().item()
        expected = 32 * (math.log(2 * math.pi * variance) + error / variance) + weight * DIVERGENCE
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        variance = error
    assert objective.variance.item() == pytest.approx(variance, rel=1e-5)


def test_the_variance_follows_the_errors_and_never_vanishes():
    objective = fixed()
    for error in (4.0, 2.0, *[0.0] * 300):
        objective.remember(torch.tensor(error), torch.zeros(3, 2), torch.zeros(3, 2))
        if error == 2:
            assert objective.variance.item() == pytest.approx(3)
    assert objective.variance.item() == pytest.approx(LEAST_VARIANCE, rel=1e-3)


def test_the_latest_posteriors_are_kept():
    vae = MixtureVAE(8, latent_dim=2, base_channels=2, num_components=2)
    objective = SigmaVAE(vae, 1, num_posteriors=5)
    for value in range(4):
        objective.remember(torch.ones(()), torch.full((2, 2), float(value)), torch.full((2, 2), -float(value)))
    assert objective.posterior_means[:, 0].tolist() == [2, 3, 3, 1, 2]
    assert torch.equal(objective.posterior_log_variances, -objective.posterior_means)


def test_the_pipeline_samples_where_the_posteriors_are():
    objective = build_tiny("vae", recipe="tuned")
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(400, 6, generator=generator) * 0.1 + torch.arange(6.0)
    objective.remember(torch.ones(()), means, torch.full((400, 6), math.log(0.03)))
    latents = objective.pipeline().network.sample_latents(5000, generator)
    torch.testing.assert_close(latents.mean(0), torch.arange(6.0), atol=0.05, rtol=0)
    # Variance of the means and mean of the variances of 200 slices a component, which 128 of N(0, 1) join.
    expected = (200 * (0.01 + 0.03) + 128) / 328 + torch.arange(6.0).square() / 400
    torch.testing.assert_close(latents.var(0), expected, atol=0.03, rtol=0.3)


def test_before_training_the_prior_is_standard_normal():
    network = build_tiny("vae", recipe="tuned").pipeline().network
    assert network.component_weights.tolist() == [0.5, 0.5] and (network.component_means == 0).all()
    assert torch.equal(network.component_factors, torch.eye(6).expand(2, 6, 6))


# The mixture.


def draw(weights, means, factors, number):
    generator = torch.Generator().manual_seed(0)
    parts = [
        mean + torch.randn(int(weight * number), len(mean), generator=generator).double() @ factor.T
        for weight, mean, factor in zip(weights, means, factors, strict=True)
    ]
    return torch.cat(parts)


WEIGHTS = torch.tensor([0.2, 0.5, 0.3]).double()
MEANS = torch.tensor([[4.0, 0.0], [0.0, -2.0], [-5.0, 1.0]]).double()
FACTORS = torch.tensor([[[1.0, 0.0], [0.5, 0.3]], [[0.5, 0.0], [-0.1, 0.4]], [[0.7, 0.0], [0.0, 0.7]]]).double()


def test_a_known_mixture_is_found():
    points = draw(WEIGHTS, MEANS, FACTORS, 20_000)
    fitted = fit_mixture(points, torch.full_like(points, 1e-6), 3, shrinkage=1e-3)
    order = fitted[1][:, 0].argsort(descending=True)
    expected = WEIGHTS, MEANS, FACTORS
    for found, true in zip(fitted, expected, strict=True):
        torch.testing.assert_close(found[order], true, atol=0.05, rtol=0.05)


def test_covariances_are_drawn_to_the_standard_normal_one():
    """One component: the covariance of the means, the mean of the variances and 250 points of N(0, 1)."""
    means, variances = 3 * torch.randn(500, 3).double(), torch.rand(500, 3).double()
    weights, centres, factors = fit_mixture(means, variances, 1, shrinkage=250.0)
    torch.testing.assert_close(weights, torch.ones(1).double())
    torch.testing.assert_close(centres[0], means.mean(0))
    own = means.T.cov(correction=0) + variances.mean(0).diag()
    torch.testing.assert_close(factors[0] @ factors[0].T, (2 * own + torch.eye(3)) / 3)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_few_points_make_no_narrow_component(number):
    means, variances = torch.randn(number, 6), torch.full((number, 6), 0.5)
    weights, centres, factors = fit_mixture(means, variances, 4, shrinkage=1.0)
    assert all(torch.isfinite(part).all() for part in (weights, centres, factors))
    assert weights.sum().item() == pytest.approx(1) and (weights > 0).all()
    narrowest = torch.linalg.eigvalsh(factors @ factors.mT).min()
    assert narrowest >= 1 / (number + 1)
    again = fit_mixture(means, variances, 4, shrinkage=1.0)
    assert all(torch.equal(*pair) for pair in zip(again, (weights, centres, factors), strict=True))
