from types import SimpleNamespace

import pytest
import torch
from tiny import ACDC, Linear, build_tiny, some_pairs

from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.models.unet import join_pairs
from hcm_hf.pipelines.conditions import count_labels
from hcm_hf.schedulers import cosine_schedule
from hcm_hf.training.objectives.distillation import noise_levels, predict_origin
from hcm_hf.training.objectives.paired import find_labels, v_weights


NULL = count_labels(ACDC.axes)


@pytest.fixture
def batch(splits) -> SliceBatch:
    return Slices(splits["train"], ("HCM", "NOR")).batch(slice(16))


@pytest.fixture
def tuned():
    return build_tiny("ddpm", recipe="tuned")


def test_v_is_its_closed_form_and_gives_the_pair_back():
    scheduler, pairs, noise = cosine_schedule(), some_pairs(), some_pairs(1)
    timesteps = torch.tensor([0, 1, 250, 500, 900, 999])
    alpha, sigma = noise_levels(scheduler, timesteps)
    velocity = scheduler.get_velocity(pairs, noise, timesteps)
    assert torch.allclose(velocity, alpha * noise - sigma * pairs, atol=1e-6)
    known = lambda noisy, timesteps, class_labels: SimpleNamespace(sample=velocity)  # noqa: E731
    noisy = scheduler.add_noise(pairs, noise, timesteps)
    assert torch.allclose(predict_origin(scheduler, known, noisy, {"class_labels": None}, timesteps), pairs, atol=1e-5)


def test_the_loss_is_its_closed_form(tuned, batch):
    """A network that predicts 0 errs by v itself."""
    pairs = join_pairs(batch.images, batch.masks, tuned.patch_size)
    noise = torch.randn(pairs.shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.linspace(0, 999, len(batch)).long()
    tuned.unet = Linear(torch.zeros(1000))
    alphas = tuned.scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    velocity = alphas.sqrt()[:, None, None, None] * noise - (1 - alphas).sqrt()[:, None, None, None] * pairs
    error = velocity.square().mean((2, 3))  # blocks of one pixel: image, then three structures
    error = (3 * error[:, 0] + error[:, 1:].sum(1)) / 6
    expected = (torch.minimum(snr + 1, torch.tensor(100.0)) / (snr + 1) * error).mean()
    loss = tuned.loss(pairs, batch.masks, find_labels(batch, ACDC), noise, timesteps)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(v_weights(tuned.scheduler, timesteps, 5.0), (snr + 1).clamp(max=5) / (snr + 1))


def test_a_slice_without_a_segmentation_teaches_its_image_alone(tuned, batch):
    without = torch.full_like(batch.masks, -1)
    pairs = join_pairs(batch.images, without, tuned.patch_size)
    noise = torch.randn(pairs.shape, generator=torch.Generator().manual_seed(0))
    other = noise.clone()
    other[:, 1:] += 1  # of the mask's channels
    timesteps = torch.full((len(batch),), 500)
    tuned.unet = Linear(torch.zeros(1000))
    first, second = (tuned.loss(pairs, without, find_labels(batch, ACDC), some, timesteps) for some in (noise, other))
    assert first == second


def test_labels_are_those_of_the_slices_and_dropout_uses_the_null_label(tuned, batch):
    labels = find_labels(batch, ACDC)
    described = [tuned.pipeline().conditions.describe(label) for label in labels.tolist()]
    groups, phases, levels = (list(ACDC.axes[axis]) for axis in ("group", "phase", "level"))
    assert [groups.index(one["group"]) for one in described] == batch.class_labels.tolist()
    assert [phases.index(one["phase"]) for one in described] == batch.phases.tolist()
    thirds = (batch.positions * 3).long().clamp(max=2).tolist()
    assert [levels.index(one["level"]) for one in described] == thirds

    seen = []
    tuned.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["class_labels"]), with_kwargs=True
    )
    tuned.label_dropout = 0.0
    next(tuned.losses(batch))
    tuned.label_dropout = 1.0
    next(tuned.losses(batch))
    assert torch.equal(seen[0], labels)
    assert (seen[1] == NULL).all() and tuned.pipeline().conditions.null_label == NULL
    assert tuned.unet.config.num_class_embeds == NULL + 1
    counted = torch.bincount(labels, minlength=NULL + 1)
    assert torch.equal(tuned.label_counts, 2 * counted)  # dropped or not, they were met


def test_timesteps_are_spread_over_the_batch(tuned, batch):
    timesteps = tuned.draw_timesteps(batch)
    assert torch.equal((timesteps.sort().values * len(batch) / 1000).long(), torch.arange(len(batch)))


def test_validation_is_deterministic_and_does_not_count(tuned, batch):
    with torch.no_grad():
        assert tuned.validation_loss(batch) == tuned.validation_loss(batch)
    assert not tuned.label_counts.any()
