import math

import pytest
import torch
from game import GAME, LOG3, PENALTY, REAL, SMOOTHED, Fixed, dark_generator
from tiny import batch_of

from hcm_hf.training.objectives.acgan import ACGAN


def test_the_weight_of_the_class_loss_scales_it_alone():
    told = torch.tensor([LOG3, 0.0])
    discriminator = Fixed([torch.tensor(LOG3), told], [torch.tensor(-LOG3), -told])
    losses = dict(ACGAN(dark_generator(), discriminator, GAME, class_weight=0.25).losses(batch_of(REAL, [0, 0])))
    source, classes = SMOOTHED + math.log(4 / 3), math.log(4 / 3) + math.log(4)
    assert losses["discriminator"].item() == pytest.approx(source + classes / 4 + PENALTY)
    assert losses["generator"].item() == pytest.approx(math.log(4) + math.log(4) / 4)


def test_acgan_losses_by_hand():
    """Equations 6 and 7 of the study: of two classes, real images are told with 3/4, generated ones with 1/4."""
    told = torch.tensor([LOG3, 0.0])
    discriminator = Fixed([torch.tensor(LOG3), told], [torch.tensor(-LOG3), -told])
    losses = dict(ACGAN(dark_generator(), discriminator, GAME).losses(batch_of(REAL, [0, 0])))
    source, classes = SMOOTHED + math.log(4 / 3), math.log(4 / 3) + math.log(4)
    assert losses["discriminator"].item() == pytest.approx(source + classes + PENALTY)  # -(L_S + L_C)
    assert losses["generator"].item() == pytest.approx(math.log(4) + math.log(4))
