from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from hcm_hf.evaluation.parts.membership import denoising_errors, untrained
from hcm_hf.models.unet import build_unet
from hcm_hf.schedulers import linear_schedule


class Knowing:
    """Knows the images, which come in order, and so the noise that was added, up to an error of its own."""

    device = "cpu"

    def __init__(self, images, error=0.0):
        self.images, self.error = torch.from_numpy(images[:, None]).float() * 2 - 1, error
        self.shown, self.timesteps, self.noise = 0, [], []

    def __call__(self, noisy, timesteps):
        alpha = linear_schedule().alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        images = self.images[self.shown % len(self.images) :][: len(noisy)]
        self.shown += len(noisy)
        self.timesteps += timesteps.tolist()
        noise = (noisy - alpha.sqrt() * images) / (1 - alpha).sqrt()
        self.noise += list(noise)
        return SimpleNamespace(sample=noise + self.error)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 16, 16), np.float32)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return build_unet(16, (4, 8)).eval()


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_denoising_errors_are_the_squares_of_what_is_wrong(images, error):
    knowing = Knowing(images, error)
    errors = denoising_errors(knowing, linear_schedule(), images, batch_size=2)
    assert errors.shape == (5,)
    np.testing.assert_allclose(errors, error**2, atol=1e-5)
    assert knowing.timesteps == [200] * 5 + [400] * 5 + [600] * 5


def test_every_image_has_a_noise_of_its_own_at_every_level(images):
    knowing = Knowing(np.repeat(images[:1], 4, axis=0))
    denoising_errors(knowing, linear_schedule(), np.repeat(images[:1], 4, axis=0))
    noise = torch.stack(knowing.noise).flatten(1)
    assert (torch.corrcoef(noise) - torch.eye(12)).abs().max() < 0.3  # of 256 pixels: their deviation is .06
    assert abs(noise.mean()) < 0.1 and noise.std().item() == pytest.approx(1, abs=0.1)


def test_denoising_errors_are_a_function_of_the_seed_and_not_of_the_batches(unet, images):
    first = denoising_errors(unet, linear_schedule(), images, seed=3)
    torch.manual_seed(9)
    np.testing.assert_array_equal(denoising_errors(unet, linear_schedule(), images, seed=3), first)
    for batch_size in (1, 2, 5):
        np.testing.assert_allclose(
            denoising_errors(unet, linear_schedule(), images, seed=3, batch_size=batch_size), first, rtol=1e-4
        )
    assert (denoising_errors(unet, linear_schedule(), images, seed=4) != first).all()
    assert (first > 0).all() and len(np.unique(first)) == 5


def test_one_who_has_seen_images_errs_less_on_them(unet, images):
    """A network that answers the noise of one image is right about that one alone."""
    mixed = np.concatenate([images[:2], images[:2][::-1]])
    errors = denoising_errors(Knowing(np.concatenate([images[:2], images[:2]])), linear_schedule(), mixed)
    assert errors[:2].max() < 1e-4 < 0.01 < errors[2:].min()


def test_an_untrained_network_is_the_same_one_with_fresh_weights(unet):
    state = torch.random.get_rng_state()
    fresh = untrained(unet.train(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state) and not fresh.training
    assert fresh.config == unet.config and type(fresh) is UNet2DModel
    weights, again, other = (dict(network.named_parameters()) for network in (fresh, untrained(unet, 1), unet))
    assert weights.keys() == other.keys() and all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["conv_in.weight"], other["conv_in.weight"])
    assert not torch.equal(weights["conv_in.weight"], untrained(unet, 2).conv_in.weight)
