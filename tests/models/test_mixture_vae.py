import pytest
import torch

from hcm_hf.models import MixtureVAE
from hcm_hf.models.latent import LatentModel
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.latent import LatentPipeline


WEIGHTS = torch.tensor([0.2, 0.5, 0.3])
MEANS = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-4.0, 1.0]])
FACTORS = torch.tensor([[[1.0, 0.0], [0.5, 0.3]], [[0.2, 0.0], [-0.1, 0.4]], [[0.7, 0.0], [0.0, 0.7]]])


@pytest.fixture
def vae():
    torch.manual_seed(0)
    vae = MixtureVAE(16, latent_dim=2, base_channels=4, num_components=3).eval()
    vae.set_prior(WEIGHTS, MEANS, FACTORS)
    return vae


def test_latents_have_the_mixtures_mean_and_covariance(vae):
    latents = vae.sample_latents(40_000, torch.Generator().manual_seed(0))
    mean = WEIGHTS @ MEANS
    offsets = MEANS - mean
    covariance = torch.einsum("k,kij->ij", WEIGHTS, FACTORS @ FACTORS.mT + offsets[:, :, None] * offsets[:, None])
    torch.testing.assert_close(latents.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(latents.T.cov(), covariance, atol=0.1, rtol=0)


def test_components_are_as_frequent_as_they_weigh(vae):
    vae.set_prior(WEIGHTS, MEANS, torch.zeros(3, 2, 2))  # each latent is its component's mean
    latents = vae.sample_latents(10_000, torch.Generator().manual_seed(0))
    shares = (latents[:, None] == MEANS).all(2).float().mean(0)
    torch.testing.assert_close(shares, WEIGHTS, atol=0.02, rtol=0)


def test_a_new_network_samples_what_its_training_assumes():
    vae = MixtureVAE(16, latent_dim=4, base_channels=4, num_components=3)
    latents = vae.sample_latents(5, torch.Generator().manual_seed(0))
    normal = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents, normal[:, :4])


def test_each_latent_takes_its_own_generators_stretch(vae):
    together = vae.sample_latents(3, [torch.Generator().manual_seed(seed) for seed in range(3)])
    alone = [vae.sample_latents(1, [torch.Generator().manual_seed(seed)]) for seed in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_the_mixture_is_saved_with_the_weights(vae, tmp_path):
    vae.set_prior(WEIGHTS.double() / 7 * 7, MEANS.double() / 3, FACTORS.double() / 3)
    LatentPipeline(vae).save_pretrained(tmp_path)
    loaded = HCMPipeline.from_pretrained(tmp_path)
    assert isinstance(loaded.network, MixtureVAE) and isinstance(loaded.network, LatentModel)
    saved, read = vae.state_dict(), loaded.network.state_dict()
    assert saved.keys() == read.keys() and all(torch.equal(saved[name], read[name]) for name in saved)
    images = [
        pipeline(4, torch.Generator().manual_seed(1), output_type="np").images
        for pipeline in (LatentPipeline(vae), loaded)
    ]
    assert (images[0] == images[1]).all()


def test_half_precision_samples_too(vae):
    latents = vae.to(torch.bfloat16).sample_latents(6, torch.Generator().manual_seed(0))
    assert latents.dtype == torch.bfloat16 and latents.shape == (6, 2) and torch.isfinite(latents).all()
