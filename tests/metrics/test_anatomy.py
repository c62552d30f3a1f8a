import numpy as np
import pytest
from scipy.ndimage import label
from skimage.measure import euler_number

from hcm_hf.metrics.anatomy import (
    LEFT,
    MYOCARDIUM,
    RIGHT,
    chamber_areas,
    dice,
    exceeds_threshold,
    valid_topology,
    wall_thickness,
)
from hcm_hf.utils.errors import InputError


def heart(cavity, wall, size: int = 64, centre: tuple[float, float] = (31.5, 31.5)) -> np.ndarray:
    """A mask from two functions of the distances down and right of the centre, in pixels, that say what is inside."""
    down, right = np.mgrid[:size, :size] - np.reshape(centre, (2, 1, 1))
    mask = np.where(wall(down, right), MYOCARDIUM, 0)
    return np.where(cavity(down, right), LEFT, mask).astype(np.uint8)


def disc(radius: float, down: float = 0.0, right: float = 0.0):
    return lambda y, x: np.hypot(y - down, x - right) < radius


def ellipse(a: float, b: float, tilt: float = 0.0):
    sine, cosine = np.sin(tilt), np.cos(tilt)
    return lambda y, x: np.hypot((cosine * x + sine * y) / a, (cosine * y - sine * x) / b) < 1


def ring(inner: float, thickness: float, **where) -> np.ndarray:
    return heart(disc(inner), disc(inner + thickness), **where)


def thickness_of(mask: np.ndarray, pixel_spacing: float = 1.0) -> float:
    return wall_thickness(mask[None], pixel_spacing)[0]


def greatest(profile) -> float:
    """The greatest mean over 30 degrees of a function of the angle."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    values = profile(angles)
    return max(np.roll(values, shift)[:60].mean() for shift in range(720))


# Thickness.


@pytest.mark.parametrize("inner", [3, 6.3, 10])
@pytest.mark.parametrize("thickness", [2, 3.5, 5, 8.2])
def test_rings_at_any_place_come_out_right(inner, thickness):
    generator = np.random.default_rng(0)
    masks = [ring(inner, thickness, centre=31.5 + generator.uniform(-0.5, 0.5, 2)) for _ in range(40)]
    error = wall_thickness(np.stack(masks), 1.0) - thickness
    assert 0.1 < error.mean() < 0.55 and np.abs(error).max() < 0.8


def test_a_finely_drawn_ring_comes_out_exact():
    assert thickness_of(ring(40, 60, size=256, centre=(127.5, 127.5)), 0.25) == pytest.approx(15, abs=0.05)


@pytest.mark.parametrize("down, right", [(3, 0), (0, -2.5), (2, 2)])
def test_eccentric_rings(down, right):
    offset, direction = np.hypot(down, right), np.arctan2(down, right)

    def profile(angle):
        return offset * np.cos(angle - direction) + np.sqrt(144 - (offset * np.sin(angle - direction)) ** 2) - 6

    mask = heart(disc(6), disc(12, down, right))
    assert thickness_of(mask) == pytest.approx(greatest(profile), abs=0.3)
    assert thickness_of(mask) > 6 + 0.8 * offset


@pytest.mark.parametrize("tilt", [0, 0.3, 1.1, np.pi / 2])
def test_elliptical_rings_however_they_lie(tilt):
    def radius(a, b, angle):
        return a * b / np.hypot(b * np.cos(angle), a * np.sin(angle))

    expected = greatest(lambda angle: radius(15, 20, angle) - radius(9, 7, angle))
    assert thickness_of(heart(ellipse(9, 7, tilt), ellipse(15, 20, tilt))) == pytest.approx(expected, abs=0.5)


def test_a_square_ring_is_exact_to_the_pixel_edges():
    def square(half):
        return lambda y, x: np.maximum(abs(y), abs(x)) < half

    def profile(angle):
        return (20 - 8) / np.maximum(abs(np.cos(angle)), abs(np.sin(angle)))

    assert thickness_of(heart(square(8), square(20))) == pytest.approx(greatest(profile), abs=0.15)


def test_a_bulge_counts_as_far_as_it_spans_30_degrees():
    """A sector of a wall, thicker by 6: the mean over 30 degrees rises by the sector's share of them."""

    def bulging(degrees):
        def wall(y, x):
            return np.hypot(y, x) < np.where(abs(np.degrees(np.arctan2(y, x))) < degrees / 2, 40 + 30, 40)

        return heart(disc(20), wall, size=160, centre=(79.5, 79.5))

    assert thickness_of(bulging(60)) == pytest.approx(50, abs=0.5)
    assert thickness_of(bulging(15)) == pytest.approx(20 + 15, abs=2.5)  # rays stand 5 degrees apart
    assert thickness_of(bulging(0)) == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_and_mirrored_masks_are_as_thick(turn):
    mask = heart(ellipse(9, 7, 0.3), ellipse(15, 19, 0.7))
    assert thickness_of(np.rot90(mask, turn)) == pytest.approx(thickness_of(mask), abs=1e-9)
    assert thickness_of(mask[:, ::-1]) == pytest.approx(thickness_of(mask), abs=1e-9)


