import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from hcm_hf.evaluation.usefulness import PatientScores
from hcm_hf.metrics.paired import holm
from hcm_hf.metrics.ranking import roc_auc, sensitivity_at
from hcm_hf.study.usefulness.arms import ARMS, BASELINE, PRIMARY
from hcm_hf.study.usefulness.cells import CellResult
from hcm_hf.study.usefulness.figure import draw_gain
from hcm_hf.study.usefulness.plan import Comparison, GeneratorPlan, Plan
from hcm_hf.study.usefulness.tables import find_rows, write_tables


CLOSED, OPEN = GeneratorPlan("closed", "acgan/paired"), GeneratorPlan("open", "ada/public", "0123", num_seen=70)
PLAN = Plan(
    primary=Comparison("dice_myocardium", 5, PRIMARY, CLOSED.title, BASELINE),
    arms=["real", BASELINE, PRIMARY, "synthetic_alone"],
    generators=[CLOSED, OPEN],
    patients=[5, 10],
    num_training_patients=20,
    num_draws=2,
    num_seeds=2,
    num_steps=100,
    target_group="HCM",
    split="test",
    dataset="abc",
    version="0",
)
GROUPS = ["HCM"] * 4 + ["NOR"] * 8
GAINS = {"real": -0.05, BASELINE: 0.0, PRIMARY: 0.1, "synthetic_alone": -0.3}


def scores_of(cell):
    """What a network does on 12 patients: each arm has a gain of its own, with some noise."""
    random = np.random.default_rng([cell.draw, cell.seed, list(ARMS).index(cell.arm), len(cell.generator)])
    gain = GAINS[cell.arm] + (0.02 if cell.generator == OPEN.title else 0)
    found = {}
    for index, group in enumerate(GROUPS):
        noise = 0.01 * random.standard_normal()
        dice = 0.6 + gain + 0.01 * index + noise
        found[f"patient{index:02d}"] = PatientScores(
            group=group,
            dice={"rv": None if index == 5 else 0.5, "myocardium": dice, "lv": 0.9},
            hd95={"rv": 10.0, "myocardium": 8 - 10 * gain - noise, "lv": 4.0},
            log_odds=float(random.standard_normal() + 2 * (group == "HCM")),
            wall=16.0 if index in (0, 1, 2, 11) else 12.0,
        )
    return found


def result_of(cell):
    synthetic = ARMS[cell.arm].is_synthetic
    return CellResult(
        PLAN.hash,
        *vars(cell).values(),
        train_patients=[],
        num_real=90,
        num_synthetic=90 * synthetic,
        num_steps=100,
        seconds=1.0,
        seconds_of_training=1.0,
        version="0",
        audit_auc=0.9 if synthetic else None,
        scores=scores_of(cell),
    )


RESULTS = {cell: result_of(cell) for cell in PLAN.cells()}


def row_of(rows, patients, arm, generator="none"):
    return next(row for row in rows if (row.patients, row.arm, row.generator) == (patients, arm, generator))


@pytest.fixture(scope="module")
def rows():
    return list(find_rows(PLAN, RESULTS))


def cells_of(arm, generator="none", patients=5):
    return [cell for cell in PLAN.cells() if (cell.patients, cell.arm, cell.generator) == (patients, arm, generator)]


def test_numbers_are_means_over_trainings(rows):
    row = row_of(rows, 5, PRIMARY, CLOSED.title)
    scores = [RESULTS[cell].scores.values() for cell in cells_of(PRIMARY, CLOSED.title)]
    dice = np.array([[one.dice["myocardium"] for one in patients] for patients in scores])
    odds = np.array([[one.log_odds for one in patients] for patients in scores])
    ours = np.array(GROUPS) == "HCM"
    expected = {
        "dice_myocardium": dice.mean(),
        "dice_myocardium_target": dice[:, :4].mean(),
        "dice_rv": 0.5,
        "auc": np.mean([roc_auc(one, ours) for one in odds]),
        "sensitivity": np.mean([sensitivity_at(one, ours) for one in odds]),
        "rule_sensitivity": 3 / 4,
        "rule_specificity": 7 / 8,
        "rule_auc": (3 * 7 + 0.5 * (3 + 7)) / 32,
        "hd95_myocardium": 8 - 10 * 0.1 - (dice.mean() - 0.6 - 0.1 - 0.055),
    }
    for name, value in expected.items():
        number = row.numbers[name]
        assert number.value == pytest.approx(value), name
        assert number.low <= number.value <= number.high and number.n_patients == 12
    assert (row.num_cells, row.num_planned, row.num_synthetic, row.audit_auc) == (4, 4, 90, pytest.approx(0.9))


