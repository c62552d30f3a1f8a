import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from tiny import MODELS, build_tiny

import hcm_hf
from hcm_hf.evaluation.report import Report
from hcm_hf.hub.publishable import own_columns, pipeline_files, served_models
from hcm_hf.hub.push import push_dataset, push_model, push_space
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.utils.errors import InputError


RESULTS = Path(__file__).parents[2] / "docs" / "results"
SECRET = "hf_SECRET"
PUSHED = {".gitattributes", "README.md", "config.json", "model_index.json", "samples.png", "training_config.json"}
PUSHED |= {"network/config.json", "network/diffusion_pytorch_model.safetensors"}
TRAINING = {
    "family": "dcgan",
    "recipe": "paper",
    "dataset": "/home/ada/slices",
    "dataset_source": "synthetic",
    "resolution": 16,
    "groups": ["HCM"],
    "num_train_slices": 2,
    "train_patients": {"patient021": ["78de4df6a3acb85b"]},
    "version": "0.1.0",
    "environment": None,
    "progress": {"step": 9, "best_step": 6, "best_loss": 2.5, "seconds": 9.5},
}


@pytest.fixture
def model(tmp_path):
    """A pipeline with its training's notes."""
    folder = tmp_path / "model"
    build_tiny("dcgan").pipeline().save_pretrained(folder)
    (folder / "training_config.json").write_text(json.dumps(TRAINING))
    return folder


def pushed(hub, kind="model", repo_id="ada/hearts"):
    return hub.files(kind, repo_id)


@pytest.mark.parametrize(("family", "recipe"), MODELS)
def test_a_saved_pipeline_is_pushed_as_it_is(family, recipe, tmp_path):
    build_tiny(family, recipe=recipe).pipeline().save_pretrained(tmp_path)
    files = pipeline_files(tmp_path, HCMPipeline.from_pretrained(tmp_path))
    saved = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert files == {name: data for name, data in saved.items() if name != "README.md"}


@pytest.mark.parametrize("path", [*RESULTS.glob("*/*/report.json")])
def test_all_that_a_report_says_is_pushed_and_no_more(path):
    report = json.loads(path.read_text())
    assert Report.from_json(report).to_json() == report
    other = json.loads(path.read_text()) | {"token": SECRET}
    artefact = other.get("paper_compat_artefact", {"rows": {}})  # only a report at the study's scale has one
    for part in (other["dataset"], other["encoder"], other["generator"], other["speed"], artefact):
        part["token"] = SECRET
    for rows in (other["rows"], artefact["rows"], {"": other["encoder"]["quality"]}):
        for row in rows.values():
            next(iter(row.values()))["token"] = SECRET
    assert Report.from_json(other).to_json() == report


def test_keys_and_files_that_nobody_expects_stay_at_home(model, hub, tmp_path):
    for name in (".env", "id_rsa", "credentials.json", "network/token.json", "network/secret.safetensors", "notes.md"):
        (model / name).write_text(SECRET)
    for name in ("model_index.json", "network/config.json", "training_config.json"):
        value = json.loads((model / name).read_text())
        value |= {"token": SECRET, "_name_or_path": f"/home/{SECRET}", "output_dir": SECRET, "api": {"key": SECRET}}
        if name == "training_config.json":
            value["progress"]["key"], value["objective"] = SECRET, {"label_smoothing": 0.1, "key": SECRET}
            value["sizes"] = {"generator": {"base_channels": 4, "key": SECRET}, "key": {"key": SECRET}}
            value["environment"] = {
                "packages": {},
                "processor": "x",
                "cores": 1,
                "torch_threads": 1,
                "HF_TOKEN": SECRET,
            }
            value["environment"] |= {"accelerator": "cpu", "python": "3.11"}
        (model / name).write_text(json.dumps(value))
    weights = model / "network" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(weights)
    noted = torch.tensor(list(SECRET.encode()), dtype=torch.uint8)
    safetensors.torch.save_file(state | {"notes": noted}, weights, {"format": "pt", "key": SECRET})
    with pytest.raises(InputError, match="it holds notes"):
        push_model(model, "ada/hearts")
    assert hub.repos == {}
    safetensors.torch.save_file(state, weights, {"format": "pt", "key": SECRET})
    push_model(model, "ada/hearts")
    files = pushed(hub)
    assert set(files) == PUSHED
    assert not [name for name, data in files.items() if SECRET.encode() in data or b"/home" in data]
    loaded = HCMPipeline.from_pretrained("ada/hearts", cache_dir=tmp_path / "cache").network.state_dict()
    assert all(torch.equal(state[name], loaded[name]) for name in loaded)


@pytest.mark.parametrize(
    "name", ["network/config.json", "network/diffusion_pytorch_model.safetensors", "losses.png", "model_index.json"]
)
def test_links_to_elsewhere_are_refused(name, model, hub, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes((model / name).read_bytes() if (model / name).exists() else SECRET.encode())
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"{name} is a link; a push takes files only"):
        push_model(model, "ada/hearts")
    assert hub.repos == {}