def test_spacing_is_millimetres_each_its_own():
    masks = np.stack([ring(6, 5), ring(6, 8)])
    pixels = wall_thickness(masks, 1.0)
    np.testing.assert_allclose(wall_thickness(masks, 1.5), 1.5 * pixels)
    np.testing.assert_allclose(wall_thickness(masks, np.array([2.0, 0.5])), [2.0, 0.5] * pixels)
    np.testing.assert_allclose(wall_thickness(masks[::-1], 1.0), pixels[::-1])


def test_finer_pixels_show_the_same_heart():
    coarse, fine = ring(6, 5), ring(12, 10, size=128, centre=(63.5, 63.5))
    assert thickness_of(fine, 1.0) == pytest.approx(thickness_of(coarse, 2.0), abs=0.6)


def test_stray_pixels_and_the_right_ventricle_change_nothing():
    mask = ring(6, 5)
    stained = mask.copy()
    stained[2:4, 2:5], stained[60, 60] = LEFT, MYOCARDIUM
    stained[20:40, 44:50] = RIGHT  # from the wall on
    assert (stained != mask).sum() > 100
    assert thickness_of(stained) == thickness_of(mask)


def test_a_wall_at_the_edge_ends_there():
    mask = ring(6, 20, size=21, centre=(10, 10))  # pixels reach 10.5 from the centre

    def profile(angle):
        return 10.5 / np.maximum(abs(np.cos(angle)), abs(np.sin(angle))) - 6

    assert thickness_of(mask) == pytest.approx(greatest(profile), abs=0.3)


def test_no_ventricle_or_no_wall_has_no_thickness():
    whole = ring(6, 5)
    masks = np.stack([whole, np.where(whole == LEFT, 0, whole), np.where(whole == LEFT, LEFT, 0), 0 * whole])
    result = wall_thickness(masks, 1.0)
    assert np.isnan(result).tolist() == [False, True, True, True]


# Share.


def test_walls_exceed_the_threshold_from_15_mm_on_where_there_is_one():
    found = exceeds_threshold(np.array([15.0, 14.99, 22.0, np.nan, 3.0]))
    np.testing.assert_array_equal(found, [1, 0, 1, np.nan, 0])
    assert np.nanmean(exceeds_threshold(np.array([9.0, 11.0, np.nan]), threshold=10)) == 0.5
    assert np.isnan(exceeds_threshold(np.full(3, np.nan))).all()


# Areas.


def test_areas_by_hand():
    mask = np.zeros((2, 8, 8), int)
    mask[0, :2], mask[0, 3, :5], mask[0, 4, 4:7] = RIGHT, MYOCARDIUM, LEFT
    mask[1, 0, 0] = LEFT
    assert chamber_areas(mask, 2.0).tolist() == [[64, 20, 12], [0, 0, 4]]
    assert chamber_areas(mask, np.array([1.0, 3.0])).tolist() == [[16, 5, 3], [0, 0, 9]]


def test_areas_of_discs():
    mask = ring(20, 12, size=128, centre=(63.5, 63.5))
    right, wall, left = chamber_areas(mask[None], 0.7)[0]
    assert right == 0
    assert left == pytest.approx(np.pi * 14**2, rel=0.01)
    assert wall == pytest.approx(np.pi * (22.4**2 - 14**2), rel=0.01)


# Topology.


def broken() -> dict[str, np.ndarray]:
    """A good ring, and what may be wrong with one."""
    whole = ring(6, 5)
    cases = {
        name: whole.copy() for name in ("open", "open at an edge", "split", "split at a corner", "holed", "stray")
    }
    cases["open"][31, 32:] = 0
    cases["open at an edge"] = whole[26:]
    cases["split"][31] = np.where(whole[31] == LEFT, MYOCARDIUM, whole[31])
    cases["split at a corner"][whole == LEFT] = 0
    cases["split at a corner"][30, 30] = cases["split at a corner"][31, 31] = LEFT
    cases["holed"][31, 40] = 0
    cases["stray"][2, 2] = MYOCARDIUM
    cases["second cavity outside"] = whole.copy()
    cases["second cavity outside"][2, 2] = LEFT
    cases["cavity outside"] = np.where(whole == LEFT, 0, whole)
    cases["cavity outside"][2, 2] = LEFT
    cases["two rings"] = np.concatenate([whole, whole], axis=1)
    cases["leak into the right ventricle"] = np.where((whole > 0) & (np.arange(64) > 37), RIGHT, whole)
    cases["no cavity"] = np.where(whole == LEFT, MYOCARDIUM, whole)
    cases["no wall"] = np.where(whole == MYOCARDIUM, 0, whole)
    cases["nothing"] = 0 * whole
    return cases


