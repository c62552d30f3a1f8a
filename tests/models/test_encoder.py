import pytest
import torch

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.models import SliceEncoder


def build(sample_size=16, block_out_channels=(4, 8), **options):
    torch.manual_seed(0)
    return SliceEncoder(STRUCTURES, GROUPS, PHASES, sample_size, block_out_channels, **options).eval()


@pytest.mark.parametrize("sample_size", [16, 32, 64])
@pytest.mark.parametrize("block_out_channels", [(8,), (4, 8), (2, 4, 8, 8)])
def test_every_head_has_its_shape(sample_size, block_out_channels):
    images = torch.rand(3, 1, sample_size, sample_size) * 2 - 1
    seen = build(sample_size, block_out_channels)(images)
    assert seen.features.shape == (3, block_out_channels[-1])
    assert seen.mask_logits.shape == (3, 4, sample_size, sample_size)
    assert (seen.group_logits.shape, seen.phase_logits.shape, seen.positions.shape) == ((3, 5), (3, 2), (3,))


@pytest.mark.parametrize(
    ("sample_size", "block_out_channels", "factor"), [(24, (4, 8, 8, 8), 16), (8, (4, 8, 8, 8), 16), (18, (4, 8), 4)]
)
def test_sizes_that_do_not_halve_are_refused(sample_size, block_out_channels, factor):
    with pytest.raises(ValueError, match=f"sample_size is {sample_size}; it must be a multiple of {factor}"):
        build(sample_size, block_out_channels)


def test_numbers_of_answers_are_those_of_the_names():
    encoder = SliceEncoder(["nothing", "heart"], ["a", "b", "c"], ["ED"], 16, (4, 8))
    seen = encoder(torch.zeros(2, 1, 16, 16))
    assert (seen.mask_logits.shape[1], seen.group_logits.shape[1], seen.phase_logits.shape[1]) == (2, 3, 1)


def test_a_slice_is_seen_alone_as_among_others():
    encoder, images = build(), torch.rand(4, 1, 16, 16) * 2 - 1
    together, alone = encoder(images), encoder(images[1:2])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other[1:2], rtol=1e-4, atol=1e-5)


def test_features_are_the_deepest_block_averaged():
    encoder, images, deepest = build(), torch.rand(2, 1, 16, 16), []
    encoder.down_blocks[-1].register_forward_hook(lambda *call: deepest.append(call[2]))
    features = encoder(images).features
    assert deepest[0].shape == (2, 8, 4, 4)  # halved once by the squares of pixels, once between the blocks
    torch.testing.assert_close(features, deepest[0].mean((2, 3)))


def test_masks_stand_where_the_image_does():
    """What the encoder sees at a pixel depends on that pixel more than on those far away."""
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    build(32)(images).mask_logits[0, :, 20, 9].square().sum().backward()
    strength = images.grad[0, 0].abs()
    assert strength[16:25, 5:14].mean() > 5 * strength[:8, 20:].mean()


def test_every_parameter_is_reached_by_some_head():
    encoder = build()
    sum(part.square().sum() for part in encoder(torch.rand(2, 1, 16, 16))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_saved_and_loaded_is_bit_equal_and_keeps_its_names(tmp_path):
    encoder, images = build(), torch.rand(2, 1, 16, 16)
    encoder.save_pretrained(tmp_path)
    loaded = SliceEncoder.from_pretrained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(encoder(images), loaded(images), strict=True))
    assert tuple(loaded.config.structures) == STRUCTURES and tuple(loaded.config.groups) == GROUPS
    assert tuple(loaded.config.phases) == PHASES and loaded.config.sample_size == 16


def test_published_size():
    encoder = SliceEncoder(STRUCTURES, GROUPS, PHASES)
    assert encoder.config.sample_size == 64 and encoder.to_group.in_features == 128
    assert [block[0].out_channels for block in encoder.down_blocks] == [16, 32, 64, 128]


def test_features_are_hidden_from_the_heads_while_training_only():
    """With all hidden, nothing but the biases answers; features and segmentation are what they are."""
    encoder, images = build(dropout=1.0), torch.rand(3, 1, 16, 16)
    assert (encoder(images).group_logits != encoder.to_group.bias).any()
    encoder.train()
    seen = encoder(images)
    for logits, head in ((seen.group_logits, encoder.to_group), (seen.phase_logits, encoder.to_phase)):
        torch.testing.assert_close(logits, head.bias.expand_as(logits))
    torch.testing.assert_close(seen.positions, encoder.to_position.bias.expand(3))
    assert seen.features.abs().sum() > 0 and seen.mask_logits.std() > 0
