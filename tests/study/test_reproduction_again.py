"""The study called again: it goes on where it was, and changes nothing that is there."""

import json
import os
import re
import shutil
import signal
import sys

import pytest
from reproductions import QUICK, begin, interrupt, read

from hcm_hf.pipelines.auto import hash_model
from hcm_hf.study import plan, stages
from hcm_hf.study.reproduction import _check as check_settings
from hcm_hf.study.reproduction import reproduce
from hcm_hf.training import run as runs
from hcm_hf.utils.errors import InputError, Interrupted


FAMILIES = ("vae", "gan", "acgan")
pytestmark = pytest.mark.usefixtures("shrunk")


@pytest.fixture(scope="module")
def reproduced(acdc, tmp_path_factory):
    """The work folder and the results of some families."""
    folder = tmp_path_factory.mktemp("reproduced")
    work_dir, output_dir = folder / "work", folder / "results"
    reproduce(acdc=acdc, resolution=16, families=FAMILIES, work_dir=work_dir, output_dir=output_dir, **QUICK)
    return work_dir, output_dir


@pytest.fixture
def copied(reproduced, tmp_path):
    """The same, to be damaged."""
    for name, folder in zip(("work", "results"), reproduced, strict=True):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path / "work", tmp_path / "results"


@pytest.fixture
def again(acdc, copied, capfd):
    """Calls `reproduce` on the copies; returns the stages that ran."""

    def call(**changes) -> list[str]:
        capfd.readouterr()
        folders = {"acdc": acdc, "work_dir": copied[0], "output_dir": copied[1]}
        reproduce(**folders | {"resolution": 16, "families": FAMILIES} | QUICK | changes)
        return re.findall("^== (.*)$", capfd.readouterr().out, re.MULTILINE)

    return call


def snapshot(*folders):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_stage_that_was_killed_is_noted_where_it_was_begun(again, copied, monkeypatch):
    work_dir = copied[0]
    (work_dir / "images" / "gan" / "000000.png").unlink()
    note = plan.Plan.note
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "generate_images", interrupt)
        patch.setattr(plan.Plan, "note", lambda self, name, seconds=None: seconds is None and note(self, name))
        again(num_images=39)
    call = read(work_dir / "reproduction.json")["calls"][-1]
    assert call["arguments"]["num_images"] == 39 and call["seconds"] == {"generate gan": None}
    assert again() == ["generate gan", "write the results"]


def test_what_an_earlier_version_noted_is_kept_without_a_place(again, copied):
    work_dir, output_dir = copied
    record = read(work_dir / "reproduction.json")
    seconds = record.pop("calls")[0]["seconds"]
    (work_dir / "reproduction.json").write_text(json.dumps(record | {"seconds": seconds}))
    (output_dir / "environment.json").write_text('{"python": "3.9", "seconds": {}}')
    (work_dir / "images" / "gan" / "000000.png").unlink()
    assert again() == ["generate gan", "write the results"]
    before, after = read(output_dir / "environment.json")["calls"]
    del seconds["write the results"]
    last = {"python": "3.9", "seconds": {}}
    assert before == {"environment": None, "arguments": None, "seconds": seconds, "last_call": last}
    assert list(after["seconds"]) == ["generate gan"] and after["environment"]["python"] != "3.9"
    assert again() == []


def test_a_second_call_does_nothing(again, copied, capfd):
    before = snapshot(*copied)
    assert again() == [] and again(num_images=35, num_epochs=1) == []  # more than that is there
    assert snapshot(*copied) == before


def test_what_is_lost_is_made_good(again, copied):
    work_dir, output_dir = copied
    lost = [work_dir / "images" / "acgan" / "000007.png", output_dir / "families.png"]
    lost += [output_dir / "acgan" / "controls.png", output_dir / "losses.png"]
    contents = [path.read_bytes() for path in lost]
    report = work_dir / "reports" / "gan" / "report.json"
    rows = read(report)["rows"]
    for path in (*lost, report):
        path.unlink()
    assert again() == ["score gan", "generate acgan", "write the results"]
    assert [path.read_bytes() for path in lost] == contents and read(report)["rows"] == rows
    shutil.rmtree(work_dir / "runs" / "vae")
    before = snapshot(work_dir / "images", work_dir / "reports")
    assert again() == ["train vae", "write the results"]  # for the seconds; the same model, so the same images
    assert snapshot(work_dir / "images", work_dir / "reports") == before


