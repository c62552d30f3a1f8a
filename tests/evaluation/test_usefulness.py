from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from hcm_hf.evaluation.usefulness import HeldOut, measure, read_held_out, segmented_rows
from hcm_hf.metrics.anatomy import dice, wall_thickness
from hcm_hf.utils.errors import InputError


def predicting(masks, odds):
    """A network of known predictions."""
    return SimpleNamespace(predict=lambda images: SimpleNamespace(masks=masks, log_odds=lambda groups: odds))


def test_the_truth_is_perfect(splits):
    held_out = read_held_out(splits, "test")
    scores = measure(predicting(held_out.masks, np.arange(len(held_out.images))), held_out, "HCM")
    assert sorted(scores) == sorted(set(splits["test"]["patient"]))
    for patient, one in scores.items():
        assert one.dice == {"rv": 1, "myocardium": 1, "lv": 1} and one.hd95 == {"rv": 0, "myocardium": 0, "lv": 0}
        rows = np.flatnonzero(held_out.patients == patient)
        assert one.log_odds == rows.mean() and one.group == held_out.groups[patient]
        diastolic = rows[held_out.phases[rows] == 0]
        walls = wall_thickness(held_out.masks[diastolic], held_out.spacing[0, 1])
        assert one.wall == pytest.approx(np.nanmax(walls))


def test_a_shifted_segmentation_is_a_pixel_away(splits):
    held_out = read_held_out(splits, "test")
    shifted = np.roll(held_out.masks, 1, axis=2)
    scores = measure(predicting(shifted, np.zeros(len(shifted))), held_out, "HCM")
    for patient, one in scores.items():
        assert one.hd95["lv"] == pytest.approx(held_out.spacing[0, 2])
        volumes = [(held_out.patients == patient) & (held_out.phases == phase) for phase in (0, 1)]
        expected = [dice(shifted[rows] == 2, held_out.masks[rows] == 2) for rows in volumes]
        assert one.dice["myocardium"] == pytest.approx(np.mean(expected))


def test_a_network_that_finds_nothing_is_as_bad_as_can_be(splits):
    held_out = read_held_out(splits, "test")
    scores = measure(predicting(np.zeros_like(held_out.masks), np.zeros(len(held_out.masks))), held_out, "HCM")
    for one in scores.values():
        assert one.dice == {"rv": 0, "myocardium": 0, "lv": 0} and one.wall == 0
        assert all(distance > 128 for distance in one.hd95.values())


def test_slices_lie_where_they_belong_in_the_volume(splits):
    """A slice that the dataset lacks leaves a gap, so that those beside it do not become neighbours."""
    held_out = read_held_out(splits, "test")
    assert held_out.spacing.shape == (len(held_out.images), 3)
    thickness, pixel = splits["test"][0]["slice_thickness"], splits["test"][0]["pixel_spacing"]
    assert held_out.spacing[0].tolist() == [thickness, pixel, pixel]
    dot = np.zeros((2, 16, 16), np.int8)
    dot[0, 8, 8] = 3
    two = HeldOut(
        images=held_out.images[:2],
        masks=dot,
        patients=np.array(["one", "one"]),
        phases=np.array([0, 0]),
        places=np.array([4, 7]),
        spacing=np.full((2, 3), [10.0, 8.0, 8.0]),
        groups={"one": "HCM"},
        identities={},
    )
    one = measure(predicting(dot[::-1], np.zeros(2)), two, "HCM")["one"]
    assert one.hd95 == {"rv": None, "myocardium": None, "lv": 30} and one.dice["lv"] == 0
    assert one.dice["rv"] is None  # neither has it


def test_slices_without_a_segmentation_or_a_phase_do_not_count(splits):
    rows = splits["test"]
    blank = rows.map(lambda row, index: {"mask": None if index == 0 else row["mask"]}, with_indices=True)
    assert len(segmented_rows(blank)) == len(rows) - 1


def test_what_cannot_be_measured_is_refused(splits):
    with pytest.raises(InputError, match="no split 'x'; choose among train, validation, test"):
        read_held_out(splits, "x")
    test = splits["test"]
    bare = datasets.DatasetDict(dict(splits) | {"test": test.map(lambda row: {"mask": None})})
    with pytest.raises(InputError, match="Split 'test' has no slice with a segmentation"):
        read_held_out(bare, "test")
    thin = datasets.DatasetDict(dict(splits) | {"test": test.map(lambda row: {"slice_thickness": None})})
    with pytest.raises(InputError, match="slices without slice_thickness"):
        read_held_out(thin, "test")
