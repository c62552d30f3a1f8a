"""What a user of diffusers expects of loading and saving any pipeline; after diffusers' own tests of pipelines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import CLASSES, DIFFUSION, call, every_kind
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny import files_of, network_of, notes

from hcm_hf.data.identity import shared_patients
from hcm_hf.pipelines.auto import HCMPipeline, hash_model, read_training
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.utils.errors import InputError


@every_kind
def test_each_class_loads_its_own_from_a_folder_and_from_the_hub(kind, kinds, load, hub, tmp_path):
    expected = call(load(kind)).images
    hub.commit("model", "bob/hearts", files_of(kinds / kind))
    for kwargs in ({}, {"revision": "main", "token": "ada-reads"}, {"local_files_only": True}):
        for name in (kinds / kind, "bob/hearts"):
            loaded = type(load(kind)).from_pretrained(name, cache_dir=tmp_path / "cache", **kwargs)
            assert type(loaded) is CLASSES[kind]
            np.testing.assert_array_equal(call(loaded).images, expected)


@every_kind
def test_a_class_refuses_what_is_not_its_own(kind, kinds):
    for other in {LatentPipeline, DDPMPipeline, PairedDDPMPipeline} - {CLASSES[kind]}:
        sentence = f"holds a {CLASSES[kind].__name__}; load it with HCMPipeline."
        with pytest.raises(InputError, match=sentence):
            other.from_pretrained(kinds / kind)


def test_without_the_hub_only_what_is_in_the_cache_is_loaded(kinds, hub, tmp_path):
    hub.commit("model", "bob/hearts", files_of(kinds / "dcgan"))
    where = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    asked = len(hub.requests)
    with pytest.raises(InputError, match="bob/hearts is not in the cache"):
        HCMPipeline.from_pretrained("bob/hearts", **where)
    assert len(hub.requests) == asked
    HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path / "cache")
    asked = len(hub.requests)
    assert HCMPipeline.from_pretrained("bob/hearts", **where) and len(hub.requests) == asked


@every_kind
@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_weights_have_the_type_that_is_asked_for(kind, load, argument):
    assert load(kind).dtype == torch.float32
    name = load(kind).network_name
    for dtype, expected in [
        (torch.bfloat16, torch.bfloat16),
        ({name: torch.bfloat16, "default": torch.float16}, torch.bfloat16),
        ({"default": torch.float16}, torch.float16),
        ({"vae": torch.float16}, torch.float32),
    ]:
        assert load(kind, **{argument: dtype}).dtype == expected
    images = call(load(kind, **{argument: torch.bfloat16}))
    assert images.images.dtype == np.float32 and np.isfinite(images.images).all()
    assert load(kind).to(torch.float64).dtype == torch.float64


def test_types_that_are_none_are_refused(load):
    with pytest.raises(InputError, match="dtype and torch_dtype are both given; give dtype"):
        load("dcgan", dtype=torch.float16, torch_dtype=torch.float16)
    for dtype in ("half", torch.int64, {"network": "half"}):
        with pytest.raises(InputError, match="give a floating-point type such as torch.float16"):
            load("dcgan", dtype=dtype)


@every_kind
def test_variants_are_loaded_and_wrong_ones_named(kind, kinds, load, tmp_path, hub):
    load(kind, dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    (weights,) = tmp_path.rglob("*.safetensors")
    assert weights.name == "diffusion_pytorch_model.fp16.safetensors"
    hub.commit("model", "bob/half", files_of(tmp_path))
    for name in (tmp_path, "bob/half"):
        loaded = CLASSES[kind].from_pretrained(name, variant="fp16", dtype=torch.float16, cache_dir=tmp_path / "cache")
        assert loaded.dtype == torch.float16
        state = network_of(loaded).state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(weights).items())
    sentence = "You are trying to load the model files of the `variant=fp8`, but no such modeling files are available"
    for name in (tmp_path, kinds / kind):
        with pytest.raises(ValueError, match=sentence):
            HCMPipeline.from_pretrained(name, variant="fp8")
    with pytest.raises(InputError, match="its weights are not in one file, .*/diffusion_pytorch_model.safetensors"):
        HCMPipeline.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="variant is '../x'; give a word such as fp16"):
        HCMPipeline.from_pretrained(tmp_path, variant="../x")


@pytest.mark.parametrize("device_map", ["cpu", "balanced"])
def test_a_map_of_devices_is_that_of_the_one_network(load, device_map):
    expected = torch.accelerator.current_accelerator() if device_map == "balanced" else None
    assert load("dcgan", device_map=device_map).device.type == (expected.type if expected else "cpu")


@every_kind
def test_pickles_are_not_written(kind, load, tmp_path):
    with pytest.raises(InputError, match="safe_serialization is False; weights are saved as safetensors alone"):
        load(kind).save_pretrained(tmp_path / "model", safe_serialization=False)
    assert not (tmp_path / "model").exists()


@every_kind
def test_a_pipeline_is_made_from_the_components_of_another(kind, load):
    pipeline = load(kind)
    options = {name: pipeline.config[name] for name in pipeline.saved_options}
    again = type(pipeline)(**pipeline.components, **options)
    np.testing.assert_array_equal(call(again).images, call(pipeline).images)


@pytest.fixture
def run(kinds, tmp_path):
    """A run with notes that name folders of this machine."""
    shutil.copytree(kinds / "tuned", tmp_path / "run" / "best")
    written = notes(
        family="ddpm",
        recipe="tuned",
        dataset="/home/ada/acdc-16",
        output_dir="/home/ada/run",
        teacher="/home/ada/teacher/best",
        dataset_license="cc-by-nc-sa-4.0",
        token="/home/ada/token",
    )
    (tmp_path / "run" / "training_config.json").write_text(json.dumps(written))
    return tmp_path / "run"


def test_a_loaded_run_keeps_its_notes_where_it_is_saved(run, tmp_path):
    pipeline = HCMPipeline.from_pretrained(run)
    assert pipeline.training_config == read_training(run)
    pipeline.save_pretrained(tmp_path / "copy")
    kept = read_training(tmp_path / "copy")
    assert kept == HCMPipeline.from_pretrained(tmp_path / "copy").training_config
    assert shared_patients(kept["train_patients"], read_training(run)["train_patients"]) == ["patient001"]
    assert kept["dataset"] == "acdc-16" and kept["teacher"] == "teacher" and "/home/ada" not in json.dumps(kept)
    assert hash_model(tmp_path / "copy") == hash_model(run)


def test_notes_and_licence_go_to_the_hub_with_the_pipeline(run, hub, tmp_path):
    pipeline = HCMPipeline.from_pretrained(run)
    pipeline.push_to_hub("ada/hearts", token="ada-writes")
    pipeline.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id="ada/again", token="ada-writes")
    for name in ("ada/hearts", "ada/again"):
        files = hub.files("model", name)
        assert (
            json.loads(files["training_config.json"])["train_patients"] == pipeline.training_config["train_patients"]
        )
        assert b"/home/ada" not in b"".join(data for path, data in files.items() if path.endswith((".json", ".md")))
        assert ModelCard(files["README.md"].decode()).data.license == "cc-by-nc-sa-4.0"
        loaded = PairedDDPMPipeline.from_pretrained(name, cache_dir=tmp_path / "cache")
        assert loaded.training_config["groups"] == ["HCM"]


def test_damaged_notes_are_not_lost_silently(run, tmp_path):
    (run / "training_config.json").write_text("{}")
    pipeline = HCMPipeline.from_pretrained(run)  # the images are its own
    with pytest.raises(InputError, match="training_config.json lacks 'family'"):
        pipeline.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_pipeline_without_a_run_has_no_notes(load, tmp_path):
    assert load("dcgan").training_config == {}
    load("dcgan").save_pretrained(tmp_path)
    assert not (tmp_path / "training_config.json").exists()


def test_the_names_in_files_are_pinned(kinds):
    for kind, pipeline_class in CLASSES.items():
        index = json.loads(Path(kinds, kind, "model_index.json").read_text())
        assert index["_class_name"] == pipeline_class.__name__
        assert index[pipeline_class.network_name][0].split(".")[0] == ("diffusers" if kind in DIFFUSION else "hcm_hf")
