import math

import pytest
import torch
from game import GAME, LOG3, PENALTY, REAL, SMOOTHED, Fixed, dark_generator
from tiny import batch_of

from hcm_hf.training.objectives.infogan import InfoGAN, mutual_information


def test_mutual_information_by_hand():
    category, continuous = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, -1.0]])
    logits, means = torch.tensor([[math.log(2.0), 0.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # P = 1/2, 1/4, 1/4
    log_continuous = -(0.25 + 4.0) / 2 - math.log(2 * math.pi)
    expected = math.log(1 / 2) + log_continuous + math.log(3) + 2 * math.log(2)
    assert mutual_information(category, continuous, logits, means).item() == pytest.approx(expected)


def test_mutual_information_is_a_lower_bound_that_a_perfect_reader_of_categories_attains():
    category, nothing = torch.eye(4), torch.zeros(4, 0)
    assert mutual_information(category, nothing, 50 * category, nothing).item() == pytest.approx(math.log(4))
    assert mutual_information(category, nothing, torch.zeros(4, 4), nothing).item() == pytest.approx(0, abs=1e-6)


def test_infogan_losses_by_hand():
    """Both losses are the GAN's less lambda times the bound."""
    reading = [torch.zeros(3), torch.zeros(2)]
    discriminator = Fixed([torch.tensor(LOG3), *reading], [torch.tensor(-LOG3), *reading])
    generator = dark_generator()
    objective = InfoGAN(generator, discriminator, GAME, information_weight=2.0)
    torch.manual_seed(0)
    losses = dict(objective.losses(batch_of(REAL)))
    torch.manual_seed(0)
    bounds = []
    for _ in range(2):  # a reader that knows nothing loses what the continuous codes vary
        codes = generator.split_latents(generator.sample_latents(2))[2]
        bounds.append(-(codes.square().sum(1).mean() / 2 + math.log(2 * math.pi)).item() + 2 * math.log(2))
    assert losses["discriminator"].item() == pytest.approx(
        SMOOTHED + math.log(4 / 3) - 2 * bounds[0] + PENALTY, rel=1e-5
    )
    assert losses["generator"].item() == pytest.approx(math.log(4) - 2 * bounds[1], rel=1e-5)
