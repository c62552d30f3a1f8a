import json
import pickle
import shutil
from functools import partial

import pytest

from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.typed import read_typed
from hcm_hf.evaluation.usefulness import read_held_out
from hcm_hf.study.usefulness.arms import ARMS, Arm, Real, Stage
from hcm_hf.study.usefulness.cells import CellResult, Experiment, fit, of_patients, read_training_rows
from hcm_hf.study.usefulness.plan import Plan
from hcm_hf.study.usefulness.run import _run, describe_rest, read_results, usefulness
from hcm_hf.utils.errors import InputError


RUN = ("augmented", "warped_1to1", "synthetic_1to1")
SETTINGS = {
    "arms": RUN,
    "patients": (2,),
    "primary_patients": 2,
    "num_draws": 1,
    "num_seeds": 1,
    "num_steps": 3,
    "generator_steps": 1,
}


@pytest.fixture(scope="module")
def finished(dataset_dir, tiny, tmp_path_factory):
    """The folder of an experiment of three cells, run by two shards after a call that planned only."""
    folder = tmp_path_factory.mktemp("usefulness") / "out"
    usefulness(folder, dataset_dir, max_cells=0, **SETTINGS)
    planned = json.loads((folder / "plan.json").read_text())
    assert not (folder / "cells").exists() and "No result yet." in (folder / "usefulness.md").read_text()
    usefulness(folder, dataset_dir, shard="2/2", **SETTINGS)
    assert len(list((folder / "cells").iterdir())) == 1
    usefulness(folder, dataset_dir, shard="1/2", **SETTINGS)
    assert json.loads((folder / "plan.json").read_text()) == planned
    return folder


def read_cells(folder):
    return {path.name: json.loads(path.read_text()) for path in sorted((folder / "cells").iterdir())}


def test_every_arm_is_trained_alike(finished):
    cells = read_cells(finished)
    assert sorted(one["arm"] for one in cells.values()) == sorted(RUN)
    for name in ("num_steps", "train_patients", "num_real", "plan", "draw", "seed", "patients"):
        assert len({str(one[name]) for one in cells.values()}) == 1, name
    synthetic = {one["arm"]: one["num_synthetic"] for one in cells.values()}
    real = next(iter(cells.values()))["num_real"]
    assert synthetic == {"augmented": 0, "warped_1to1": 0, "synthetic_1to1": real}


def test_no_test_patient_is_ever_in_training(finished, dataset_dir):
    splits = load_dataset(dataset_dir)
    drawn = {name for one in read_cells(finished).values() for name in one["train_patients"]}
    assert len(drawn) == 2 and drawn <= set(splits["train"]["patient"])
    for one in read_cells(finished).values():
        assert set(one["scores"]) == set(splits["test"]["patient"])
    runs = list((finished / "work").rglob("training_config.json"))
    assert runs
    for run in runs:
        assert set(json.loads(run.read_text())["train_patients"]) <= drawn


def test_the_table_marks_the_primary_comparison_and_shows_every_arm(finished):
    table = (finished / "usefulness.md").read_text()
    plan = json.loads((finished / "plan.json").read_text())
    assert f"Named before anything was run (plan {plan['hash']}): Dice wall, 2 training patients" in table
    assert "3 of 3 cells are done." in table and "No result yet." not in table
    marked = [line for line in table.splitlines() if " * |" in line]
    assert len(marked) == 1 and marked[0].startswith("| the same + synthetic 1:1 * | closed acgan/paired | 1 of 1 |")
    for arm in RUN:
        assert table.count(f"| {ARMS[arm].title} ") == 3  # a line in each table


def test_an_experiment_can_be_sent_to_another_process(finished, dataset_dir):
    splits = load_dataset(dataset_dir)
    held_out = read_held_out(splits, "test")
    plan = read_typed(Plan, json.loads((finished / "plan.json").read_text()))
    experiment = Experiment(plan, finished, read_training_rows(splits, held_out), held_out, {})
    there = pickle.loads(pickle.dumps(partial(_run, experiment, 1))).args[0]
    assert there.plan.hash == plan.hash and there.groups == experiment.groups
    assert len(read_results(there, plan.cells())) == 3


