"""The scripts as a user runs them, from a synthetic cohort to a report."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny import build_tiny


SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name, *arguments):
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def succeed(name, *arguments):
    result = script(name, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_from_patients_to_a_report(tmp_path):
    cohort, dataset, model = tmp_path / "cohort", tmp_path / "dataset", tmp_path / "run"
    succeed("write_phantom.py", "--output_dir", cohort, "--num_patients_per_group", 3, "--num_proc", 2)
    table = succeed("prepare_dataset.py", "--acdc", cohort, "--output_dir", dataset, "--resolution", 16)
    assert "train       HCM" in table and "left out: nothing" in table and f"dataset: {dataset}" in table
    said = succeed("train.py", "--dataset", dataset, "--output_dir", model, "--num_epochs", 1)
    assert f"best model: {model / 'best'}" in said and (model / "losses.png").exists()
    arguments = ("--dataset", dataset, "--output_dir", tmp_path / "report", "--num_images", 20)
    succeed("score.py", "--model", model, *arguments)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["n_generated"] == 20 and set(report["rows"]) == {"generated", "real", "mean_image"}
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "report" / "images", other)
    (other / "manifest.jsonl").unlink()
    result = script("score.py", "--images", other, *arguments[:4])
    assert result.returncode == 2 and "holds the report of" in result.stderr
    with Image.open(tmp_path / "report" / "grid.png") as grid:
        assert grid.width > 10 * 32 and grid.height > 3 * 32
    assert len(list((tmp_path / "report" / "images").glob("*.png"))) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare_dataset.py", "--acdc", "nowhere", "--output_dir", "OUT"), "nowhere does not exist; name the ACDC"),
        (("prepare_dataset.py", "--acdc", "EMPTY", "--output_dir", "OUT"), "holds no ACDC patients"),
        (("generate.py", "--model", "nowhere", "--output_dir", "OUT"), "--model nowhere does not exist"),
        (("generate.py", "--model", "DDPM", "--output_dir", "OUT", "--class_labels", "HCM"), "has no classes"),
        (("score.py", "--output_dir", "OUT"), "Give --images, or --model to generate them with."),
        (("score.py", "--images", "EMPTY", "--scheduler", "ddim", "--output_dir", "OUT"), "ddim is for generating"),
        (
            ("score.py", "--images", "EMPTY", "--encoder", "EMPTY", "--dataset", "DATASET", "--output_dir", "OUT"),
            "holds no encoder; train one with scripts/train_encoder.py",
        ),
        (
            ("score.py", "--images", "EMPTY", "--features", "resnet", "--dataset", "DATASET", "--output_dir", "OUT"),
            "There is no extractor 'resnet'; choose among inception, dinov2.",
        ),
        (("sweep_steps.py", "--model", "nowhere", "--output_dir", "OUT"), "--model nowhere does not exist"),
        (("generate.py", "--model", "DDPM", "--output_dir", "OUT", "--scheduler", "x"), "Unknown --scheduler 'x'"),
        (("score.py", "--images", "nowhere", "--dataset", "DATASET", "--output_dir", "OUT"), "nowhere does not exist"),
        (("write_phantom.py", "--output_dir", "OUT", "--num_patients_per_group", "0"), "num_patients_per_group is 0"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(arguments, message, tmp_path, dataset_dir, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    build_tiny("ddpm").pipeline().save_pretrained(tmp_path / "ddpm")
    places = {"DDPM": tmp_path / "ddpm", "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty", "DATASET": dataset_dir}
    name, *rest = (str(places.get(argument, argument)) for argument in arguments)
    monkeypatch.setattr(sys, "argv", [name, *rest])
    with pytest.raises(SystemExit) as stop:  # as a user runs it, but in this process, which has torch imported
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line and "Traceback" not in said
    assert not (tmp_path / "out").exists()
