import pytest
import torch
from torch import nn

from hcm_hf.models import DCGANDiscriminator, DCGANGenerator


def kinds(network):
    return {type(module) for module in network.modules() if not list(module.children())}


def test_layers_are_those_of_the_paper():
    generator, discriminator = DCGANGenerator(base_channels=4), DCGANDiscriminator(base_channels=4)
    assert kinds(generator) == {nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU}
    assert kinds(discriminator) == {nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU}
    strides = [layer.stride for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert strides == [(1, 1)] + [(2, 2)] * 4  # projection to 4 pixels, then 8, 16, 32, 64


def test_published_size_has_the_widths_of_the_authors_code():
    widths = [block[0].out_channels for block in DCGANGenerator().up_blocks]
    assert [DCGANGenerator().project.out_channels, *widths] == [512, 256, 128, 64]


@pytest.mark.parametrize("sample_size", [8, 16, 128])
def test_every_power_of_two(sample_size):
    generator = DCGANGenerator(sample_size, latent_dim=5, base_channels=2)
    images = generator(torch.randn(3, 5))
    assert images.shape == (3, 1, sample_size, sample_size) and images.abs().max() <= 1
    assert DCGANDiscriminator(sample_size, base_channels=2)(images).shape == (3,)


@pytest.mark.parametrize("sample_size", [4, 48, 0])
def test_other_sizes_are_refused(sample_size):
    with pytest.raises(ValueError, match=f"sample_size is {sample_size}; it must be a power of two"):
        DCGANGenerator(sample_size)


def test_initial_weights_follow_the_paper():
    weight = DCGANGenerator().project.weight.detach()
    assert weight.std().item() == pytest.approx(0.02, rel=0.02) and weight.mean().item() == pytest.approx(0, abs=1e-3)
