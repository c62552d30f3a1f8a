"""The steps of a training: batches, rates, random numbers, validation, averaged weights and logs."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import WEIGHTS, metrics, tensors, written
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcm_hf.data.slices import Slices
from hcm_hf.training.loop import batch_indices, step_seed, train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import Diverged


def test_a_linear_rate_falls_over_the_whole_training(config, monkeypatch):
    """Each network's by its own part of the rate: the first step has all of it, after the last there would be none."""
    recipe = replace(FAMILIES["dcgan"].recipes["paper"], relative_rates={"generator": 0.5})
    monkeypatch.setitem(FAMILIES["dcgan"].recipes, "paper", recipe)
    rates, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *rest, **named: (rates.append(self.param_groups[0]["lr"]), step(self, *rest, **named))[1],
    )
    output_dir = train(replace(config, lr_scheduler="linear", learning_rate=0.01))
    count = len([record for record in metrics(output_dir) if "validation_loss" not in record])
    expected = [0.01 * (1 - done / count) for done in range(count)]
    assert rates[::2] == pytest.approx(expected)  # discriminator
    assert rates[1::2] == pytest.approx([rate / 2 for rate in expected])


def random_numbers():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_drawn(config, monkeypatch):
    def seed():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)

    seed()
    expected = random_numbers()
    seed()
    train(replace(config, num_epochs=1))
    assert random_numbers() == expected
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.adversarial_loss", lambda logits, target: logits.mean() * float("nan")
    )
    seed()
    with pytest.raises(Diverged):
        train(config)
    assert random_numbers() == expected


def test_early_stopping_keeps_the_best(config, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.GAN.validation_loss", lambda self, batch: torch.tensor(next(losses))
    )
    output_dir = train(replace(config, num_epochs=50, patience=3))
    records = [record for record in metrics(output_dir) if "validation_loss" in record]
    assert [record["validation_loss"] for record in records] == [3.0, 1.0, 2.0, 2.0, 2.0]
    noted = written(output_dir / "best")
    assert noted["progress"]["best_loss"] == 1.0
    losses = iter([3.0, 1.0])
    two = train(replace(config, num_epochs=2, output_dir=config.output_dir + "-two"))
    weights = [
        load_file(run / "network" / WEIGHTS) for run in (output_dir / "best", two / "last", output_dir / "last")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_number_of_steps_is_taken_whatever_the_slices_and_the_patience(config):
    output_dir = train(replace(config, num_epochs=1, num_steps=5, patience=1))
    assert [record["step"] for record in metrics(output_dir) if "validation_loss" not in record] == [1, 2, 3, 4, 5]
    noted = written(output_dir / "last")
    assert noted["progress"]["step"] == noted["num_steps"] == 5
    short = train(replace(config, num_steps=1, output_dir=config.output_dir + "-short"))  # less than an epoch
    assert written(short)["progress"]["step"] == 1


def test_a_recipe_of_ones_own_is_trained(config):
    own = replace(FAMILIES["dcgan"].recipes["paper"], adam_betas=(0.1, 0.2), learning_rate=1.0)
    output_dir = train(replace(config, num_steps=1, learning_rate=1e-4), own)
    noted = written(output_dir)
    assert (noted["adam_betas"], noted["learning_rate"]) == ([0.1, 0.2], 1e-4)


def test_training_drives_the_loss_down(config):
    output_dir = train(replace(config, num_epochs=25, learning_rate=2e-3, checkpointing_epochs=25, sample_epochs=100))
    losses = [record["discriminator_loss"] for record in metrics(output_dir) if "discriminator_loss" in record]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_batch_order_is_whole_shuffled_passes():
    stream = np.concatenate([batch_indices(10, 4, step, seed=1) for step in range(5)])
    for epoch in (stream[:10], stream[10:]):
        assert sorted(epoch) == list(range(10))
    assert (stream[:10] != stream[10:]).any() and (stream[:10] != np.arange(10)).any()
    assert (batch_indices(10, 4, 3, seed=2) != batch_indices(10, 4, 3, seed=1)).any()


def test_seeds_differ_by_step_and_seed():
    seeds = {step_seed(s, n) for s in range(10) for n in range(10)}
    assert len(seeds) == 100 and all(0 <= seed < 2**63 for seed in seeds)


def test_divergence_is_reported_and_the_checkpoint_kept(config, monkeypatch):
    output_dir = train(replace(config, num_epochs=1))
    before = tensors(output_dir)
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.adversarial_loss", lambda logits, target: logits.mean() * float("nan")
    )
    with pytest.raises(Diverged, match="discriminator_loss is nan at step .* lower learning_rate"):
        train(config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(output_dir).items())


def test_trackers_get_the_losses(config):
    output_dir = train(replace(config, num_epochs=1, report_to=("tensorboard",)))
    logged = EventAccumulator(str(output_dir / "logs" / "hcm_hf")).Reload().Scalars("generator_loss")
    expected = [record for record in metrics(output_dir) if "generator_loss" in record]
    assert [event.step for event in logged] == [record["step"] for record in expected]
    np.testing.assert_allclose([event.value for event in logged], [record["generator_loss"] for record in expected])


def test_a_generator_notes_its_patients_too_and_only_of_its_groups(config, splits):
    patients = written(train(replace(config, num_steps=1)))["train_patients"]
    hcm = Slices(splits["train"], ("HCM",))
    assert patients == hcm.identities() and set(patients) == set(hcm.patients)
