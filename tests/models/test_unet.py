import pytest
import torch
from diffusers import UNet2DModel

from hcm_hf.models.unet import build_paired_unet, build_unet, join_pairs, split_pairs


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