def test_differences_are_paired_by_patient_and_tested(rows):
    row = row_of(rows, 5, PRIMARY, CLOSED.title)
    pair = [
        np.array([[one.dice["myocardium"] for one in RESULTS[cell].scores.values()] for cell in cells_of(*arm)])
        for arm in ((PRIMARY, CLOSED.title), (BASELINE,))
    ]
    difference = row.differences["dice_myocardium"]
    assert difference.value == pytest.approx((pair[0] - pair[1]).mean())
    assert 0.08 < difference.low < difference.high < 0.12
    assert row.p["dice_myocardium"] == pytest.approx(wilcoxon((pair[0] - pair[1]).mean(0)).pvalue)
    five = [one for one in rows if one.patients == 5 and one.arm != BASELINE]
    expected = holm([one.p["dice_myocardium"] for one in five])
    assert [one.holm_p["dice_myocardium"] for one in five] == pytest.approx(expected.tolist())
    assert "auc" in row.differences and "auc" not in row.p
    assert row_of(rows, 5, BASELINE).differences == {}


def test_losing_arms_are_rows_like_others(rows):
    for patients in (5, 10):
        lost = row_of(rows, patients, "synthetic_alone", CLOSED.title).differences["dice_myocardium"]
        assert lost.high < 0
    assert len(rows) == 2 * (2 + 2 * 2)


def test_closed_and_open_are_rows_of_their_own(rows):
    closed, opened = (row_of(rows, 5, PRIMARY, one.title) for one in (CLOSED, OPEN))
    assert closed.num_cells == opened.num_cells == 4
    gain = opened.numbers["dice_myocardium"].value - closed.numbers["dice_myocardium"].value
    assert gain == pytest.approx(0.02, abs=0.01)


def test_the_file_says_what_was_named_before_and_marks_it_once(tmp_path):
    write_tables(PLAN, RESULTS, tmp_path)
    text = (tmp_path / "usefulness.md").read_text()
    assert f"Named before anything was run (plan {PLAN.hash}): Dice wall, 5 training patients" in text
    marked = [line for line in text.splitlines() if " * |" in line]
    assert len(marked) == 1 and "closed acgan/paired" in marked[0] and "+0.1" in marked[0]
    assert "open ada/public: a public model, has seen 70 patients" in text
    assert "closed acgan/paired: trained on the drawn patients alone" in text
    for title in ("## Dice", "## HD95", "## HCM against the rest"):
        for patients in (5, 10):
            assert f"{title}, {patients} training patients" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len([line for line in lines if "| synthetic alone |" in line]) == 2 * 2 * 3
    record = json.loads((tmp_path / "usefulness.json").read_text())
    assert record["plan"]["hash"] == PLAN.hash and len(record["rows"]) == 12


def test_a_part_of_the_cells_is_compared_where_both_arms_have_them(tmp_path):
    some = {cell: RESULTS[cell] for cell in cells_of(BASELINE)[:1] + cells_of(PRIMARY, CLOSED.title)[:2]}
    rows = list(find_rows(PLAN, some))
    row = row_of(rows, 5, PRIMARY, CLOSED.title)
    first = [RESULTS[cell].scores for cell in (cells_of(PRIMARY, CLOSED.title)[0], cells_of(BASELINE)[0])]
    pair = [np.array([one.dice["myocardium"] for one in scores.values()]) for scores in first]
    assert row.num_cells == 2 and row.differences["dice_myocardium"].value == pytest.approx((pair[0] - pair[1]).mean())
    write_tables(PLAN, some, tmp_path)
    assert f"3 of {len(PLAN.cells())} cells are done." in (tmp_path / "usefulness.md").read_text()


def test_nothing_to_compare_with_is_no_result(tmp_path):
    write_tables(PLAN, {cell: RESULTS[cell] for cell in cells_of(PRIMARY, CLOSED.title)}, tmp_path)
    assert "No result yet." in (tmp_path / "usefulness.md").read_text()


def test_the_figure_has_a_panel_for_each_generator(rows, tmp_path):
    draw_gain(PLAN, rows, tmp_path)
    with Image.open(tmp_path / "gain.png") as image:
        assert image.size == (2 * 6 * 120, 540)
