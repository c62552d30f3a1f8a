import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from hcm_hf.data.augmentation import (
    BRIGHTNESS,
    CONTRAST,
    CUTOUT,
    GAMMA,
    NUM_CHANGES,
    NUM_DRAWS,
    ROTATION,
    SCALE,
    SHIFT,
    TRANSLATION,
    StrongAugmentation,
    augment,
    augment_batch,
    change_images,
)
from hcm_hf.data.slices import SliceBatch
from hcm_hf.metrics.anatomy import dice


SIZES = [16, 32, 64]
ANGLE, ZOOM, ACROSS, DOWN, BEND = range(NUM_DRAWS)


def draws_of(n=1, **changes):
    """All .5 but the named ones."""
    draws = torch.full((n, NUM_DRAWS), 0.5)
    for name, value in changes.items():
        draws[:, {"angle": ANGLE, "scale": ZOOM, "across": ACROSS, "down": DOWN, "gamma": BEND}[name]] = value
    return draws


def squares(n, size, row=0.3, column=0.55, side=0.3):
    """A bright square on black, away from the middle, and its mask."""
    masks = torch.zeros(n, size, size, dtype=torch.long)
    top, left = int(row * size), int(column * size)
    masks[:, top : top + int(side * size), left : left + int(side * size)] = 2
    return (masks[:, None] > 0).float() * 2 - 1, masks


def middle(mask):
    return np.argwhere(mask.numpy() > 0).mean(0)


@pytest.mark.parametrize("interpolation", ["bilinear", "spectral"])
@pytest.mark.parametrize("size", SIZES)
def test_draws_of_a_half_change_nothing(size, interpolation):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, size, size, generator=generator) * 2 - 1
    images[0, 0, :2], images[0, 0, 2:4] = -1, 1
    masks = torch.randint(4, (5, size, size), generator=generator)
    moved, moved_masks = augment(images, masks, draws_of(5), interpolation)
    torch.testing.assert_close(moved, images, rtol=0, atol=2e-5)
    assert torch.equal(moved_masks, masks) and moved_masks.dtype == masks.dtype and moved.dtype == images.dtype


@pytest.mark.parametrize("size", SIZES)
def test_masks_move_with_images_and_values_stay_in_range(size):
    generator = torch.Generator().manual_seed(1)
    images, masks = squares(40, size)
    moved, moved_masks = augment(images, masks, torch.rand(40, NUM_DRAWS, generator=generator))
    assert moved.shape == images.shape and moved_masks.shape == masks.shape
    assert moved.min() >= -1 and moved.max() <= 1 and set(moved_masks.unique().tolist()) == {0, 2}
    overlaps = [dice(a, b) for a, b in zip(moved[:, 0].numpy() > 0, moved_masks.numpy() == 2, strict=True)]
    assert min(overlaps) > 0.9 - 2 / size and np.mean(overlaps) > 0.9
    changed = [dice(a, b) for a, b in zip(masks.numpy() == 2, moved_masks.numpy() == 2, strict=True)]
    assert np.mean(changed) < 0.95  # they did move


