import pytest
import torch
from torch import nn

from hcm_hf.training.ema import AveragedWeights


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_average_follows_its_formula(decay):
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedWeights(network, decay)
    expected = network[0].weight.detach().clone()
    for step in range(1, 20):
        nn.init.normal_(network[0].weight)
        network[1].running_mean.fill_(step)
        network[1].num_batches_tracked.fill_(step)
        average.update(step)
        capped = min(decay, (1 + step) / (10 + step))
        expected = capped * expected + (1 - capped) * network[0].weight.detach()
    torch.testing.assert_close(average.weights["0.weight"], expected)
    torch.testing.assert_close(average.weights["1.running_mean"], torch.full((2,), 19.0))
    assert average.weights["1.num_batches_tracked"] == 19


def test_own_weights_come_back_whatever_happens():
    network = nn.Linear(2, 2)
    average = AveragedWeights(network, 0.9)
    nn.init.zeros_(network.weight)
    with pytest.raises(RuntimeError), average.applied():
        assert torch.equal(network.weight, average.weights["weight"]) and network.weight.abs().sum() > 0
        raise RuntimeError
    assert (network.weight == 0).all()
