import json
from dataclasses import replace

import pytest

from hcm_hf.study.usefulness.arms import ARMS, BASELINE, PRIMARY
from hcm_hf.study.usefulness.plan import (
    PLAN_FILE,
    Comparison,
    GeneratorPlan,
    Plan,
    check_draws,
    draw_patients,
    keep_plan,
    take_shard,
)
from hcm_hf.utils.errors import InputError


CLOSED = GeneratorPlan("closed", "acgan/paired", num_steps={"paired": 5})
OPEN = GeneratorPlan("open", "ada/public", model_hash="0123", num_seen=70)
# 4 of HCM, 8 of NOR, 8 of DCM.
GROUPS = {f"patient{index:03d}": ("HCM", "NOR", "DCM", "NOR", "DCM")[index % 5] for index in range(20)}
PLAN = Plan(
    primary=Comparison("dice_myocardium", 10, PRIMARY, CLOSED.title, BASELINE),
    arms=list(ARMS),
    generators=[CLOSED, OPEN],
    patients=[5, 10, 20],
    num_training_patients=20,
    num_draws=3,
    num_seeds=2,
    num_steps=100,
    target_group="HCM",
    split="test",
    dataset="abc",
    version="0",
)


def test_draws_are_proportional_and_nested_and_differ():
    for draw in range(3):
        five, ten, everyone = (draw_patients(GROUPS, number, draw) for number in (5, 10, 20))
        assert set(five) < set(ten) < set(everyone) == set(GROUPS)
        assert sorted(GROUPS[name] for name in five) == ["DCM", "DCM", "HCM", "NOR", "NOR"]
        assert sorted(GROUPS[name] for name in ten) == 4 * ["DCM"] + 2 * ["HCM"] + 4 * ["NOR"]
    assert len({tuple(draw_patients(GROUPS, 5, draw)) for draw in range(3)}) == 3
    backwards = dict(reversed(GROUPS.items()))
    assert draw_patients(backwards, 10, 1) == draw_patients(GROUPS, 10, 1)


def test_every_arm_has_the_same_draws_and_seeds():
    settings = {}
    for cell in PLAN.cells():
        settings.setdefault((cell.arm, cell.generator), set()).add((cell.patients, cell.draw, cell.seed))
    assert len(settings) == 3 + 2 * 5  # three arms of real slices, and five with each generator
    assert len(set(map(frozenset, settings.values()))) == 1
    assert len(next(iter(settings.values()))) == (3 + 3 + 1) * 2  # there is one draw of all patients


def test_closed_and_open_generators_are_never_in_one_cell():
    for cell in PLAN.cells():
        wanted = {CLOSED.title, OPEN.title} if ARMS[cell.arm].is_synthetic else {"none"}
        assert cell.generator in wanted
    assert len({cell.key for cell in PLAN.cells()}) == len(PLAN.cells())


def test_the_cells_of_the_primary_comparison_are_run_first():
    first = PLAN.cells()[:13]
    assert {(cell.patients, cell.draw, cell.seed) for cell in first} == {(10, 0, 0)}


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_shards_partition_the_plan(parts):
    taken = [cell for part in range(1, parts + 1) for cell in take_shard(PLAN.cells(), f"{part}/{parts}")]
    assert len(taken) == len(PLAN.cells()) and set(taken) == set(PLAN.cells())


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "1/", "a/b", "-1/2"])
def test_no_shard(shard):
    with pytest.raises(InputError, match="is no part of the cells"):
        take_shard(PLAN.cells(), shard)


def test_a_plan_is_kept_and_not_changed(tmp_path):
    keep_plan(PLAN, tmp_path)
    written = json.loads((tmp_path / PLAN_FILE).read_text())
    assert written["hash"] == PLAN.hash and written["primary"]["measure"] == "dice_myocardium"
    keep_plan(PLAN, tmp_path)
    for changed in (replace(PLAN, num_steps=101), replace(PLAN, primary=replace(PLAN.primary, patients=5))):
        assert changed.hash != PLAN.hash
        with pytest.raises(InputError, match="holds a plan with"):
            keep_plan(changed, tmp_path)
    (tmp_path / PLAN_FILE).write_text('{"arms": 3}')
    with pytest.raises(InputError, match=r"plan\.json is damaged"):
        keep_plan(PLAN, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [*ARMS, "magic"]}, "Unknown arm 'magic'; choose among real, augmented"),
        ({"arms": ["real", PRIMARY]}, "arms leaves out augmented, which the primary comparison needs"),
        ({"arms": ["real", BASELINE]}, "arms leaves out synthetic_1to1"),
        ({"arms": [*ARMS, "real"]}, "arms names something twice"),
        ({"generators": [OPEN, OPEN]}, "closed and open_models names something twice"),
        ({"patients": [10, 21]}, "patients 21: the training split has 20 patients"),
        ({"patients": [10, 0]}, "patients 0: the training split has 20 patients"),
        ({"patients": [5]}, "primary_patients is 10, which patients 5 leaves out"),
        ({"num_draws": 0}, "num_draws is 0; it must be at least 1"),
        ({"num_seeds": 0}, "num_seeds is 0; it must be at least 1"),
        ({"num_steps": 0}, "num_steps is 0; it must be at least 1"),
    ],
)
def test_plans_that_cannot_be_run(changes, message):
    PLAN.check()
    with pytest.raises(InputError, match=message):
        replace(PLAN, **changes).check()


def test_a_draw_needs_patients_of_the_group_and_of_others():
    check_draws(PLAN, GROUPS)
    with pytest.raises(InputError, match="patients 1 is too few: draw . has no patient of"):
        check_draws(replace(PLAN, patients=[1]), GROUPS)
    rare = {name: "HCM" if name == "patient000" else "NOR" for name in GROUPS}
    with pytest.raises(InputError, match="patients 5 is too few: draw 0 has no patient of HCM"):
        check_draws(PLAN, rare)
