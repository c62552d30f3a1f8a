import pytest
import torch
from scipy import stats

from hcm_hf.models import InfoGANDiscriminator, InfoGANGenerator


@pytest.fixture
def generator():
    return InfoGANGenerator(16, latent_dim=9, num_categories=4, num_continuous=2, base_channels=4).eval()


def test_latents_are_noise_and_codes(generator):
    noise, category, continuous = generator.split_latents(
        generator.sample_latents(4000, torch.Generator().manual_seed(0))
    )
    assert noise.shape == (4000, 3) and category.shape == (4000, 4) and continuous.shape == (4000, 2)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    assert set(category.flatten().tolist()) == {0.0, 1.0} and (category.sum(1) == 1).all()
    assert stats.chisquare(category.sum(0).numpy()).pvalue > 0.01
    assert stats.kstest(continuous.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_each_latent_comes_from_its_own_generator(generator):
    together = generator.sample_latents(3, [torch.Generator().manual_seed(i) for i in range(3)])
    torch.testing.assert_close(together[2:], generator.sample_latents(1, torch.Generator().manual_seed(2)))


def test_controls_vary_one_code_each(generator):
    latents = generator.sample_latents(2)
    rows = generator.controls(latents)
    assert [(name, len(row)) for name, (row, _) in rows.items()] == [
        ("categorical", 4),
        ("continuous 1", 10),
        ("continuous 2", 10),
    ]
    columns = {"categorical": [3, 4, 5, 6], "continuous 1": [7], "continuous 2": [8]}
    for name, (row, label) in rows.items():
        others = [column for column in range(9) if column not in columns[name]]
        assert (row[:, others] == latents[:1, others]).all() and label is None
    torch.testing.assert_close(rows["categorical"][0][:, 3:7], torch.eye(4))
    torch.testing.assert_close(rows["continuous 2"][0][:, 8], torch.linspace(-1, 1, 10))


def test_q_reads_codes_from_the_discriminators_body():
    discriminator = InfoGANDiscriminator(16, base_channels=4, num_categories=4, hidden_dim=8)
    logits, category, continuous = discriminator(torch.rand(3, 1, 16, 16))
    assert logits.shape == (3,) and category.shape == (3, 4) and continuous.shape == (3, 2)
    category.sum().backward()
    assert discriminator.body.from_image.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("codes", [{"num_categories": 8}, {"num_categories": 0}, {"num_continuous": -1}])
def test_codes_that_do_not_fit_the_latents_are_refused(codes):
    with pytest.raises(ValueError, match="latent_dim is 9; it must hold"):
        InfoGANGenerator(16, latent_dim=9, base_channels=4, **{"num_categories": 4} | codes)