def test_spectral_interpolation_keeps_texture_that_bilinear_blurs():
    """A wave of three pixels, turned and shifted by parts of a pixel, keeps its variance, and its place."""
    across = torch.arange(64.0)
    waves = torch.cos(2 * math.pi / 3 * across).expand(40, 1, 64, 64) / 2
    masks = torch.zeros(40, 64, 64, dtype=torch.long)
    draws = torch.rand(40, NUM_DRAWS, generator=torch.Generator().manual_seed(5))
    draws[:, BEND] = 0.5
    kept = {
        name: augment(waves, masks, draws, name)[0][..., 8:-8, 8:-8].var() / waves.var()
        for name in ("bilinear", "spectral")
    }
    assert kept["bilinear"] < 0.7 and kept["spectral"] == pytest.approx(1, abs=0.05)

    draws = draws_of(across=0.5 + 0.5 / (2 * SHIFT * 64))  # half a pixel
    moved = augment(waves[:1], masks[:1], draws, "spectral")[0][0, 0, 8:-8, 8:-8]
    expected = torch.cos(2 * math.pi / 3 * (across + 0.5))[8:-8].expand(48, 48) / 2
    torch.testing.assert_close(moved, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("corner", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_extreme_draws_of_saturated_images_stay_in_range(size, corner):
    images = torch.where(torch.rand(4, 1, size, size) < 0.5, -1.0, 1.0)
    draws = torch.full((4, NUM_DRAWS), corner)
    moved, _ = augment(images, torch.zeros(4, size, size, dtype=torch.long), draws)
    assert moved.isfinite().all() and moved.min() >= -1 and moved.max() <= 1


def test_each_number_does_one_thing():
    images, masks = squares(1, 64)
    still, area = middle(masks[0]), (masks > 0).sum()

    def moved(**changes):
        return augment(images, masks, draws_of(**changes))[1][0]

    for name, axis in (("down", 0), ("across", 1)):
        for end, sign in ((0.0, 1), (1.0, -1)):
            offset = middle(moved(**{name: end})) - still
            assert offset[axis] == pytest.approx(sign * SHIFT * 64, abs=0.6) and abs(offset[1 - axis]) < 0.1
    sizes = [(moved(scale=value) > 0).sum() / area for value in (0.0, 1.0)]
    assert sizes == pytest.approx([(1 + SCALE) ** -2, (1 + SCALE) ** 2], abs=0.08)
    arm = still - 31.5
    turned = [middle(moved(angle=value)) - 31.5 for value in (0.0, 1.0)]
    for arms in turned:
        assert np.hypot(*arms) == pytest.approx(np.hypot(*arm), rel=0.03)
        cosine = arms @ arm / np.hypot(*arms) / np.hypot(*arm)
        assert np.arccos(cosine) == pytest.approx(ROTATION, abs=0.04)
    assert np.cross([*turned[0], 0], [*arm, 0])[2] * np.cross([*turned[1], 0], [*arm, 0])[2] < 0  # either way


def test_gamma_bends_the_brightness_and_leaves_place_and_mask():
    images = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)
    masks = torch.arange(256).view(1, 16, 16) % 4
    for value, exponent in ((0.0, np.exp(-GAMMA)), (1.0, np.exp(GAMMA))):
        moved, moved_masks = augment(images, masks, draws_of(gamma=value))
        torch.testing.assert_close(moved, 2 * ((images + 1) / 2) ** exponent - 1, rtol=0, atol=1e-4)
        assert torch.equal(moved_masks, masks)


@pytest.mark.parametrize("size", SIZES)
def test_edges_are_repeated(size):
    """What comes in from outside is the outermost column: not black, and no mirror image."""
    images = torch.linspace(-0.9, 0.9, size).expand(1, 1, size, size)
    masks = (torch.arange(size) == size - 1).long().expand(1, size, size)
    width = int(SHIFT * size)
    moved, moved_masks = augment(images, masks, draws_of(across=1.0))
    torch.testing.assert_close(moved[..., size - 1 - width :], images[..., -1:].expand(1, 1, size, width + 1))
    assert (moved_masks[..., size - width :] == 1).all()
    moved, moved_masks = augment(images, masks, draws_of(across=0.0))
    torch.testing.assert_close(moved[..., : width + 1], images[..., :1].expand(1, 1, size, width + 1))
    assert (moved_masks[..., :width] == 0).all()


def test_there_are_no_flips():
    """A mark right of the middle and one below it stay there, whatever is drawn."""
    masks = torch.zeros(200, 32, 32, dtype=torch.long)
    masks[:, 14:18, 25:29], masks[:, 25:29, 14:18] = 1, 2
    images = (masks[:, None] > 0).float()
    moved = augment(images, masks, torch.rand(200, NUM_DRAWS, generator=torch.Generator().manual_seed(2)))[1]
    for one in moved:
        (_, right), (below, _) = np.argwhere(one.numpy() == 1).mean(0), np.argwhere(one.numpy() == 2).mean(0)
        assert right > 18 and below > 18


def test_slices_are_changed_each_by_its_own_numbers():
    images, masks = squares(3, 32)
    draws = torch.rand(3, NUM_DRAWS, generator=torch.Generator().manual_seed(3))
    together = augment(images, masks, draws)
    alone = augment(images[1:2], masks[1:2], draws[1:2])
    torch.testing.assert_close(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1]) and not torch.equal(together[0][0], together[0][1])


def test_missing_masks_stay_missing():
    images, masks = squares(20, 32)
    masks[::2] = -1
    moved = augment(images, masks, torch.rand(20, NUM_DRAWS, generator=torch.Generator().manual_seed(4)))[1]
    assert (moved[::2] == -1).all() and (moved[1::2] >= 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("fill", ["inside", "black", "white"])
def test_gradients_flow_to_images_and_are_finite(gamma, fill):
    """Generated images are augmented too, and their background is black: -1 to the last digit."""
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(5)) * 1.8 - 0.9
    images[:, :, :4] = {"inside": 0.3, "black": -1.0, "white": 1.0}[fill]
    images.requires_grad_()
    draws = draws_of(3, angle=0.8, scale=0.4, across=0.7, down=0.4, gamma=gamma)
    augment(images, torch.zeros(3, 16, 16, dtype=torch.long), draws)[0].square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad[:, :, 6:12, 6:12] != 0).all()