def test_what_is_done_is_skipped_and_what_is_missing_comes_out_equal(finished, dataset_dir, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = read_cells(folder)
    gone = folder / "cells" / next(name for name in before if name.startswith("synthetic_1to1"))
    gone.unlink()
    times = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    usefulness(folder, dataset_dir, **SETTINGS)
    said = capsys.readouterr().out
    assert "2 of 3 cells are done, 1 are left to do here, about" in said
    assert {path: path.stat().st_mtime_ns for path in times} == times
    after = read_cells(folder)
    for name in ("scores", "audit_auc", "num_synthetic", "train_patients"):
        assert after[gone.name][name] == before[gone.name][name]


def test_an_experiment_of_another_kind_or_a_damaged_cell_is_refused(finished, dataset_dir, tmp_path):
    with pytest.raises(InputError, match="holds a plan with num_steps 3, not 4"):
        usefulness(finished, dataset_dir, **SETTINGS | {"num_steps": 4})
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    path = sorted((folder / "cells").iterdir())[0]
    whole = json.loads(path.read_text())
    for damaged in (
        path.read_text()[:-40],
        json.dumps({"arm": "augmented"}),
        json.dumps(whole | {"plan": "of others"}),
        json.dumps(whole | {"scores": {}}),
        json.dumps(whole | {"seed": 1}),
    ):
        path.write_text(damaged)
        with pytest.raises(InputError, match=f"{path.name}.*(damaged|another plan)"):
            usefulness(folder, dataset_dir, **SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("magic",)}, "Unknown arm 'magic'"),
        ({"patients": (9,), "primary_patients": 9}, "patients 9: the training split has 4 patients"),
        ({"patients": (1,), "primary_patients": 1}, "patients 1 is too few: draw 0 has no patient of"),
        ({"target_group": "RV"}, "lacks patients of RV or of other groups"),
        ({"target_group": "XYZ"}, "Unknown target_group 'XYZ'"),
        ({"split": "x"}, "no split 'x'"),
        ({"shard": "3/2"}, "shard '3/2' is no part"),
        ({"num_proc": 0}, "num_proc is 0"),
        ({"max_cells": -1}, "max_cells is -1"),
        ({"closed": ()}, "closed and open_models name no generator"),
        ({"split": "train"}, "Patient .* of the training split is held out too"),
    ],
)
def test_bad_input_leaves_nothing(dataset_dir, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        usefulness(tmp_path / "out", dataset_dir, **SETTINGS | changes)
    assert not (tmp_path / "out").exists()


def test_it_is_not_started_by_accelerate(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start without `accelerate launch`"):
        usefulness(tmp_path / "out", dataset_dir, **SETTINGS)


def test_two_stages_take_the_steps_of_one_and_the_second_goes_on(splits, tiny, tmp_path):
    rows = of_patients(splits["train"], sorted(set(splits["train"]["patient"]))[:1])
    steps, half = [], Stage((Real(),), 0.5)
    arm = Arm("twice", (half, half))
    network = fit(arm.stages, [[rows], [rows]], arm.augmentation, 3, 0, tmp_path)
    for stage in ("0", "1"):
        run = json.loads((tmp_path / stage / "run" / "training_config.json").read_text())
        steps.append(run["progress"]["step"])
        assert set(run["train_patients"]) == set(rows["patient"])
    assert sum(steps) == 3 and network == tmp_path / "1" / "run" / "last"
    first, second = ((tmp_path / stage / "run" / "metrics.jsonl").read_text().splitlines()[0] for stage in "01")
    assert json.loads(first) != json.loads(second)  # other weights on the same batch


def test_the_estimate():
    done = [CellResult("", "", "", 0, 0, 0, [], 0, 0, 0, seconds, 0.0, "", None, {}) for seconds in (1800.0, 5400.0)]
    assert describe_rest(9, [], 9, 1) == "0 of 9 cells are done, 9 are left to do here."
    assert describe_rest(9, done, 7, 2).endswith("7 are left to do here, about 3.5 h at the mean speed so far.")
    assert "about 30.0 min" in describe_rest(9, done, 1, 2)