def test_a_longer_run_replaces_what_came_of_it_and_each_stage_says_where_it_was_done(again, copied, monkeypatch):
    work_dir, output_dir = copied
    (first,) = read(output_dir / "environment.json")["calls"]
    model = hash_model(work_dir / "runs" / "vae")
    describe = plan.describe_environment
    monkeypatch.setattr(plan, "describe_environment", lambda device: describe(device) | {"processor": "another"})
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(stages, "train", lambda config: sys.exit("killed"))
        again(num_epochs=3, families=("vae",))
    made = ["train features", "train segmenter", "train vae", "generate vae", "score vae"]
    assert again(num_epochs=3, families=("vae",)) == [*made, "write the results"]
    longer = hash_model(work_dir / "runs" / "vae")
    assert longer != model and read(work_dir / "images" / "vae" / "generation.json")["model_hash"] == longer
    training = read(output_dir / "table1.json")["families"]["vae"]["training"]
    assert training["num_epochs"] == 3
    assert read(output_dir / "vae" / "report.json")["generator"]["model_hash"] == longer
    before, after = read(output_dir / "environment.json")["calls"]
    assert before == first and before["environment"]["processor"] != "another"
    assert after["environment"]["processor"] == "another" and after["arguments"]["num_epochs"] == 3
    assert list(after["seconds"]) == made
    assert after["seconds"]["train vae"] > 0 and training["seconds"] > 0


def test_an_interrupted_call_goes_on_to_the_same_numbers(acdc, reproduced, tmp_path, monkeypatch):
    work_dir, output_dir = begin(tmp_path / "work", reproduced[0]), tmp_path / "results"
    folders = {"work_dir": work_dir, "output_dir": output_dir}
    arguments = {"acdc": acdc, "resolution": 16, "families": ("gan",)} | folders | QUICK
    log = runs.Run.log

    def stop(run, record, epoch):
        log(run, record, epoch)
        if run.written["family"] == "gan" and run.state.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(runs.Run, "log", stop)
        reproduce(**arguments)
    assert "finished" not in read(work_dir / "runs" / "gan" / "training_config.json")
    assert not output_dir.exists()
    reproduce(**arguments)
    ours, theirs = (read(folder / "table1.json")["families"]["gan"] for folder in (output_dir, reproduced[1]))
    assert ours["numbers"] == theirs["numbers"]
    text = (output_dir / "table1.md").read_text()
    assert "Without a report yet, and so left out: vae, dcgan, acgan, infogan, ddpm." in text
    assert not (output_dir / "vae").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": ("stylegan",)}, "Unknown family 'stylegan' in families; choose among vae"),
        ({"families": ("encoder",)}, "Unknown family 'encoder' in families"),
        ({"recipe": "secret"}, "Unknown recipe .secret.; choose among crisp, .*distilled, .*paper, tuned"),
        (
            {"recipe": "distilled"},
            "recipe distilled needs a teacher; train it with scripts.train.py and its argument teacher",
        ),
        ({"dataset": "somewhere"}, "acdc and dataset exclude each other"),
        ({"acdc": "nowhere"}, "nowhere does not exist"),
        ({"acdc": None, "dataset": "nowhere"}, "dataset nowhere does not exist"),
        ({"num_images": 32}, "num_images is 32; it must be at least 33"),
        ({"num_epochs": 0}, "num_epochs is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 1}, "work holds a reproduction with seed 0, not 1; name another"),
        ({"resolution": 32}, "work holds a reproduction with resolution 16, not 32"),
        ({"num_inference_steps": 4}, "work holds a reproduction with num_inference_steps 3, not 4"),
        ({"work_dir": "new", "scheduler": "euler"}, "output_dir .* with scheduler ddpm, not euler"),
        ({"work_dir": "new", "output_dir": "new", "scheduler": "euler"}, "Unknown scheduler 'euler'"),
        ({"work_dir": "new", "output_dir": "new", "resolution": 24}, "cannot be built for images of 24 px"),
        ({"work_dir": "OTHER", "output_dir": "new"}, "holds something else"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(again, copied, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=message):
        again(**changes | ({"work_dir": tmp_path / "other"} if changes.get("work_dir") == "OTHER" else {}))
    assert snapshot(tmp_path) == before


def test_a_work_folder_from_before_is_of_the_usual_target_group(tmp_path):
    settings = {"seed": 0, "target_group": "HCM"}
    (tmp_path / "reproduction.json").write_text(json.dumps({"settings": {"seed": 0}}))
    check_settings(tmp_path / "reproduction.json", settings, "work_dir")
    with pytest.raises(InputError, match="with target_group HCM, not NOR"):
        check_settings(tmp_path / "reproduction.json", settings | {"target_group": "NOR"}, "work_dir")


def test_other_patients_are_refused(again, copied, acdc, tmp_path):
    shutil.copytree(acdc, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "testing" / "patient008")
    with pytest.raises(InputError, match="work holds a reproduction of other patients; name another"):
        again(acdc=tmp_path / "fewer")
