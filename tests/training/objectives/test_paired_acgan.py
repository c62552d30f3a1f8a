import math

import numpy as np
import pytest
import torch
from tiny import build_tiny

from hcm_hf.data.slices import SliceBatch
from hcm_hf.metrics.anatomy import LEFT, MYOCARDIUM, wall_thickness
from hcm_hf.training.objectives.pair_game import NonSaturating, PairGame, Relativistic
from hcm_hf.training.objectives.walls import read_walls


def rings(walls, size=64) -> torch.Tensor:
    """Round walls as thick as said in pixels, around a cavity of radius 8."""
    radius = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2))
    masks = np.stack([np.where(radius < 8, LEFT, np.where(radius < 8 + wall, MYOCARDIUM, 0)) for wall in walls])
    return torch.from_numpy(masks)


def some_batch(count=4, size=16, segmented=True) -> SliceBatch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 4, (count, size, size), generator=generator)
    return SliceBatch(
        images=torch.rand(count, 1, size, size, generator=generator) * 2 - 1,
        masks=masks if segmented else torch.full_like(masks, -1),
        class_labels=torch.arange(count) % 5,
        phases=torch.arange(count) % 2,
        positions=torch.linspace(0, 1, count),
    )


def test_walls_are_the_radial_thickness_of_drawn_rings():
    masks = rings([3, 5, 9])
    assert read_walls(masks).tolist() == pytest.approx(wall_thickness(masks.numpy(), 2.0).tolist())
    assert read_walls(masks).tolist() == pytest.approx([6, 10, 18], abs=1.2)


def test_an_open_ring_and_a_slice_without_a_segmentation_have_no_wall():
    masks = rings([5, 5])
    masks[0, :, 30:34] = 0
    masks[1] = -1
    assert read_walls(masks).isnan().all()


def test_the_games_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
    game = Relativistic()
    assert game.discriminator(real, fake).tolist() == pytest.approx(
        [math.log1p(math.exp(-1)), math.log1p(math.exp(3))]
    )
    assert game.generator(real, fake).tolist() == pytest.approx([math.log1p(math.exp(1)), math.log1p(math.exp(-3))])
    probability = 1 / (1 + math.exp(-2))
    expected = -0.9 * math.log(probability) - 0.1 * math.log(1 - probability) + math.log1p(math.exp(1))
    assert NonSaturating(0.1).discriminator(real, fake)[0].item() == pytest.approx(expected)
    assert NonSaturating().generator(real, fake)[0].item() == pytest.approx(math.log1p(math.exp(-1)))


def test_both_networks_learn_and_neither_gets_the_others_gradient():
    objective = build_tiny("acgan", recipe="paired")
    for name, loss in objective.losses(some_batch()):
        objective.zero_grad()
        loss.backward()
        for other, network in objective.named_children():
            moved = any(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())
            assert moved == (other == name)


@pytest.mark.parametrize("recipe", ["paired", "crisp"])
def test_slices_without_a_segmentation_do_not_count(recipe):
    objective = build_tiny("acgan", recipe=recipe)
    for _, loss in objective.losses(some_batch(segmented=False)):
        assert loss.item() == 0


def test_generated_pairs_show_no_segmentation_where_the_real_one_has_none():
    """Or a discriminator that sees the spread of a batch would tell them by that."""
    objective, batch = build_tiny("acgan", recipe="crisp"), some_batch()
    batch.masks[1] = -1
    seen = []
    objective.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    objective.judge.game = PairGame(augmentation=0.0, mask_noise=0.0, penalty=0.0, mismatch_weight=0.0)
    for _ in objective.losses(batch):
        pass
    assert len(seen) == 4 and all(not pairs[1, 1:].any() and pairs[0, 1:].any() for pairs in seen)


def test_a_discriminator_is_shown_how_much_a_batch_differs():
    plain, crisp = (build_tiny("acgan", recipe=recipe).discriminator for recipe in ("paired", "crisp"))
    pairs = torch.rand(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    given = torch.zeros(4, dtype=torch.long), torch.full((4,), torch.nan)
    alike = torch.cat([pairs[:1], pairs[:1].expand(3, -1, -1, -1)])
    for network, seen in ((plain, False), (crisp, True)):
        together, apart = network(pairs, *given).logits[0], network(alike, *given).logits[0]
        assert (together - apart).abs().item() > 1e-6 if seen else torch.allclose(together, apart, atol=1e-6)


def test_labels_are_counted_and_the_range_of_walls_is_found():
    objective = build_tiny("acgan", recipe="paired")
    batch = some_batch(3, 64)
    batch.masks = rings([3, 5, 9])
    objective.observe(batch)
    assert objective.label_counts.sum() == 3
    walls = read_walls(batch.masks)
    assert objective.wall_range.tolist() == pytest.approx([walls.min().item(), walls.max().item()])
    (thinnest, thickest) = objective.pipeline().conditions.ranges["wall_thickness"]
    assert (thinnest, thickest) == pytest.approx(objective.wall_range.tolist())


def test_before_a_wall_was_met_none_can_be_asked_for():
    assert build_tiny("acgan", recipe="paired").pipeline().conditions.ranges == {}


def test_labels_and_walls_are_left_out_as_often_as_said():
    objective = build_tiny("acgan", recipe="paired")
    batch = some_batch(2000, 16)
    batch.masks = rings([5], 64)[:, ::4, ::4].repeat(2000, 1, 1)
    torch.manual_seed(0)
    shown = objective.observe(batch)
    assert (shown.given_labels == 30).float().mean().item() == pytest.approx(objective.label_dropout, abs=0.03)
    if shown.walls.isfinite().all():
        assert shown.given_walls.isnan().float().mean().item() == pytest.approx(objective.wall_dropout, abs=0.04)


def test_a_label_left_out_is_the_one_that_says_nothing():
    generator = build_tiny("acgan", recipe="paired").generator.eval()
    latents = generator.sample_latents(2, torch.Generator().manual_seed(0))
    nothing = torch.full((2,), 30), torch.full((2,), torch.nan)
    with torch.no_grad():
        assert (generator(latents) == generator(latents, *nothing)).all()


def test_masks_of_another_slice_are_a_kind_of_fake():
    """Where only the masks' fit tells real pairs from fake ones, the discriminator's loss depends on it."""
    batch = some_batch()
    losses = {}
    for weight in (0.0, 1.0):
        game = PairGame(mismatch_weight=weight, penalty=0.0, class_weight=0.0)
        objective = build_tiny("acgan", recipe="paired", game=game)
        torch.manual_seed(0)
        name, loss = next(iter(objective.losses(batch)))
        losses[weight] = loss.item()
    assert losses[1.0] - losses[0.0] == pytest.approx(
        math.log(2), abs=0.25
    )  # of a discriminator that knows nothing yet
