import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_families

from hcm_hf.data import phantom
from hcm_hf.data.acdc import GROUPS
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.tables import cell
from hcm_hf.metrics import bootstrap
from hcm_hf.pipelines.auto import hash_model
from hcm_hf.study import plan, stages
from hcm_hf.study.reproduction import _check as check_settings
from hcm_hf.study.reproduction import reproduce
from hcm_hf.study.results import BEYOND, HEADLINE, REAL, SIMILARITY, STUDY
from hcm_hf.training import run as runs
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS
from hcm_hf.utils.errors import InputError, Interrupted


SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce.py"
QUICK = {"num_images": 40, "num_epochs": 2, "num_inference_steps": 3}
STAGES = 3 + 3 * len(FAMILIES) + 2 + 1  # the AC-GAN can be asked for all groups


@pytest.fixture(scope="module", autouse=True)
def shrunk():
    """Tiny families, and few resamples."""
    with pytest.MonkeyPatch.context() as patch:
        for name, family in tiny_families().items():
            patch.setitem(FAMILIES, name, family)
        patch.setattr(bootstrap, "RESAMPLES", 30)
        yield


@pytest.fixture(scope="module")
def acdc(tmp_path_factory):
    """Seven patients each of HCM and NOR; three and one of them in the testing half."""
    folder = tmp_path_factory.mktemp("reproduction") / "acdc"
    phantom.write_cohort(folder, num_patients_per_group=7, groups=("HCM", "NOR"), num_proc=1)
    (folder / "testing").mkdir()
    for number in (1, 2, 3, 8):
        (folder / "training" / f"patient{number:03}").rename(folder / "testing" / f"patient{number:03}")
    return folder


@pytest.fixture(scope="module")
def reproduced(acdc):
    """The work folder and the results of all six families."""
    work_dir, output_dir = acdc.parent / "work", acdc.parent / "results"
    assert reproduce(acdc=acdc, resolution=16, work_dir=work_dir, output_dir=output_dir, **QUICK) == output_dir
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
        reproduce(**{"acdc": acdc, "resolution": 16, "work_dir": copied[0], "output_dir": copied[1]} | QUICK | changes)
        return re.findall("^== (.*)$", capfd.readouterr().out, re.MULTILINE)

    return call


def read(path):
    return json.loads(path.read_text())


