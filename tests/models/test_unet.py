from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from hcm_hf.models.unet import build_paired_unet, build_unet, denoising_errors, join_pairs, split_pairs, untrained
from hcm_hf.schedulers import linear_schedule


def test_unet_is_stock_and_of_one_channel():
    unet = build_unet(16, (4, 8))
    assert type(unet) is UNet2DModel
    assert unet(torch.zeros(2, 1, 16, 16), torch.tensor([0, 999])).sample.shape == (2, 1, 16, 16)


def test_attention_is_at_the_lowest_level():
    config = build_unet().config
    assert config.down_block_types == ("DownBlock2D",) * 3 + ("AttnDownBlock2D",)
    assert config.up_block_types == ("AttnUpBlock2D",) + ("UpBlock2D",) * 3


@pytest.mark.parametrize("sample_size", [12, 8, 0])
def test_sizes_that_do_not_halve_are_refused(sample_size):
    with pytest.raises(ValueError, match=f"sample_size is {sample_size}; 4 levels need a multiple of 8, 16 or more"):
        build_unet(sample_size)


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


# The tuned model's.


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_what_is_joined_is_split_again(patch_size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 16, 16, generator=generator) * 2 - 1
    masks = torch.randint(4, (3, 16, 16), generator=generator)
    pairs = join_pairs(images, masks, patch_size)
    assert pairs.shape == (3, 4 * patch_size**2, 16 // patch_size, 16 // patch_size)
    again, masks_again = split_pairs(pairs, patch_size)
    assert torch.equal(images, again) and torch.equal(masks, masks_again)


def test_structures_are_signs_and_a_slice_without_a_segmentation_is_in_between():
    masks = torch.stack([torch.full((4, 4), 2), torch.full((4, 4), -1)])
    pairs = join_pairs(torch.zeros(2, 1, 4, 4), masks, 1)
    assert pairs[:, 1:, 0, 0].tolist() == [[-1, 1, -1], [0, 0, 0]]


def test_masks_are_label_maps_whatever_the_network_makes():
    _, masks = split_pairs(torch.randn(5, 16, 8, 8), 2)
    assert masks.shape == (5, 16, 16) and masks.dtype == torch.int64 and set(masks.unique().tolist()) <= {0, 1, 2, 3}
    _, masks = split_pairs(torch.tensor([0.0, -0.9, -0.2, -1.0]).view(1, 4, 1, 1), 1)
    assert masks.item() == 0  # half of the others is background: .1
    _, masks = split_pairs(torch.tensor([0.0, -0.9, -0.2, -0.1]).view(1, 4, 1, 1), 1)
    assert masks.item() == 3  # one of two structures, and no background
    _, masks = split_pairs(torch.tensor([0.0, 0.3, 0.1, 0.7]).view(1, 4, 1, 1), 1)
    assert masks.item() == 3


def test_paired_unet_is_stock_and_has_a_label_that_says_nothing():
    unet = build_paired_unet(16, 30, (8, 8), 1, patch_size=2)
    assert type(unet) is UNet2DModel and unet.config.num_class_embeds == 31
    noisy = torch.zeros(2, 16, 8, 8)
    assert unet(noisy, torch.tensor([0, 999]), class_labels=torch.tensor([0, 30])).sample.shape == noisy.shape


def test_paired_sizes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="sample_size is 24; blocks of 2 px and 4 levels need a multiple of 16, 32 or"
    ):
        build_paired_unet(24, 30, (8, 8, 8, 8), 2, patch_size=2)
