import pytest
import torch

from hcm_hf.data.differentiable_augmentation import (
    BRIGHTNESS,
    CONTRAST,
    CUTOUT,
    NUM_CHANGES,
    TRANSLATION,
    change_images,
)


CHANGES = {name: index for index, name in enumerate(("brightness", "contrast", "down", "across", "top", "left"))}
SIZE = 32


def draws_of(images, **values):
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
    torch.testing.assert_close(change_images(images, draws_of(images)), images)
    random = torch.rand(5, NUM_CHANGES, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(change_images(images, random, strength=0.0), images)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_brightness_and_contrast_by_hand(images, end, strength):
    sign = 2 * end - 1
    moved = change_images(images, draws_of(images, brightness=end), strength)
    torch.testing.assert_close(moved, images + sign * strength * BRIGHTNESS)
    moved = change_images(images, draws_of(images, contrast=end), strength)
    mean = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(moved, mean + (images - mean) * (1 + sign * strength * CONTRAST))


def test_translation_by_whole_pixels_over_grey(images):
    furthest = round(TRANSLATION * SIZE)
    moved = change_images(images, draws_of(images, down=0.0, across=1.0 - 1e-6))
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
    moved = change_images(images, draws_of(images, top=0.5, left=0.25))
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
