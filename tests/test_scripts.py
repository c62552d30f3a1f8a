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


pytestmark = pytest.mark.usefixtures("few_resamples")
SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script_here(monkeypatch, capsys):
    """A script as a user runs it, but in this process, which has torch imported: its status, and what it said."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess([name, *arguments], status, said.out, said.err)

    return run


def succeed(name, *arguments):
    """Run a script as a user does, in a process of its own; return what it said."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_from_patients_to_a_report(tmp_path, script_here):
    cohort, dataset, model = tmp_path / "cohort", tmp_path / "dataset", tmp_path / "run"
    few = ("--num_patients_per_group", 3, "--groups", "HCM", "NOR")
    succeed("write_phantom.py", "--output_dir", cohort, *few, "--num_proc", 2)
    preparation = ("--acdc", cohort, "--output_dir", dataset, "--resolution", 16, "--num_proc", 1)
    table = script_here("prepare_dataset.py", *preparation).stdout
    assert "train       HCM" in table and "left out: nothing" in table and f"dataset: {dataset}" in table
    said = succeed("train.py", "--dataset", dataset, "--output_dir", model, "--num_epochs", 1)
    assert f"best model: {model / 'best'}" in said and (model / "losses.png").exists()
    arguments = ("--dataset", dataset, "--output_dir", tmp_path / "report", "--num_images", 20)
    assert script_here("score.py", "--model", model, *arguments).returncode == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["n_generated"] == 20 and set(report["rows"]) == {"generated", "real", "mean_image"}
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "report" / "images", other)
    for name in ("manifest.jsonl", "generation.json"):  # images from elsewhere
        (other / name).unlink()
    result = script_here("score.py", "--images", other, *arguments[:4])
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
            "holds no encoder: it has no network in",
        ),
        (
            ("examine_codes.py", "--model", "DDPM", "--encoder", "EMPTY", "--output_dir", "OUT"),
            "has no codes; name an InfoGAN",
        ),
        (
            ("generate.py", "--model", "DDPM", "--output_dir", "OUT", "--save_dataset"),
            "--save_dataset needs a model that makes masks",
        ),
        (
            ("generate.py", "--model", "PAIRED", "--output_dir", "OUT", "--num_images", "9", "--save_dataset"),
            "and 9 make 6 for train, 1 for validation, 2 for test; raise --num_images",
        ),
        (
            ("generate.py", "--model", "PAIRED", "--output_dir", "OUT", "--class_labels", "HCM ED top"),
            "unknown 'top'; choose among group: DCM, HCM, MINF, NOR, RV; phase: ED, ES; level: base, mid, apex.",
        ),
        (
            ("generate.py", "--model", "DDPM", "--output_dir", "OUT", "--guidance_scale", "2"),
            "guidance_scale 2.0 given, but this diffusion model has no classes",
        ),
        (("sweep_steps.py", "--model", "nowhere", "--output_dir", "OUT"), "--model nowhere does not exist"),
        (("generate.py", "--model", "DDPM", "--output_dir", "OUT", "--scheduler", "x"), "Unknown --scheduler 'x'"),
        (("score.py", "--images", "nowhere", "--dataset", "DATASET", "--output_dir", "OUT"), "nowhere does not exist"),
        (("write_phantom.py", "--output_dir", "OUT", "--num_patients_per_group", "0"), "num_patients_per_group is 0"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(arguments, message, tmp_path, dataset_dir, paired_model, script_here):
    (tmp_path / "empty").mkdir()
    build_tiny("ddpm").pipeline().save_pretrained(tmp_path / "ddpm")
    places = {"DDPM": tmp_path / "ddpm", "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty", "DATASET": dataset_dir}
    places |= {"PAIRED": paired_model}
    result = script_here(*(places.get(argument, argument) for argument in arguments))
    assert result.returncode == 2, result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_generated_slices_with_their_masks_train_a_model(paired_model, tmp_path, script_here):
    made = tmp_path / "made"
    asked = ("--num_images", 30, "--class_labels", "any", "--guidance_scale", 1.5, "--num_inference_steps", 2)
    arguments = ("--model", paired_model, "--output_dir", made, *asked, "--save_nifti", "--save_dataset")
    result = script_here("generate.py", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"images: {made}\ndataset: {made / 'dataset'}" in result.stdout
    assert (made / "masks.nii.gz").is_file() and len(list(made.glob("*_mask.png"))) == 30
    groups = ("--groups", "HCM", "NOR", "DCM", "MINF")
    training = ("--family", "gan", "--dataset", made / "dataset", "--output_dir", tmp_path / "run", "--num_epochs", 1)
    result = script_here("train.py", *training, *groups)
    assert result.returncode == 0, result.stderr


def test_to_the_hub_and_back(hub, cohort, tmp_path, script_here):
    def succeed(*arguments):
        result = script_here(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    dataset, model = tmp_path / "dataset", tmp_path / "run"
    said = succeed(
        *("prepare_dataset.py", "--acdc", cohort, "--output_dir", dataset, "--resolution", 16, "--num_proc", 1),
        *("--push_to_hub", "--hub_dataset_id", "ada/slices"),
    )
    assert f"on the Hub: {hub.url}/datasets/ada/slices/commit/" in said and hub.repos["dataset", "ada/slices"].private
    training = ("train.py", "--family", "gan", "--dataset", "ada/slices", "--output_dir", model, "--num_epochs", 1)
    said = succeed(*training, "--push_to_hub", "--hub_private_repo")
    assert f"on the Hub: {hub.url}/ada/hcm-gan/commit/" in said and hub.repos["model", "ada/hcm-gan"].private
    assert "Not evaluated." in hub.files("model", "ada/hcm-gan")["README.md"].decode()
    scoring = ("--dataset", "ada/slices", "--num_images", 20, "--output_dir", tmp_path / "report")
    succeed("score.py", "--model", "ada/hcm-gan", *scoring)
    url = succeed("push.py", "--model", model, "--report", tmp_path / "report", "--repo_id", "ada/hcm-gan")
    files = hub.files("model", "ada/hcm-gan")
    assert url.strip().endswith(hub.repos["model", "ada/hcm-gan"].branches["main"]) and "metrics.json" in files
    assert "Not evaluated." not in files["README.md"].decode()
    succeed("generate.py", "--model", "ada/hcm-gan@main", "--output_dir", tmp_path / "images", "--num_images", 2)
    assert "ada-writes" not in "".join(path.read_text() for path in tmp_path.rglob("*.json*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give one of --model, --dataset, --space and --pretrained."),
        (("--model", "RUN", "--private", "--public"), "--private and --public exclude each other"),
        (("--space", "RUN", "--report", "x"), "--report x belongs to a --model"),
        (("--model", "EMPTY"), "holds no saved pipeline"),
        (("--model", "RUN"), "has no training_config.json beside it"),
        (("--space", "EMPTY"), "holds no README.md"),
        (("--dataset", "EMPTY"), "is not a dataset"),
    ],
)
def test_what_cannot_be_pushed(arguments, message, hub, tmp_path, script_here):
    (tmp_path / "empty").mkdir()
    build_tiny("gan").pipeline().save_pretrained(tmp_path / "run")
    places = {"RUN": tmp_path / "run", "EMPTY": tmp_path / "empty"}
    chosen = (places.get(argument, argument) for argument in arguments)
    result = script_here("push.py", "--repo_id", "ada/hearts", *chosen)
    assert result.returncode == 2 and message in result.stderr and result.stderr.startswith("error: ")
    assert hub.repos == {}


def test_a_training_that_cannot_be_pushed_does_not_begin(hub, dataset_dir, tmp_path, script_here):
    arguments = ("train.py", "--family", "gan", "--dataset", dataset_dir, "--output_dir", tmp_path / "run")
    result = script_here(*arguments, "--push_to_hub", "--hub_model_id", "bob/hearts")
    assert result.returncode == 2 and "There is no model bob/hearts, and you are ada" in result.stderr
    wrong = script_here("train.py", "--family", "dgan", "--push_to_hub")
    assert wrong.returncode == 2 and "Unknown --family 'dgan'" in wrong.stderr
    assert not (tmp_path / "run").exists() and hub.repos == {}
    prepared = ("prepare_dataset.py", "--acdc", "nowhere", "--output_dir", tmp_path / "data")
    refused = script_here(*prepared, "--push_to_hub", "--hub_dataset_id", "bob/slices")
    assert refused.returncode == 2 and "There is no dataset bob/slices, and you are ada" in refused.stderr
    assert "are for --push_to_hub" in script_here(*prepared, "--public").stderr


def test_images_are_made_in_the_precision_that_accelerate_is_told(tmp_path, paired_model, monkeypatch, script_here):
    arguments = ("--model", paired_model, "--output_dir", tmp_path / "images", "--num_images", 2)
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        assert script_here("generate.py", *arguments, "--num_inference_steps", 2).returncode == 0
    lines = (tmp_path / "images" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["mixed_precision"] for line in lines] == ["bf16", "bf16"]
    said = script_here("generate.py", *arguments, "--num_inference_steps", 2)
    assert said.returncode == 2 and "holds images with mixed_precision bf16, not None" in said.stderr