def test_a_batch_is_augmented_by_a_part_of_the_range_and_each_process_by_the_same_numbers():
    images, masks = squares(8, 32)
    labels = torch.zeros(8, dtype=torch.long)
    batch = SliceBatch(images, masks, labels, labels, labels.float())
    torch.manual_seed(0)
    draws = torch.rand(8, NUM_DRAWS)
    for strength in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        found = augment_batch(batch, strength)
        expected = augment(images, masks, 0.5 + strength * (draws - 0.5), "spectral")
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    parts = []
    for process in (0, 1):
        torch.manual_seed(0)
        part = SliceBatch(
            *(tensor[process::2] for tensor in (images, masks, labels, labels, labels.float())), process, 2
        )
        parts.append(augment_batch(part)[0])
    torch.testing.assert_close(torch.stack(parts, 1).flatten(0, 1), found[0], rtol=0, atol=1e-6)


# Differentiable augmentation.


CHANGES = {name: index for index, name in enumerate(("brightness", "contrast", "down", "across", "top", "left"))}
SIZE = 32


# Strong augmentation.

STILL = StrongAugmentation(**dict.fromkeys(asdict(StrongAugmentation()), 0.0))


def batch_with(images, masks, **changes):
    labels = torch.zeros(len(images), dtype=torch.long)
    return SliceBatch(images, masks, labels, labels, labels.float(), **changes)


def strongly(batch, augmentation, seed=0):
    torch.manual_seed(seed)
    return augmentation(batch)


@pytest.mark.parametrize("size", SIZES)
def test_no_strength_changes_nothing(size):
    images = torch.rand(5, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    masks = torch.randint(4, (5, size, size), generator=torch.Generator().manual_seed(1))
    moved, moved_masks = strongly(batch_with(images, masks), STILL)
    torch.testing.assert_close(moved, images, rtol=0, atol=2e-5)
    assert torch.equal(moved_masks, masks) and moved_masks.dtype == masks.dtype and moved.dtype == images.dtype


@pytest.mark.parametrize("name", ["rotation", "scale", "shift", "elastic"])
def test_masks_move_with_strongly_moved_images(name):
    images, masks = squares(40, 64)
    moving = replace(STILL, **{name: asdict(StrongAugmentation())[name]})
    moved, moved_masks = strongly(batch_with(images, masks), moving)
    overlaps = [dice(a.numpy(), b.numpy()) for a, b in zip(moved[:, 0] > 0, moved_masks == 2, strict=True)]
    assert min(overlaps) > 0.95
    assert sum(not torch.equal(one, masks[0]) for one in moved_masks) > 20  # few moves are below a pixel
    assert all(32 <= middle(one)[1] for one in moved_masks) or name == "rotation"  # what is on the right stays there


@pytest.mark.parametrize("name", ["gamma", "contrast", "brightness", "blur", "noise"])
def test_grey_values_change_without_the_mask(name):
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(40, 1, 32, 32, generator=generator) - 0.5) * 1.6
    masks = torch.randint(4, (40, 32, 32), generator=generator)
    changed, same = strongly(batch_with(images, masks), replace(STILL, **{name: asdict(StrongAugmentation())[name]}))
    assert torch.equal(same, masks)
    difference = (changed - images)[:, 0]
    means, deviations = difference.mean((1, 2)), difference.std((1, 2))
    assert difference.abs().amax((1, 2)).min() > 0
    if name == "brightness":
        assert means.abs().max() <= 0.2 and means.min() < -0.1 and means.max() > 0.1 and deviations.max() < 1e-4
    if name == "noise":
        assert deviations.max() <= 0.06 * 1.1 and deviations.max() > 0.04 and means.abs().max() < 0.01
    if name == "contrast":
        factors = changed.std((1, 2, 3)) / images.std((1, 2, 3))
        assert math.exp(-0.3) <= factors.min() < 0.9 and 1.1 < factors.max() <= math.exp(0.3)
        assert means.abs().max() < 1e-4
    if name == "blur":
        factors = changed.std((1, 2, 3)) / images.std((1, 2, 3))
        assert factors.min() < 0.5 and 1 < factors.max() < 1.6  # blurred, and sharpened by half as much


