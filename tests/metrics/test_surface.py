import numpy as np
import pytest

from hcm_hf.metrics.surface import hausdorff_95


def square(size, top, left, side):
    region = np.zeros((size, size), bool)
    region[top : top + side, left : left + side] = True
    return region


def test_equal_regions_have_no_distance():
    region = square(9, 2, 3, 4)
    assert hausdorff_95(region, region, (2.0, 2.0)) == 0


def test_points_are_as_far_apart_as_in_millimetres():
    first, second = np.zeros((2, 3, 9, 9), bool)
    first[0, 1, 1], second[2, 1, 5] = True, True
    # 2 slices of 10 mm and 4 columns of 1.5 mm.
    assert hausdorff_95(first, second, (10.0, 1.5, 1.5)) == pytest.approx(np.hypot(20, 6))


def test_it_is_the_larger_of_both_directions_and_no_maximum():
    line, beside = np.zeros((2, 5, 25), bool)
    line[2, 2:23] = True  # 21 pixels
    beside[2, 2:13] = True  # the first 11 of them
    # From the longer one 0 for 11 pixels, then 1 to 10: of 21 sorted values the 95th percentile is the 20th, 9.
    assert hausdorff_95(line, beside, (1.0, 1.0)) == pytest.approx(9)
    assert hausdorff_95(beside, line, (1.0, 1.0)) == pytest.approx(9)


def test_of_a_filled_region_the_surface_counts():
    filled = square(11, 2, 2, 7)
    hole = filled.copy()
    hole[5, 5] = False  # its 4 neighbours are 2 pixels from the old surface, and 4 of 28 values are more than 5 %
    assert hausdorff_95(filled, hole, (1.0, 1.0)) == pytest.approx(2)


def test_an_empty_region_is_as_far_as_can_be():
    region, empty = square(10, 2, 2, 3), np.zeros((10, 10), bool)
    assert hausdorff_95(region, empty, (3.0, 4.0)) == hausdorff_95(empty, region, (3.0, 4.0)) == 50
    assert np.isnan(hausdorff_95(empty, empty, (3.0, 4.0)))
