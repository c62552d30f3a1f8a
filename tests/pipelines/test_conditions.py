from dataclasses import replace

import pytest
import torch

from hcm_hf.pipelines.conditions import Conditions, count_labels, join_labels
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError


AXES = {"group": ("HCM", "NOR"), "phase": ("ED", "ES"), "level": ("base", "mid", "apex")}
FREQUENCIES = [0, 1, 3, 0, 0, 0, 5, 5, 0, 0, 0, 6]


@pytest.fixture
def conditions():
    return Conditions(AXES, FREQUENCIES, {"group": "HCM"})


def answered(conditions, class_labels):
    return [
        tuple(conditions.describe(label).values())
        for label in conditions.allowed(class_labels).nonzero()[:, 0].tolist()
    ]


def test_labels_and_answers_are_each_others_inverse(conditions):
    for label in range(conditions.null_label):
        answers = conditions.describe(label)
        indices = {axis: torch.tensor([AXES[axis].index(name)]) for axis, name in answers.items()}
        assert join_labels(AXES, indices).tolist() == [label]
    assert conditions.null_label == count_labels(AXES) == 12
    assert conditions.describe(12) == {"group": None, "phase": None, "level": None}


def test_what_is_not_known_says_nothing():
    indices = {"group": torch.tensor([0, 1]), "phase": torch.tensor([-1, 1]), "level": torch.tensor([2, 2])}
    assert join_labels(AXES, indices).tolist() == [12, 11]


def test_answers_come_in_any_order_and_leave_the_rest_open(conditions):
    assert answered(conditions, "mid,ED NOR") == answered(conditions, "NOR ED mid") == [("NOR", "ED", "mid")]
    assert answered(conditions, "ES") == [("HCM", "ES", level) for level in AXES["level"]]  # the default group
    assert answered(conditions, None) == answered(conditions, "HCM") and len(answered(conditions, None)) == 6
    assert len(answered(conditions, "any")) == 12 and len(answered(conditions, "any apex")) == 4
    assert answered(conditions, 8) == [("NOR", "ED", "apex")]


@pytest.mark.parametrize(
    ("class_labels", "message"),
    [
        ("HCM systole", "unknown 'systole'; choose among group: HCM, NOR; phase: ED, ES; level: base, mid, apex"),
        ("HCM NOR", "names two of group; name one"),
        (12, "class_labels is 12; choose from 0 to 11"),
        (-1, "class_labels is -1; choose from 0 to 11"),
        (True, "class_labels True is no name and no whole number"),
        (0.5, "class_labels 0.5 is no name and no whole number"),
        (["HCM"], "class_labels has 1 entries for a batch_size of 2"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_sentence(conditions, class_labels, message):
    with pytest.raises(InputError, match=message) as caught:
        conditions.draw(class_labels, 2)
    assert "\n" not in str(caught.value)


def test_what_is_left_open_is_drawn_as_it_was_met(conditions):
    drawn = conditions.draw(None, 4000, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=12) / 4000
    assert torch.allclose(shares[:6], torch.tensor([0, 0.25, 0.75, 0, 0, 0]), atol=0.03) and shares[6:].sum() == 0
    assert set(conditions.draw("ES", 200, torch.Generator().manual_seed(0)).tolist()) == {3, 4, 5}  # never met: evenly


def test_each_image_has_its_own_answers_and_its_own_randomness(conditions):
    assert conditions.draw(["NOR ED base", 11, "NOR ED mid"], 3).tolist() == [6, 11, 7]
    assert conditions.draw(torch.tensor([6, 7]), 2).tolist() == [6, 7]
    generators = [torch.Generator().manual_seed(index) for index in range(20)]
    together = conditions.draw("any", 20, generators)
    alone = [conditions.draw("any", 1, [torch.Generator().manual_seed(index)]) for index in range(20)]
    assert torch.equal(together, torch.cat(alone)) and len(set(together.tolist())) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequencies": FREQUENCIES[1:]}, "it has 11 frequencies for 12 labels"),
        ({"frequencies": [*FREQUENCIES[1:], float("nan")]}, "its frequencies must be finite numbers of 0 or more"),
        ({"frequencies": [*FREQUENCIES[1:], -1]}, "its frequencies must be finite numbers of 0 or more"),
        ({"defaults": {"group": "ED"}}, "its default group is 'ED', which is none of its answers"),
        ({"axes": AXES | {"phase": ("ED", "NOR")}}, "two of them are the same"),
        ({"axes": AXES | {"phase": ("ED", "any")}}, "its axes hold 'any', which is no word"),
        ({"axes": AXES | {"phase": ("ED", 3)}}, "its axes hold 3, which is no word"),
    ],
)
def test_conditions_that_make_no_sense_are_named(conditions, changes, message):
    conditions.check()
    with pytest.raises(InputError, match=message):
        replace(conditions, **changes).check()


@pytest.fixture
def measured(conditions):
    return replace(conditions, ranges={"wall_thickness": (6.0, 28.0)})


def test_an_amount_is_a_number_within_its_range(measured):
    asked = {"phase": "ED", "wall_thickness": "21"}
    assert measured.complete(asked) == {"group": "HCM", "phase": "ED", "wall_thickness": 21.0}
    assert measured.allowed(asked).tolist() == measured.allowed({"phase": "ED"}).tolist()
    assert measured.amounts([asked, {}, {"wall_thickness": "any"}], 3) == [
        {"wall_thickness": 21.0},
        {"wall_thickness": None},
        {"wall_thickness": None},
    ]


@pytest.mark.parametrize("amount", [5.9, 28.1, "thick", float("nan"), float("inf"), True])
def test_what_was_never_met_is_refused(measured, amount):
    with pytest.raises(InputError, match="wall_thickness is .*; this model was trained on 6 to 28, give a number"):
        measured.draw({"wall_thickness": amount}, 1)


def test_a_model_without_amounts_does_not_know_them(conditions, measured):
    with pytest.raises(InputError, match="unknown 'wall_thickness'; choose among group, phase, level."):
        conditions.complete({"wall_thickness": 20})
    with pytest.raises(InputError, match="unknown 'wall'; choose among group, phase, level, wall_thickness."):
        measured.complete({"wall": 20})


@pytest.mark.parametrize("ends", [(3.0,), (5.0, 5.0), (9.0, 5.0), ("a", "b"), (0.0, float("nan"))])
def test_a_range_that_is_none_is_refused(conditions, ends):
    with pytest.raises(InputError, match="its range of wall_thickness"):
        replace(conditions, ranges={"wall_thickness": ends}).check()


@pytest.mark.parametrize("value", ["high", [1.0], -1, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("name", ["guidance_scale", "stochastic_floor", "last_sigma"])
def test_a_setting_that_is_no_amount_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"{name} is "):
        Sampling(num_inference_steps=2, **{name: value}).check(10)