def test_a_folder_that_is_a_link_is_refused(model, hub, tmp_path):
    shutil.move(model / "network", tmp_path / "elsewhere")
    (model / "network").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="network is a link"):
        push_model(model, "ada/hearts")
    assert hub.repos == {}


def test_what_came_from_the_hub_goes_there_again_though_it_is_links(model, hub, tmp_path):
    push_model(model, "ada/hearts")
    snapshot = Path(snapshot_download("ada/hearts", cache_dir=tmp_path / "cache"))
    assert (snapshot / "model_index.json").is_symlink()
    push_model(snapshot, "ada/again")
    before, after = pushed(hub), pushed(hub, repo_id="ada/again")
    assert {name for name in before if before[name] != after[name]} == {"README.md"}
    os.replace(snapshot / "model_index.json", snapshot / "other")
    (snapshot / "model_index.json").symlink_to(model / "model_index.json")
    with pytest.raises(InputError, match="model_index.json is a link"):
        push_model(snapshot, "ada/again")


def test_a_dataset_goes_without_other_columns_paths_and_keys(dataset_dir, hub, tmp_path):
    folder = tmp_path / "slices"
    splits = hcm_hf.load_dataset(dataset_dir)
    for name, split in splits.items():
        split = split.add_column("hospital_number", [SECRET] * len(split))
        split = split.cast_column("image", datasets.Image(decode=False))
        split = split.map(lambda row: {"image": row["image"] | {"path": f"/home/{SECRET}.png"}})
        splits[name] = split.cast_column("image", datasets.Image(mode="L"))
    splits.save_to_disk(folder)
    preparation = json.loads((dataset_dir / "preparation.json").read_text())
    (folder / "preparation.json").write_text(json.dumps(preparation | {"token": SECRET}))
    (folder / "key.pem").write_text(SECRET)
    push_dataset(folder, "ada/slices")
    files = pushed(hub, "dataset", "ada/slices")
    data = {f"data/{split}.parquet" for split in ("train", "validation", "test")}
    assert set(files) == {".gitattributes", "README.md", "preparation.json", *data}
    assert not [name for name, content in files.items() if SECRET.encode() in content]
    loaded = hcm_hf.load_dataset("ada/slices")["train"]
    assert loaded.features == hcm_hf.load_dataset(dataset_dir)["train"].features
    assert np.array_equal(loaded[0]["image"], hcm_hf.load_dataset(dataset_dir)["train"][0]["image"])


def test_a_dataset_that_names_pictures_of_this_machine_is_refused(dataset_dir, tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "private.png")
    split = hcm_hf.load_dataset(dataset_dir)["test"].cast_column("mask", datasets.Image(decode=False))
    split = split.map(lambda row: {"mask": {"bytes": None, "path": str(tmp_path / "private.png")}})
    with pytest.raises(InputError, match="names a file in place of the pixels of 'mask'; prepare it again"):
        own_columns(split.cast_column("mask", datasets.Image(mode="L")))


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", '["hearts"]', '["ada/hearts"', "[null]"])
def test_a_damaged_list_of_models_is_one_sentence(text, tmp_path):
    assert served_models(tmp_path) == []
    (tmp_path / "models.json").write_text('["ada/hearts", "ada/hearts@v1"]')
    assert served_models(tmp_path) == ["ada/hearts", "ada/hearts@v1"]
    (tmp_path / "models.json").write_text(text)
    with pytest.raises(InputError, match="models.json is no list of names; push the Space again with its `models`"):
        served_models(tmp_path)


def test_a_space_takes_its_modules_and_no_other_files(hub, tmp_path):
    folder = tmp_path / "space"
    (folder / ".git").mkdir(parents=True)
    texts = {
        "app.py": "import words\nfrom numbers_of import one\n",
        "words.py": "import app\n",
        "words.yaml": "a: b\n",
    }
    texts |= {"numbers_of.py": "one = 1\n", "requirements.txt": "numpy\n", "README.md": "---\nsdk: gradio\n---\n"}
    others = (".env", ".git/config", "secrets.py", "credentials.txt", "config.yaml", "notes.md", "app.py~", "data.bin")
    for name, text in texts.items() | {(name, SECRET) for name in others}:
        (folder / name).write_text(text)
    push_space(folder, "ada/space")
    assert set(pushed(hub, "space", "ada/space")) == {*texts, ".gitattributes"}
    (folder / "words.py").unlink()
    (folder / "words.py").symlink_to(tmp_path / "space" / "secrets.py")
    with pytest.raises(InputError, match="words.py is a link; a push takes files only"):
        push_space(folder, "ada/space")
    (folder / "app.py").write_text("import )\n")
    with pytest.raises(InputError, match="app.py is no Python"):
        push_space(folder, "ada/space")
