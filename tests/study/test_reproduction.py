"""The study in one command: what it leaves."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import pytest
from reproductions import QUICK, begin, interrupt, read

from hcm_hf.data.acdc import GROUPS
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.tables import cell
from hcm_hf.study.reproduction import reproduce
from hcm_hf.study.results import BEYOND, HEADLINE, REAL, SIMILARITY, STUDY
from hcm_hf.training import run as runs
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS


SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce.py"
STAGES = 3 + 3 * len(FAMILIES) + 2 + 1  # the AC-GAN can be asked for all groups
pytestmark = pytest.mark.usefixtures("shrunk")


@pytest.fixture(scope="module")
def reproduced(acdc, tmp_path_factory):
    """The work folder and the results of all six families."""
    folder = tmp_path_factory.mktemp("reproduced")
    work_dir, output_dir = folder / "work", folder / "results"
    assert reproduce(acdc=acdc, resolution=16, work_dir=work_dir, output_dir=output_dir, **QUICK) == output_dir
    return work_dir, output_dir


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


def test_every_file_has_a_name_that_windows_and_macos_take(reproduced):
    for folder in reproduced:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        assert len(names) > 20 and len({name.lower() for name in names}) == len(names)
        for part in (part for name in names for part in name.split("/")):
            assert not set(part) & set('<>:"\\|?*') and part.isascii() and part[-1] not in ". ", part
            assert not PureWindowsPath(part).is_reserved(), part


def test_a_tuned_model_is_sampled_in_its_own_way(reproduced, tmp_path):
    work_dir, output_dir = begin(tmp_path / "work", reproduced[0]), tmp_path / "results"
    quick = {"families": ("ddpm",), "num_images": 40, "num_epochs": 1}
    reproduce(dataset=reproduced[0] / "dataset", recipe="tuned", work_dir=work_dir, output_dir=output_dir, **quick)
    made = json.loads((work_dir / "images" / "ddpm" / "generation.json").read_text())
    assert (made["scheduler"], made["num_inference_steps"]) == ("sde-dpmsolver++", 20)
    settings = json.loads((output_dir / "table1.json").read_text())["settings"]
    assert settings["recipe"] == "tuned" and settings["scheduler"] is None


def test_a_seventh_family_on_a_prepared_dataset(reproduced, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(FAMILIES, "mine", FAMILIES["vae"])
    work_dir, output_dir = begin(tmp_path / "work", reproduced[0]), tmp_path / "results"
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


def test_the_script_takes_what_the_function_takes():
    result = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert set(re.findall(r"--(\w+)", result.stdout)) == {"help", *inspect.signature(reproduce).parameters}
