"""What holds for every family, once."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny import ACDC, MODELS, TINY, build_tiny, sample

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.slices import Slices
from hcm_hf.models import LatentModel
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS, find_family
from hcm_hf.utils.errors import InputError


ORDER = ["vae", "gan", "dcgan", "acgan", "infogan", "ddpm"]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_model = pytest.mark.parametrize(("family", "recipe"), MODELS)


@pytest.fixture
def batch(splits):
    return Slices(splits["train"], ("HCM",)).batch(range(6))


def test_tiny_sizes_cover_the_families():
    assert list(TINY) == list(FAMILIES) == [family for family in ORDER if family in FAMILIES]


@every_family
def test_paper_recipe_is_the_studys(family):
    recipe = FAMILIES[family].recipes["paper"]
    assert (recipe.learning_rate, recipe.adam_betas, recipe.train_batch_size) == (2e-4, (0.5, 0.999), 32)
    assert recipe.num_epochs == (115 if family == "ddpm" else 100)
    assert recipe.patience == 50 and recipe.ema_decay == (0.9999 if family == "ddpm" else 0)


@every_model
def test_each_loss_reaches_every_parameter_of_its_network_and_no_other(family, recipe, batch):
    objective = build_tiny(family, seed=1, recipe=recipe)
    networks = dict(objective.named_children())
    seen = []
    for name, loss in objective.losses(batch):
        objective.zero_grad(set_to_none=True)
        loss.backward()
        seen.append(name)
        for other, network in networks.items():
            grads = [parameter.grad for parameter in network.parameters()]
            if other == name:
                assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
            else:
                assert all(grad is None for grad in grads)
        with torch.no_grad():
            for parameter in networks[name].parameters():
                parameter.add_(1e-3)  # as an optimizer would: a student that equals its teacher has nothing to learn
    assert set(seen) == set(networks)
    assert all(parameter.requires_grad for parameter in objective.parameters())


@every_model
def test_losses_are_a_function_of_the_random_seed(family, recipe, batch):
    values = []
    for _ in range(2):
        objective = build_tiny(family, recipe=recipe)
        torch.manual_seed(1)
        values.append([loss.item() for _, loss in objective.losses(batch)])
    assert values[0] == values[1]


@every_model
def test_validation_loss_is_deterministic_and_changes_nothing(family, recipe, batch):
    objective = build_tiny(family, recipe=recipe).eval()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    with torch.no_grad():
        first = objective.validation_loss(batch)
        torch.manual_seed(5)
        assert objective.validation_loss(batch) == first
    assert first.ndim == 0 and torch.isfinite(first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


@every_model
def test_pipeline_makes_images_in_range_and_repeats_itself(family, recipe):
    pipeline = build_tiny(family, recipe=recipe).pipeline()
    images = [sample(family, pipeline) for _ in range(2)]
    assert images[0].shape == (3, 16, 16, 1) and images[0].min() >= 0 and images[0].max() <= 1
    assert (images[0] == images[1]).all()
    assert (images[0][0] != images[0][1]).any()


@every_model
def test_preview_is_quick_and_repeats_itself(family, recipe, batch):
    objective = build_tiny(family, recipe=recipe)
    images = [objective.preview(batch) for _ in range(2)]
    assert images[0].shape == (16, 16, 16, 1) and (images[0] == images[1]).all()


@every_model
def test_one_batch_can_be_overfitted(family, recipe, batch):
    """The first network alone learns one batch by heart: the images, or to tell them from generated ones."""
    objective = build_tiny(family, recipe=recipe)
    name, loss = next(objective.losses(batch))
    count, rate = (60, 5e-3) if FAMILIES[family].recipes[recipe].taught_by else (30, 1e-2)
    optimizer = torch.optim.Adam(objective.get_submodule(name).parameters(), lr=rate)
    values = []
    for _ in range(count):
        torch.manual_seed(0)
        _, loss = next(objective.losses(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    constant = {"vae": 16**2 * math.log(2 * math.pi) / 2}.get(family, 0.0)  # the part that no network can lower
    students = ("distilled", "crisp_student")  # their first network is held between student and teacher
    left = 0.75 if recipe in students else 0.6
    assert values[-1] - constant < left * (values[0] - constant)


@every_model
def test_to_make_a_pipeline_leaves_the_networks_as_they_are(family, recipe, batch):
    objective = build_tiny(family, recipe=recipe)
    list(objective.losses(batch))
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    random_state = torch.get_rng_state()
    sample(family, objective.pipeline())
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    assert all(module.training for module in objective.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


@every_model
def test_draws_do_not_depend_on_the_number_of_processes(family, recipe, splits):
    """Two halves see the numbers of the whole: where no layer mixes slices, its losses are the means of theirs."""
    if (family, recipe) == ("acgan", "crisp"):
        pytest.skip("its discriminator is shown how much the pairs of a process differ")
    slices = Slices(splits["train"], ("HCM",))

    def losses(index, num_processes, gather):
        objective = build_tiny(family, recipe=recipe).eval()  # batch normalisation mixes no slices then
        torch.manual_seed(1)
        part = slices.batch(range(index, 8, num_processes), index, num_processes)
        return [loss.item() for _, loss in objective.losses(replace(part, gather=gather))]

    def note(values, noted):
        noted.append(values)
        return torch.cat([values, values])

    def replay(values):
        left = iter(values)
        return lambda own: next(left)

    gathered = [[], []]  # what each of two processes gives to the others, in order; it does not depend on theirs
    for index in range(2):
        losses(index, 2, partial(note, noted=gathered[index]))
    whole = [torch.cat(values) for values in zip(*gathered, strict=True)]
    parts = [losses(index, 2, replay(whole)) for index in range(2)]
    values = losses(0, 1, lambda own: own), np.mean(parts, axis=0)
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_published_sizes_are_the_networks_own():
    for family in FAMILIES.values():
        paper = family.recipes["paper"]
        for network in paper.build(64, ACDC).children():
            own = {name for name in network.config if not name.startswith("_")}
            named = paper.fitted_sizes(ACDC).get("generator", {})
            expected = type(network)(**named).config if isinstance(network, LatentModel) else network.config
            assert {name: network.config[name] for name in own} == {name: expected[name] for name in own}


def test_adversarial_recipes_are_smoothed_and_penalised():
    for family in ("gan", "dcgan", "acgan", "infogan"):
        game = build_tiny(family).game
        assert game.label_smoothing == 0.1 and game.penalty_per_pixel == pytest.approx(2e-4 / 32)
        assert game.penalty_interval == 1 and game.augmentation == 0
    assert build_tiny("infogan").information_weight == 1


def test_unknown_names_list_those_that_exist():
    with pytest.raises(InputError, match="Unknown family 'stylegan'; choose among vae, gan, dcgan"):
        find_family("stylegan", "paper")
    with pytest.raises(InputError, match="Unknown recipe 'best' of dcgan; choose among paper"):
        find_family("dcgan", "best")


@pytest.mark.parametrize("name", ["features", "segmenter"])
def test_an_instrument_is_found_as_a_family_is_but_is_none(name):
    family, recipe = find_family(name, "default")
    assert family is INSTRUMENTS[name] and recipe is family.recipes["default"]
    assert not set(INSTRUMENTS) & set(FAMILIES)
    with pytest.raises(InputError, match=f"Unknown recipe 'paper' of {name}; choose among default"):
        find_family(name, "paper")
    encoder = recipe.build(64, ACDC).encoder
    assert tuple(encoder.config.groups) == GROUPS and encoder.config.sample_size == 64