def snapshot(*folders):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_every_file_is_there(reproduced):
    work_dir, output_dir = reproduced
    expected = {"table1.md", "table1.json", "environment.json", "families.png"}
    expected |= {"losses.png", "acgan/controls.png", "infogan/controls.png"}
    for family in FAMILIES:
        pictures = {path.name for path in (work_dir / "reports" / family).glob("*.png")}
        assert {"grid.png", "spectra.png", "closest_pairs.png", "thickness.png"} < pictures
        assert {"metrics.jsonl", "losses.png"} <= {path.name for path in (work_dir / "runs" / family).iterdir()}
        expected |= {f"{family}/report.json", f"{family}/report.md"}
    expected |= {"all-groups/acgan/report.json", "all-groups/acgan/report.md"}
    assert {path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*") if path.is_file()} == expected
    assert {path.name for path in work_dir.iterdir()} == {"dataset", "runs", "images", "reports", "reproduction.json"}
    assert len(list((work_dir / "images" / "ddpm").glob("*.png"))) == 40


def test_numbers_are_those_of_the_reports(reproduced):
    work_dir, output_dir = reproduced
    table, text = read(output_dir / "table1.json"), (output_dir / "table1.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in text.split("\n## ")[1].splitlines() if "|" in line}
    assert list(table["families"]) == list(FAMILIES) and table["without_report"] == []
    for family, row in table["families"].items():
        report = read(output_dir / family / "report.json")
        numbers, artefact = report["rows"]["generated"], report["paper_compat_artefact"]["rows"]["generated"]
        assert row["numbers"] == {name: numbers[name] for name in (*SIMILARITY, *BEYOND) if name in numbers}
        assert row["numbers"].keys() >= {"ssim_copy_gap", "kid_acdc", "relative_fd_acdc", "thick_share_ed"}
        assert row["artefact"] == artefact["ssim_random"] and row["n_generated"] == report["n_generated"] == 40
        assert table["rows"]["real"]["numbers"]["ssim_random"] == report["rows"]["real"]["ssim_random"]
        assert table["encoder"]["features"]["hash"] == report["encoder"]["hash"]
        assert table["encoder"]["segmenter"]["hash"] == report["segmenter"]["hash"]
        numbers = Report.load(output_dir / family).rows["generated"]
        for name in SIMILARITY:
            assert f" {cell(numbers[name], name)} |" in rows[family]
        written, figures = work_dir / "reports" / family, r"^Figure (\S+):"
        named = re.findall(figures, (written / "report.md").read_text(), re.MULTILINE)
        assert "precision_recall_acdc.png" in named and all((written / name).is_file() for name in named)
        assert not re.findall(figures, (output_dir / family / "report.md").read_text(), re.MULTILINE)
        for name in row["numbers"].keys() & BEYOND:
            assert f" {cell(numbers[name], name)} |" in text
        study = "{:.3f} / {:.4f} / {:.2f}".format(*STUDY[family]) if family in STUDY else "no row in the study"
        assert f"| {family} | {study} |" in rows[family]
    assert "no row in the study" in rows["infogan"] and ".972 / 0.9403 / 0.06" in rows["ddpm"]
    assert [name for name in rows if "real" in name or "mean" in name] == [
        "**real patients**",
        "the mean training image",
    ]
    assert "membership_auc" in table["families"]["ddpm"]["numbers"]  # the model was asked, not the images alone


def test_a_model_that_knows_groups_stands_on_hcm_and_on_all_groups_side_by_side(reproduced):
    work_dir, output_dir = reproduced
    table, text = read(output_dir / "table1.json"), (output_dir / "table1.md").read_text()
    hcm, everyone = (Report.load(output_dir / folder / "acgan") for folder in ("", "all-groups"))
    assert hcm.dataset.groups == ["HCM"] and everyone.dataset.groups == list(GROUPS)
    assert (hcm.n_heldout_patients, everyone.n_heldout_patients) == (3, 4)
    assert hcm.generator.classes == ["HCM"] and everyone.generator.classes == ["any"]
    assert hcm.generator.model_hash == everyone.generator.model_hash
    lines = text.split("\n## HCM patients and patients of all groups\n")[1].split("\n## ")[0]
    for label, report, row in (
        ("acgan", hcm, "generated"),
        ("acgan", everyone, "generated"),
        (REAL, everyone, "real"),
    ):
        cells = [cell(report.rows[row].get(name), name) for name in HEADLINE]
        groups = " ".join(report.dataset.groups)
        assert f"| {label} | {groups} | {report.n_heldout_patients} | {' | '.join(cells)} |" in lines
    found = [(row["label"], len(row["groups"])) for row in table["by_groups"]]
    others = [(family, 1) for family in FAMILIES if family != "acgan"]
    assert sorted(found) == sorted([*others, ("acgan", 1), ("acgan", 5), (REAL, 1), (REAL, 5)])
    assert not (work_dir / "images" / "all-groups" / "vae").exists()


def test_training_facts_and_circumstances_stand_in_the_table(reproduced):
    work_dir, output_dir = reproduced
    table, text = read(output_dir / "table1.json"), (output_dir / "table1.md").read_text()
    for family in (*FAMILIES, *INSTRUMENTS):
        folder = f"encoder/{family}" if family in INSTRUMENTS else family
        written = read(work_dir / "runs" / folder / "training_config.json")
        assert written["finished"] and written["recipe"] == ("default" if family in INSTRUMENTS else "paper")
        facts = (table["families"] | table["encoder"])[family]["training"]
        assert (
            facts["steps"] == written["progress"]["step"]
            and facts["validation_loss"] == written["progress"]["best_loss"]
        )
        assert f"| {facts['steps']} | {facts['best_step']} | {facts['validation_loss']:.5g} |" in text
    assert table["families"]["ddpm"]["sampler"]["num_inference_steps"] == 3
    assert "Cut short by --num_epochs: vae after 2 of 100" in text and "ddpm after 2 of 115" in text
    last = text.strip().splitlines()[-1]
    for word in (
        "Dataset synthetic",
        "Seed 0",
        table["encoder"]["features"]["hash"],
        table["encoder"]["segmenter"]["hash"],
        "Recipe paper",
        "40 generated",
        "3 patients",
    ):
        assert word in last


def test_nothing_tells_of_this_machine(reproduced):
    for path in reproduced[1].rglob("*"):
        if path.suffix in (".json", ".md", ".jsonl"):
            assert str(reproduced[1].parent) not in path.read_text()
    text = (reproduced[1] / "environment.json").read_text()
    assert not re.search(r'"(/|~|[A-Z]:\\)', text)
    (call,) = json.loads(text)["calls"]
    assert call["arguments"]["acdc"] == "acdc" and call["arguments"]["num_epochs"] == 2
    assert len(call["seconds"]) == STAGES - 1  # but for the one that wrote this
    assert all(seconds >= 0 for seconds in call["seconds"].values())
    assert call["environment"]["packages"].keys() > {"torch", "diffusers"} and call["environment"]["cores"] >= 1


def test_each_stage_says_where_it_was_done_whatever_is_done_later_elsewhere(again, copied, monkeypatch):
    output_dir = copied[1]
    (first,) = read(output_dir / "environment.json")["calls"]
    describe = plan.describe_environment
    monkeypatch.setattr(plan, "describe_environment", lambda device: describe(device) | {"processor": "another"})
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(stages, "train", lambda config: sys.exit("killed"))
        again(num_epochs=3, families=("vae",))
    again(num_epochs=3, families=("vae",))
    before, after = read(output_dir / "environment.json")["calls"]
    assert before == first and before["environment"]["processor"] != "another"
    assert after["environment"]["processor"] == "another" and after["arguments"]["num_epochs"] == 3
    assert list(after["seconds"]) == ["train features", "train segmenter", "train vae", "generate vae", "score vae"]
    taken = read(output_dir / "table1.json")["families"]["vae"]["training"]["seconds"]
    assert after["seconds"]["train vae"] > 0 and taken > 0


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
    lost = [work_dir / "images" / "dcgan" / "000007.png", output_dir / "families.png"]
    lost += [output_dir / "acgan" / "controls.png", output_dir / "losses.png"]
    contents = [path.read_bytes() for path in lost]
    report = work_dir / "reports" / "gan" / "report.json"
    rows = read(report)["rows"]
    for path in (*lost, report):
        path.unlink()
    assert again() == ["score gan", "generate dcgan", "write the results"]
    assert [path.read_bytes() for path in lost] == contents and read(report)["rows"] == rows
    shutil.rmtree(work_dir / "runs" / "vae")
    before = snapshot(work_dir / "images", work_dir / "reports")
    assert again() == ["train vae", "write the results"]  # for the seconds; the same model, so the same images
    assert snapshot(work_dir / "images", work_dir / "reports") == before


def test_a_longer_run_replaces_what_came_of_it(again, copied):
    work_dir, output_dir = copied
    before = hash_model(work_dir / "runs" / "vae")
    stages = again(num_epochs=3, families=("vae",))
    trained = ["train features", "train segmenter", "train vae"]
    assert stages == [*trained, "generate vae", "score vae", "write the results"]
    after = hash_model(work_dir / "runs" / "vae")
    assert after != before and read(work_dir / "images" / "vae" / "generation.json")["model_hash"] == after
    table = read(output_dir / "table1.json")
    assert table["families"]["vae"]["training"]["num_epochs"] == 3
    assert read(output_dir / "vae" / "report.json")["generator"]["model_hash"] == after


def test_an_interrupted_call_goes_on_to_the_same_numbers(acdc, reproduced, tmp_path, monkeypatch):
    folders = {"work_dir": tmp_path / "work", "output_dir": tmp_path / "results"}
    arguments = {"acdc": acdc, "resolution": 16, "families": ("dcgan",)} | folders | QUICK
    log = runs.Run.log

    def stop(run, record, epoch):
        log(run, record, epoch)
        if run.written["family"] == "dcgan" and run.state.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(runs.Run, "log", stop)
        reproduce(**arguments)
    assert "finished" not in read(tmp_path / "work" / "runs" / "dcgan" / "training_config.json")
    assert not (tmp_path / "results").exists()
    reproduce(**arguments)
    ours, theirs = (
        read(folder / "table1.json")["families"]["dcgan"] for folder in (tmp_path / "results", reproduced[1])
    )
    assert ours["numbers"] == theirs["numbers"]
    text = (tmp_path / "results" / "table1.md").read_text()
    assert "Without a report yet, and so left out: vae, gan, acgan, infogan, ddpm." in text
    assert not (tmp_path / "results" / "gan").exists()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_finished_run_that_goes_on_is_not_finished(dataset_dir, tmp_path, monkeypatch):
    config = TrainingConfig(family="vae", dataset=str(dataset_dir), output_dir=str(tmp_path), num_epochs=1)
    path = train(config) / "training_config.json"
    first = read(path)
    assert first["finished"] and first["progress"] == read(tmp_path / "last" / "training_config.json")["progress"]
    train(config)  # nothing to do: still finished, and no second longer
    assert read(path) == first
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs.Run, "log", interrupt)
        train(replace(config, num_epochs=2))
    assert not read(path).keys() & {"finished", "progress"}


def test_a_tuned_model_is_sampled_in_its_own_way(reproduced, tmp_path):
    work_dir, output_dir = tmp_path / "work", tmp_path / "results"
    quick = {"families": ("ddpm",), "num_images": 40, "num_epochs": 1}
    reproduce(dataset=reproduced[0] / "dataset", recipe="tuned", work_dir=work_dir, output_dir=output_dir, **quick)
    made = json.loads((work_dir / "images" / "ddpm" / "generation.json").read_text())
    assert (made["scheduler"], made["num_inference_steps"]) == ("sde-dpmsolver++", 20)
    settings = json.loads((output_dir / "table1.json").read_text())["settings"]
    assert settings["recipe"] == "tuned" and settings["scheduler"] is None


def test_a_seventh_family_on_a_prepared_dataset(reproduced, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(FAMILIES, "mine", FAMILIES["vae"])
    work_dir, output_dir = tmp_path / "work", tmp_path / "results"
    shutil.copytree(reproduced[0] / "runs" / "encoder", work_dir / "runs" / "encoder")
    reproduce(dataset=reproduced[0] / "dataset", families=["mine"], work_dir=work_dir, output_dir=output_dir, **QUICK)
    overviews = capfd.readouterr().out
    assert re.search("^done  train features$", overviews, re.MULTILINE)
    assert re.search("^done  train segmenter$", overviews, re.MULTILINE)
    assert re.search("^left  train mine +about .* s$", overviews, re.MULTILINE)
    assert re.search("^left  generate mine +about .* s$", overviews, re.MULTILINE)
    assert re.search("^left  score mine +unknown$", overviews, re.MULTILINE)
    assert overviews.count("stages left") == 4 and overviews.strip().splitlines()[-2] == "all 7 stages are done"
    table = read(output_dir / "table1.json")
    assert list(table["families"]) == ["mine"] and table["without_report"] == [
        name for name in FAMILIES if name != "mine"
    ]
    assert (output_dir / "mine" / "report.md").exists() and not (output_dir / "vae").exists()


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


def test_the_script_takes_what_the_function_takes():
    result = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert set(re.findall(r"--(\w+)", result.stdout)) == {"help", *inspect.signature(reproduce).parameters}
