"""A generator and a discriminator with known answers, for the losses of the GANs."""

import math

import torch
from torch import nn

from hcm_hf.models import InfoGANGenerator
from hcm_hf.training.objectives.gan import (
    Game,
)


class Fixed(nn.Module):
    """A discriminator that answers by the image's mean: above zero (real, here) one thing, below another.

    Its first answer, the source, has a gradient of 1 at each pixel, its others have one of 10: of 8 x 8 pixels, R1 of
    the source is 32.
    """

    def __init__(self, above, below):
        super().__init__()
        self.above, self.below = above, below

    def forward(self, images):
        real = images.mean((1, 2, 3)) > 0
        pairs = zip(self.above, self.below, strict=True)
        pick = [torch.where(real.view(-1, *[1] * above.ndim), above, below) for above, below in pairs]
        slope = images.sum((1, 2, 3)) - images.detach().sum((1, 2, 3))  # zero, with a gradient
        scales = [1, 10, 10][: len(pick)]
        pick = [
            answer + scale * slope.view(-1, *[1] * (answer.ndim - 1))
            for answer, scale in zip(pick, scales, strict=True)
        ]
        return pick[0] if len(pick) == 1 else tuple(pick)


class Dark(InfoGANGenerator):
    """Images of -.5, whatever the latents."""

    def decode(self, latents, class_labels=None):
        return torch.full((len(latents), 1, 8, 8), -0.5)

    forward = decode


def dark_generator():
    return Dark(8, latent_dim=6, num_categories=3, num_continuous=2, base_channels=2)


REAL = torch.full((2, 1, 8, 8), 0.5)
GAME = Game(label_smoothing=0.1, penalty_per_pixel=0.5 / 64)  # a penalty of weight 0.5 at 8 x 8 pixels
PENALTY = 0.5 * 64 / 2
LOG3 = math.log(3.0)  # the logit of 3/4
SMOOTHED = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)  # cross-entropy of 3/4 with a label of .9
