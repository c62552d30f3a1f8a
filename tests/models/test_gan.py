import torch
from torch import nn

from hcm_hf.models import GANDiscriminator, GANGenerator


def test_fully_connected_at_any_size():
    generator, discriminator = GANGenerator(12, latent_dim=5, hidden_dim=8), GANDiscriminator(12, hidden_dim=4)
    images = generator(torch.randn(3, 5))
    assert images.shape == (3, 1, 12, 12) and images.abs().max() <= 1
    assert discriminator(images).shape == (3,)
    layers = [module for network in (generator, discriminator) for module in network.children()]
    assert all(isinstance(layer, nn.Linear) for layer in layers)


def test_maxout_takes_the_largest_piece():
    """D of one unit of two pieces, w x and -w x: the absolute value."""
    discriminator = GANDiscriminator(2, hidden_dim=1, num_pieces=2)
    for layer in discriminator.children():
        nn.init.zeros_(layer.bias)
        nn.init.ones_(layer.weight)
    discriminator.from_image.weight.data[1] = -1
    image = torch.full((1, 1, 2, 2), -0.5)
    assert discriminator(image).item() == 2.0 == discriminator(-image).item()


def test_published_size():
    assert [layer.out_features for layer in GANGenerator().children()] == [1200, 1200, 64 * 64]
    assert [layer.out_features for layer in GANDiscriminator().children()] == [1200, 1200, 1]
