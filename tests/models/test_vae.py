import pytest
import torch

from hcm_hf.models import VAE, MixtureVAE
from hcm_hf.models.latent import LatentModel
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.latent import LatentPipeline


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE(16, latent_dim=6, base_channels=4).eval()


def test_moments_latents_and_reconstructions_have_their_shapes(vae):
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    mean, log_variance = vae.encode(images)
    assert mean.shape == log_variance.shape == (3, 6)
    assert vae.decode(mean).shape == (3, 1, 16, 16) and vae.decode(50 * mean).abs().max() <= 1
    torch.testing.assert_close(vae.reconstruct(images), vae.decode(mean))


def test_an_image_is_reconstructed_alone_as_among_others(vae):
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    vae.train()  # no layer mixes images
    torch.testing.assert_close(vae.reconstruct(images)[1:2], vae.reconstruct(images[1:2]))


@pytest.mark.parametrize("sample_size", [8, 64, 128])
def test_every_power_of_two(sample_size):
    vae = VAE(sample_size, latent_dim=3, base_channels=2)
    assert vae.reconstruct(torch.zeros(2, 1, sample_size, sample_size)).shape == (2, 1, sample_size, sample_size)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="sample_size is 48; it must be a power of two"):
        VAE(48)


# The VAE with a mixture for a prior.


WEIGHTS = torch.tensor([0.2, 0.5, 0.3])
MEANS = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-4.0, 1.0]])
FACTORS = torch.tensor([[[1.0, 0.0], [0.5, 0.3]], [[0.2, 0.0], [-0.1, 0.4]], [[0.7, 0.0], [0.0, 0.7]]])


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    mixture = MixtureVAE(16, latent_dim=2, base_channels=4, num_components=3).eval()
    mixture.set_prior(WEIGHTS, MEANS, FACTORS)
    return mixture


def test_latents_have_the_mixtures_mean_and_covariance(mixture):
    latents = mixture.sample_latents(40_000, torch.Generator().manual_seed(0))
    mean = WEIGHTS @ MEANS
    offsets = MEANS - mean
    covariance = torch.einsum("k,kij->ij", WEIGHTS, FACTORS @ FACTORS.mT + offsets[:, :, None] * offsets[:, None])
    torch.testing.assert_close(latents.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(latents.T.cov(), covariance, atol=0.1, rtol=0)


def test_components_are_as_frequent_as_they_weigh(mixture):
    mixture.set_prior(WEIGHTS, MEANS, torch.zeros(3, 2, 2))  # each latent is its component's mean
    latents = mixture.sample_latents(10_000, torch.Generator().manual_seed(0))
    shares = (latents[:, None] == MEANS).all(2).float().mean(0)
    torch.testing.assert_close(shares, WEIGHTS, atol=0.02, rtol=0)


def test_a_new_network_samples_what_its_training_assumes():
    mixture = MixtureVAE(16, latent_dim=4, base_channels=4, num_components=3)
    latents = mixture.sample_latents(5, torch.Generator().manual_seed(0))
    normal = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents, normal[:, :4])


def test_each_latent_takes_its_own_generators_stretch(mixture):
    together = mixture.sample_latents(3, [torch.Generator().manual_seed(seed) for seed in range(3)])
    alone = [mixture.sample_latents(1, [torch.Generator().manual_seed(seed)]) for seed in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_the_mixture_is_saved_with_the_weights(mixture, tmp_path):
    mixture.set_prior(WEIGHTS.double() / 7 * 7, MEANS.double() / 3, FACTORS.double() / 3)
    LatentPipeline(mixture).save_pretrained(tmp_path)
    loaded = HCMPipeline.from_pretrained(tmp_path)
    assert isinstance(loaded.network, MixtureVAE) and isinstance(loaded.network, LatentModel)
    saved, read = mixture.state_dict(), loaded.network.state_dict()
    assert saved.keys() == read.keys() and all(torch.equal(saved[name], read[name]) for name in saved)
    images = [
        pipeline(4, torch.Generator().manual_seed(1), output_type="np").images
        for pipeline in (LatentPipeline(mixture), loaded)
    ]
    assert (images[0] == images[1]).all()


def test_half_precision_samples_too(mixture):
    latents = mixture.to(torch.bfloat16).sample_latents(6, torch.Generator().manual_seed(0))
    assert latents.dtype == torch.bfloat16 and latents.shape == (6, 2) and torch.isfinite(latents).all()