@pytest.mark.parametrize("name", broken())
def test_what_is_broken_is_flagged(name):
    assert valid_topology(broken()[name][None]).tolist() == [False]


@pytest.mark.parametrize("turn", range(4))
def test_closed_rings_are_valid(turn):
    masks = [ring(6, 5), ring(6, 1.5), heart(disc(6), disc(12, 3, 2)), heart(ellipse(9, 7, 0.3), ellipse(15, 12, 1))]
    masks.append(masks[0].copy())
    masks[-1][20:44, 44:54] = RIGHT
    masks.append(ring(6, 5))
    masks[-1][31, 27] = 0  # a papillary muscle, labelled as background, in the cavity
    assert valid_topology(np.rot90(np.stack(masks), turn, (1, 2))).all()


def test_a_wall_of_corners_is_closed():
    """A diamond whose pixels touch at corners only lets nothing through that moves over sides."""
    down, right = np.mgrid[-8:9, -8:9]
    distance = abs(down) + abs(right)
    mask = np.where(distance < 6, LEFT, np.where(distance == 6, MYOCARDIUM, 0))
    assert valid_topology(mask[None]).all()
    mask[2, 8] = 0
    assert not valid_topology(mask[None]).any()


def test_topology_equals_euler_numbers():
    """One ring has one part and one hole: Euler number 0, as scikit-image counts it."""
    generator = np.random.default_rng(0)
    masks = np.repeat(ring(3, 1.8, size=14, centre=(6.5, 6.5))[None], 300, axis=0)
    for mask in masks:
        for _ in range(generator.integers(4)):
            mask[tuple(generator.integers(1, 13, 2))] = generator.choice([0, MYOCARDIUM, LEFT])
    expected = []
    for mask in masks:
        wall, cavity = mask == MYOCARDIUM, mask == LEFT
        outside = label(~np.pad(wall, 1))[0]
        inside = (outside[1:-1, 1:-1][cavity] != outside[0, 0]).all()
        one_ring = label(wall, np.ones((3, 3)))[1] == 1 and euler_number(wall, connectivity=2) == 0
        expected.append(one_ring and euler_number(cavity, connectivity=1) <= 1 and label(cavity)[1] == 1 and inside)
    assert 50 < sum(expected) < 250
    assert valid_topology(masks).tolist() == expected


# Overlap.


def test_dice_by_hand():
    first, second = np.zeros((2, 3, 4, 4), bool)
    first[0, 0], first[1, 0, :2] = True, True  # 6 voxels
    second[0, 0, 2:], second[2, 3] = True, True  # 6, of which 2 are common
    assert dice(first, second) == dice(second, first) == pytest.approx(2 * 2 / 12)
    assert dice(first[1], second[1]) == 0 and dice(first, first) == 1
    assert np.isnan(dice(first[2], first[2]))


def test_dice_of_overlapping_squares():
    """Squares of side 8, one of them moved by some pixels."""
    square = np.zeros((20, 20), bool)
    square[4:12, 4:12] = True
    for shift in range(9):
        assert dice(square, np.roll(square, shift, axis=1)) == pytest.approx((8 - shift) / 8)


# Wrong input.


GOOD = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    "measure", [lambda masks: wall_thickness(masks, 1.0), lambda m: chamber_areas(m, 1.0), valid_topology]
)
@pytest.mark.parametrize(
    "masks, message",
    [
        (GOOD[0], r"\(8, 8\)"),
        (GOOD[:0], r"\(0, 8, 8\)"),
        (GOOD.astype(float), "float64"),
        (GOOD > 0, "bool"),
        (GOOD + 4, "4 to 4"),
        (GOOD.astype(int) - 1, "-1"),
    ],
)
def test_wrong_masks_are_refused(measure, masks, message):
    with pytest.raises(InputError, match=message):
        measure(masks)


@pytest.mark.parametrize("measure", [wall_thickness, chamber_areas])
@pytest.mark.parametrize(
    "spacing, message",
    [
        (0.0, "above 0"),
        (-1.0, "above 0"),
        (np.nan, "above 0"),
        (np.array([1.0, np.inf]), "above 0"),
        (np.ones(3), "one number or 2"),
        (np.ones((2, 2)), "one number or 2"),
    ],
)
def test_wrong_spacings_are_refused(measure, spacing, message):
    with pytest.raises(InputError, match=message):
        measure(GOOD, spacing)
