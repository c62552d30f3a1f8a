import pytest
import torch

from hcm_hf.models import VAE


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
    torch.testing.assert_close(
        vae.train().reconstruct(images)[1:2], vae.reconstruct(images[1:2])
    )  # no layer mixes images


@pytest.mark.parametrize("sample_size", [8, 64, 128])
def test_every_power_of_two(sample_size):
    vae = VAE(sample_size, latent_dim=3, base_channels=2)
    assert vae.reconstruct(torch.zeros(2, 1, sample_size, sample_size)).shape == (2, 1, sample_size, sample_size)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="sample_size is 48; it must be a power of two"):
        VAE(48)
