import json
from dataclasses import asdict
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from tiny import build_tiny, notes, tiny_families

from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.cards import render_card
from hcm_hf.hub.publishable import known_training
from hcm_hf.hub.push import push_model
from hcm_hf.pipelines.auto import HCMPipeline, read_training
from hcm_hf.pipelines.notes import without_paths
from hcm_hf.training.checkpoint import Progress
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


@pytest.fixture
def run(tmp_path):
    """A run with notes."""
    folder = tmp_path / "run"
    build_tiny("dcgan").pipeline().save_pretrained(folder / "best")
    (folder / "training_config.json").write_text(json.dumps(notes()))
    return folder


def test_what_a_run_writes_is_read(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "gan", tiny_families()["gan"])
    folder = train(TrainingConfig("gan", dataset=str(dataset_dir), output_dir=str(tmp_path / "gan"), num_epochs=1))
    for place in (folder, folder / "best", folder / "last"):
        assert read_training(place) == json.loads((place / "training_config.json").read_text())
    assert read_training(folder)["finished"] and not read_training(tmp_path)
    HCMPipeline.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    written, kept = read_training(folder / "best"), read_training(tmp_path / "copy")
    assert set(written) - set(kept) == {"output_dir", "report_to"} and kept["adam_betas"] == [0.5, 0.999]
    assert known_training(written) == kept


def test_published_notes_carry_the_rates_of_the_networks(run):
    written = notes(relative_rates={"unet": 0.15}, adam_betas=[0.0, 0.99])
    (run / "training_config.json").write_text(json.dumps(written))
    HCMPipeline.from_pretrained(run).save_pretrained(run / "copy")
    assert read_training(run / "copy") == written == known_training(written)


@pytest.mark.parametrize("system", [PureWindowsPath, PurePosixPath])
def test_published_notes_name_no_folders_of_any_system(system):
    home = system("C:/Users/ada" if system is PureWindowsPath else "/home/ada")
    folders = {"dataset": str(home / "hospital" / "acdc-64"), "teacher": str(home / "runs" / "ddpm" / "best")}
    kept = without_paths(notes(**folders))
    assert (kept["dataset"], kept["teacher"]) == ("acdc-64", "ddpm")


def test_losses_may_be_below_zero_or_unknown(run):
    for loss in (-3.5, None):
        written = notes(progress=asdict(Progress(3, 2, loss, 1.5)))
        (run / "training_config.json").write_text(json.dumps(written))
        assert read_training(run)["progress"]["best_loss"] == loss
        assert "steps, best at step" in render_card("ada/hearts", read_training(run), "hcm_hf")


NEEDED = ("family", "recipe", "version", "groups", "resolution", "dataset", "train_patients")
HALF_EMPTY = [json.dumps({k: v for k, v in notes().items() if k != name}) for name in NEEDED]
DAMAGED = [
    *("", "{", "[]", "null", "\x00", "{}", '{"family": "dcgan"', "[" * 10**5),
    *HALF_EMPTY,
    *(
        json.dumps(notes(**changes))
        for changes in (
            {"family": "../../secret"},
            {"family": ["dcgan"]},
            {"recipe": "../../secret"},
            {"recipe": None},
            {"version": 1},
            {"groups": "HCM"},
            {"groups": [1]},
            {"groups": None},
            {"resolution": 0},
            {"resolution": "16"},
            {"resolution": 10**400},
            {"resolution": float("nan")},
            {"dataset": None},
            {"dataset_repository": 3},
            {"dataset_license": []},
            {"teacher": {}},
            {"objective": []},
            {"learning_rate": "fast"},
            {"adam_betas": [0.5, "large"]},
            {"adam_betas": 0.5},
            {"relative_rates": [0.15]},
            {"relative_rates": {"unet": -1}},
            {"num_train_slices": "many"},
            {"train_patients": ["patient001"]},
            {"train_patients": None},
            {"train_patients": {"patient001": "hash"}},
            {"train_patients": {"patient001": [1]}},
            {"progress": 7},
            {"progress": {"step": 1}},
            {"progress": asdict(Progress(best_loss=float("inf")))},
            {"progress": asdict(Progress("1", 1, 1.0, 1.0))},
            {"environment": {}},
            {"environment": {"packages": [], "python": "3"}},
            {"finished": "yes"},
        )
    ),
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_and_half_empty_notes_are_one_sentence_that_names_the_file(text, run):
    path = run / "training_config.json"
    path.write_text(text)
    for place in (run, run / "best"):
        with pytest.raises(InputError) as caught:
            read_training(place)
        assert str(path) in str(caught.value) and str(caught.value).count("\n") == 0


@pytest.mark.parametrize("text", ["{", "[]", HALF_EMPTY[0], json.dumps(notes(train_patients={"a": 1}))])
def test_whoever_relies_on_damaged_notes_says_so_first(text, run, hub, dataset_dir, tmp_path):
    (run / "training_config.json").write_text(text)
    student = TrainingConfig(
        "ddpm", "distilled", str(dataset_dir), str(tmp_path / "student"), teacher=str(run), num_epochs=1
    )
    for attempt in (
        lambda: generate_images(run, tmp_path / "images", 2),
        lambda: score(tmp_path / "report", model=run, dataset=dataset_dir, num_images=2),
        lambda: push_model(run, "ada/hearts"),
        lambda: train(student),
    ):
        with pytest.raises(InputError, match=f"{run / 'training_config.json'}"):
            attempt()
    assert ("model", "ada/hearts") not in hub.repos and not (tmp_path / "student").exists()
    assert HCMPipeline.from_pretrained(run)  # the images are its own


def test_a_repository_with_damaged_notes_is_loaded_and_not_sampled(run, hub, tmp_path):
    folder = run / "best"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.commit("model", "bob/hearts", files | {"training_config.json": b'{"family": "dcgan"}'})
    assert HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="training_config.json lacks 'recipe'; it is damaged or half-empty"):
        generate_images("bob/hearts", tmp_path / "images", 2)


def test_a_pipeline_without_notes_is_loaded_and_sampled(run, tmp_path):
    (run / "training_config.json").unlink()
    assert read_training(run) == {} and HCMPipeline.from_pretrained(run)
    assert generate_images(run, tmp_path / "images", 2)
