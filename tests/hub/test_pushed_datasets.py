"""Datasets in repositories of the Hub."""

import json
from dataclasses import replace

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from pushes import pushed
from tiny import tiny_families

import hcm_hf
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.scoring import score
from hcm_hf.hub.push import push_dataset, push_model
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


def test_a_dataset_goes_to_the_hub_and_back(hub, dataset_dir, tmp_path, monkeypatch):
    url = push_dataset(dataset_dir, "ada/slices")
    assert "/datasets/ada/slices/commit/" in url and hub.repos["dataset", "ada/slices"].private
    assert push_dataset(dataset_dir, "ada/slices") == url
    files = pushed(hub, "ada/slices", "dataset")
    parquet = {f"data/{split}.parquet" for split in ("train", "validation", "test")}
    assert {*parquet, "README.md", "preparation.json"} == set(files) - {".gitattributes"}
    before, after = hcm_hf.load_dataset(dataset_dir), hcm_hf.load_dataset("ada/slices")
    plain = datasets.load_dataset("ada/slices", cache_dir=tmp_path / "plain")
    assert list(after) == list(plain) == ["train", "validation", "test"]
    for split in before:
        assert before[split].features == after[split].features == plain[split].features
        assert after[split].info.license == before[split].info.license == "apache-2.0"
        slices = [Slices(one[split], ("HCM", "NOR")) for one in (before, after, plain)]
        assert slices[0].fingerprint() == slices[1].fingerprint() == slices[2].fingerprint()
        assert torch.equal(slices[0].masks, slices[1].masks)
    with pytest.raises(InputError, match="There is no folder ada/none here; Hub: no dataset ada/none is there"):
        hcm_hf.load_dataset("ada/none")
    hub.commit("dataset", "ada/texts", {"a.csv": b"a,b\n1,2\n"})
    with pytest.raises(InputError, match="dataset ada/texts holds no data/.*parquet"):
        hcm_hf.load_dataset("ada/texts")


def test_a_repository_trains_and_the_card_names_it(hub, dataset_dir, tmp_path, monkeypatch):
    for name, tiny in tiny_families().items():
        monkeypatch.setitem(FAMILIES, name, tiny)
    push_dataset(dataset_dir, "ada/slices")
    config = TrainingConfig("gan", dataset="ada/slices", output_dir=str(tmp_path / "run"), num_epochs=1)
    output_dir = train(config)
    assert train(replace(config, dataset=str(dataset_dir))) == output_dir  # the same slices: the same run
    train(config)
    score(tmp_path / "report", model=output_dir, dataset="ada/slices", num_images=20)
    push_model(output_dir, "ada/hearts", tmp_path / "report")
    data = ModelCard(pushed(hub)["README.md"].decode()).data
    rows = json.loads(pushed(hub)["metrics.json"])["rows"]
    assert data.datasets == "ada/slices" and {one.dataset_type for one in data.eval_results} == {"ada/slices"}
    results = {one.metric_type: one.metric_value for one in data.eval_results}
    assert results["spectrum_distance"] == rows["generated"]["spectrum_distance"]["value"]
    assert results["spectrum_distance_real"] == rows["real"]["spectrum_distance"]["value"]
    assert rows["real"]["ssim_random"]["value"] is None and "ssim_random" not in results  # one patient meets no other


def test_real_patients_stay_private_unless_the_rights_are_claimed(hub, dataset_dir, tmp_path):
    folder = tmp_path / "acdc"
    hcm_hf.load_dataset(dataset_dir).save_to_disk(folder)
    written = json.loads((dataset_dir / "preparation.json").read_text())
    (folder / "preparation.json").write_text(json.dumps(written | {"source": "acdc"}))
    with pytest.raises(InputError, match="holds real patients .* say i_have_the_rights"):
        push_dataset(folder, "ada/acdc", private=False)
    assert ("dataset", "ada/acdc") not in hub.repos
    hub.commit("dataset", "ada/open", {"README.md": b"# Mine"})
    with pytest.raises(
        InputError,
        match="ada/open is public, .* push it as a public one .`public`, in Python private=F",
    ):
        push_dataset(folder, "ada/open")
    assert set(pushed(hub, "ada/open", "dataset")) - {".gitattributes"} == {"README.md"}
    push_dataset(folder, "ada/acdc")
    assert hub.repos["dataset", "ada/acdc"].private
    push_dataset(folder, "ada/published", private=False, i_have_the_rights=True)
    card = pushed(hub, "ada/published", "dataset")["README.md"].decode()
    assert not hub.repos["dataset", "ada/published"].private
    assert "license: cc-by-nc-sa-4.0" in card and "10.1109/TMI.2018.2837502" in card and "synthetic-data" not in card
    with pytest.raises(InputError, match="has no preparation.json"):
        (folder / "preparation.json").unlink()
        push_dataset(folder, "ada/acdc")


def test_a_card_cannot_make_a_dataset_read_other_files(hub, dataset_dir, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("image\nSECRET\n")
    push_dataset(dataset_dir, "ada/slices")
    files = pushed(hub, "ada/slices", "dataset")
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {secret}\n---\n"
    hub.commit("dataset", "eve/slices", files | {"README.md": card.encode()})
    loaded = hcm_hf.load_dataset("eve/slices")["train"]
    assert len(loaded) == len(hcm_hf.load_dataset(dataset_dir)["train"])
    hub.commit("model", "eve/hearts", {"README.md": b"---\ntags: 5\n---\n", "model_index.json": b"{}"})
    with pytest.raises(InputError, match="There is no folder eve/hearts here; Hub: "):
        HCMPipeline.from_pretrained("eve/hearts", cache_dir=tmp_path / "cache")


def test_what_was_pushed_before_goes_with_its_split(hub, dataset_dir):
    push_dataset(dataset_dir, "ada/slices")
    old = hub.files("dataset", "ada/slices")["data/train.parquet"]
    hub.commit("dataset", "ada/slices", {"data/train-00000-of-00001.parquet": old, "data/masks.csv": b"theirs"})
    push_dataset(dataset_dir, "ada/slices")
    files = pushed(hub, "ada/slices", "dataset")
    assert "data/train-00000-of-00001.parquet" not in files and files["data/masks.csv"] == b"theirs"
    assert len(hcm_hf.load_dataset("ada/slices")["train"]) == len(hcm_hf.load_dataset(dataset_dir)["train"])
