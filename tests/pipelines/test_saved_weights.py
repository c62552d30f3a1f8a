"""Weights that are damaged, of another network or not the Hub's are refused before they are used."""

import hashlib
import json
import math
import shutil

import pytest
import torch
from hub_repositories import Blob
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from saved_files import paths_of, weights_of
from tiny import notes

from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.push import push_model
from hcm_hf.models import LATENT_MODELS
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_sums


def test_a_model_is_saved_over_one_whose_hashes_are_known(saved, tmp_path):
    shutil.copytree(saved / "dcgan", tmp_path / "model")
    write_sums(tmp_path / "model")
    pipeline = HCMPipeline.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        next(pipeline.network.parameters()).add_(1)
    pipeline.save_pretrained(tmp_path / "model")
    again = HCMPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(next(again.network.parameters()), next(pipeline.network.parameters()))


def test_weights_come_in_the_type_that_is_asked_for(model):
    folder = model("vae")
    rewrite(weights_of(folder), lambda state: {name: tensor.half() for name, tensor in state.items()})
    assert HCMPipeline.from_pretrained(folder).network.dtype == torch.float32
    assert HCMPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16).network.dtype == torch.bfloat16


def rewrite(path, changes):
    """Write the weights as `changes` makes them."""
    save_file(changes(load_file(path)), path, {"format": "pt"})


def poison(value):
    def changes(state):
        name = next(name for name, tensor in state.items() if tensor.is_floating_point())
        state[name].view(-1)[-1] = value
        return state

    return changes


DAMAGES = {
    "NaN": (poison(math.nan), "numbers that are not finite"),
    "infinity": (poison(-math.inf), "numbers that are not finite"),
    "too large for float32": (
        lambda state: {
            name: tensor.double() + 1e300 if tensor.is_floating_point() else tensor for name, tensor in state.items()
        },
        "numbers that are not finite",
    ),
    "whole numbers": (
        lambda state: {name: tensor.int() for name, tensor in state.items()},
        "as I32, which is no type",
    ),
    "8 bits": (
        lambda state: {name: tensor.to(torch.int8) for name, tensor in state.items()},
        "as I8, which is no type",
    ),
    "complex numbers": (
        lambda state: {name: tensor.to(torch.complex64) for name, tensor in state.items()},
        "as C64, which is no type",
    ),
    "one missing": (lambda state: dict(list(state.items())[1:]), "of another network .*: it lacks "),
    "one more": (lambda state: state | {"secret": torch.zeros(1)}, "of another network .*: it holds secret"),
    "another shape": (
        lambda state: {name: torch.zeros(*tensor.shape, 1) for name, tensor in state.items()},
        "of shape .*, and .* asks for",
    ),
    "nothing": (lambda state: {}, "of another network .*: it lacks "),
    "much more": (lambda state: state | {"more": torch.zeros(2 * 2**20)}, "bytes, and the configuration asks for"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["vae", "dcgan", "ddpm", "paired"])
def test_weights_that_are_none_of_the_network_are_refused(kind, damage, model):
    folder, (changes, message) = model(kind), DAMAGES[damage]
    rewrite(weights_of(folder), changes)
    with pytest.raises(InputError, match=f"^The model in .* cannot be used: .*{message}") as caught:
        HCMPipeline.from_pretrained(folder)
    assert str(weights_of(folder)) in str(caught.value)


def test_weights_that_are_not_finite_are_neither_sampled_nor_scored_nor_pushed(model, hub, dataset_dir, tmp_path):
    folder = model("dcgan")
    (folder / "training_config.json").write_text(json.dumps(notes()))
    rewrite(weights_of(folder), poison(math.nan))
    for attempt in (
        lambda: generate_images(folder, tmp_path / "images", 2),
        lambda: score(tmp_path / "report", model=folder, dataset=dataset_dir, num_images=2),
        lambda: push_model(folder, "ada/hearts"),
    ):
        with pytest.raises(InputError, match="holds numbers that are not finite"):
            attempt()
    assert not (tmp_path / "images").exists() and not (tmp_path / "report" / "report.json").exists()
    assert ("model", "ada/hearts") not in hub.repos


def test_headers_that_lie_are_refused(model, little_memory):
    path = weights_of(model("dcgan"))
    good = path.read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for data, message in (
        (b"", "damaged or cut short"),
        (good[:100], "damaged or cut short"),
        (good[:-1], "damaged or cut short"),
        ((2**60).to_bytes(8, "little") + good[8:], "a header of 1,152,921,504,606,846,976 bytes"),
        (len(header).to_bytes(8, "little") + header, "damaged or cut short"),
        (b"PK\3\4" + b"\0" * 100, "a header of 67,324,752 bytes; it is damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            HCMPipeline.from_pretrained(path.parents[1])
    path.write_bytes(good)
    assert HCMPipeline.from_pretrained(path.parents[1])


def test_weights_in_pieces_are_refused(model, tmp_path):
    folder = model("dcgan")
    network = LATENT_MODELS["DCGANGenerator"].from_pretrained(folder, subfolder="network")
    weights_of(folder).unlink()
    network.save_pretrained(folder / "network", max_shard_size="1KB")
    with pytest.raises(InputError, match="its weights are not in one file, network/diffusion_pytorch_model"):
        HCMPipeline.from_pretrained(folder)


def plant(hub, folder, repo_id="bob/hearts"):
    """Commit a saved pipeline to a repository; its weights' blob there."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths_of(folder)}
    hub.commit("model", repo_id, files)
    return hashlib.sha256(weights_of(folder).read_bytes()).hexdigest()


def flip(data):
    """The same with one bit of the last number the other way round."""
    return data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]


def test_weights_that_changed_on_their_way_from_the_hub_are_refused(hub, saved, tmp_path):
    sha256 = plant(hub, saved / "dcgan")
    objects = hub.repos["model", "bob/hearts"].objects
    good = objects[sha256]
    objects[sha256] = Blob(flip(good.data), lfs=True)  # a mirror, a proxy: of the right length
    with pytest.raises(InputError, match=r"blobs/[0-9a-f]{64} is damaged: .* delete that file and load") as caught:
        HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)
    objects[sha256] = good
    (blob,) = tmp_path.rglob(f"blobs/{sha256}")
    assert str(blob) in str(caught.value)
    blob.unlink()
    assert HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)


@pytest.mark.parametrize("offline", [False, True])
def test_a_damaged_file_in_the_cache_is_named(offline, hub, saved, tmp_path, monkeypatch):
    sha256 = plant(hub, saved / "vae")
    assert HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)
    (blob,) = tmp_path.rglob(f"blobs/{sha256}")
    blob.write_bytes(flip(blob.read_bytes()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(InputError, match=f"{blob} is damaged: its SHA-256 is not the one that the Hub gives"):
        HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)
    (snapshot,) = tmp_path.rglob("snapshots/*")
    with pytest.raises(InputError, match=f"{blob} is damaged"):
        generate_images(snapshot, tmp_path / "images", 1)


def test_a_file_that_is_shared_by_caches_is_compared_by_its_own_name(hub, saved, tmp_path):
    """The client may keep the blob elsewhere, under another hash, and link to it."""
    sha256 = plant(hub, saved / "vae")
    assert HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)
    (blob,) = tmp_path.rglob(f"blobs/{sha256}")
    blob.rename(tmp_path / ("0" * 64))
    blob.symlink_to(tmp_path / ("0" * 64))
    assert HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path)