def test_strong_augmentation_is_the_same_whatever_the_number_of_processes():
    images, masks = squares(6, 16)
    whole = strongly(batch_with(images, masks), StrongAugmentation())
    for process in range(2):
        part = batch_with(images[process::2], masks[process::2], process_index=process, num_processes=2)
        for one, expected in zip(strongly(part, StrongAugmentation()), whole, strict=True):
            torch.testing.assert_close(one, expected[process::2])


def test_missing_masks_stay_missing_in_strong_augmentation():
    images, masks = squares(3, 16)
    assert (strongly(batch_with(images, torch.full_like(masks, -1)), StrongAugmentation())[1] == -1).all()


def changes_of(images, **values):
    """What changes nothing but the named; the square is hidden beyond the corner as far as it can be."""
    draws = torch.full((len(images), NUM_CHANGES), 0.5)
    draws[:, CHANGES["top"]] = draws[:, CHANGES["left"]] = 10.0  # outside
    for name, value in values.items():
        draws[:, CHANGES[name]] = value
    return draws


@pytest.fixture
def images():
    return torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9


def test_no_change_is_none(images):
    torch.testing.assert_close(change_images(images, changes_of(images)), images)
    random = torch.rand(5, NUM_CHANGES, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(change_images(images, random, strength=0.0), images)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_brightness_and_contrast_by_hand(images, end, strength):
    sign = 2 * end - 1
    moved = change_images(images, changes_of(images, brightness=end), strength)
    torch.testing.assert_close(moved, images + sign * strength * BRIGHTNESS)
    moved = change_images(images, changes_of(images, contrast=end), strength)
    mean = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(moved, mean + (images - mean) * (1 + sign * strength * CONTRAST))


def test_translation_by_whole_pixels_over_grey(images):
    furthest = round(TRANSLATION * SIZE)
    moved = change_images(images, changes_of(images, down=0.0, across=1.0 - 1e-6))
    torch.testing.assert_close(moved[..., furthest:, :-furthest], images[..., :-furthest, furthest:])
    assert not moved[..., :furthest, :].any() and not moved[..., -furthest:].any()
    draws = torch.rand(2000, NUM_CHANGES, generator=torch.Generator().manual_seed(2))
    draws[:, :2], draws[:, 4:] = 0.5, 10.0
    point = torch.zeros(1, 1, SIZE, SIZE)
    point[..., SIZE // 2, SIZE // 2] = 1
    places = change_images(point.expand(2000, -1, -1, -1), draws).nonzero()[:, 2:] - SIZE // 2
    for axis in (0, 1):
        values, counts = places[:, axis].unique(return_counts=True)
        assert values.tolist() == list(range(-furthest, furthest + 1))
        assert counts.min() > 0.7 * 2000 / len(values)  # each as likely


def test_cutout_hides_a_square_around_its_middle(images):
    moved = change_images(images, changes_of(images, top=0.5, left=0.25))
    hidden = (moved == 0)[:, 0]
    side = round(CUTOUT * SIZE)
    rows, columns = hidden[0].any(1).nonzero().flatten(), hidden[0].any(0).nonzero().flatten()
    assert hidden[0].sum() == len(rows) * len(columns)
    assert abs(len(rows) - side) <= 1 and rows.float().mean().item() == pytest.approx(SIZE / 2, abs=1)
    assert columns.float().mean().item() == pytest.approx((SIZE / 4 + side / 2) / 2, abs=1)  # as far as it is inside
    torch.testing.assert_close(moved[:, 0][~hidden], images[:, 0][~hidden])


def test_gradients_reach_what_can_be_seen_and_nothing_else(images):
    images.requires_grad_()
    draws = torch.rand(5, NUM_CHANGES, generator=torch.Generator().manual_seed(3))
    draws[:, 1] = 0.5  # contrast spreads what is seen of a pixel over the image
    moved = change_images(images, draws)
    moved.sum().backward()
    assert images.grad.isfinite().all()
    for gradient, one in zip(images.grad, moved, strict=True):
        assert set(gradient.unique().tolist()) <= {0.0, 1.0} and gradient.sum() == (one != 0).sum()
    assert torch.autograd.gradcheck(
        change_images, (images.detach()[:2, :, :8, :8].double().requires_grad_(), draws[:2])
    )


def test_images_change_each_by_its_own_numbers(images):
    draws = torch.rand(5, NUM_CHANGES, generator=torch.Generator().manual_seed(4))
    together = change_images(images, draws)
    torch.testing.assert_close(together[1:3], change_images(images[1:3], draws[1:3]))
    assert not torch.equal(change_images(images[:1].expand(2, -1, -1, -1), draws[:2])[0], together[1])
