import hashlib
import json
import math
import resource
import shutil
import time

import pytest
import torch
from hub_server import Blob
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import build_tiny, notes

from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.push import push_model
from hcm_hf.models import LATENT_MODELS, MixtureVAE
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import MOST_JSON_BYTES, read_json, write_sums


INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
KINDS = {"vae": ("vae", "tuned"), "gan": ("gan", "paper"), "dcgan": ("dcgan", "paper"), "acgan": ("acgan", "paper")}
KINDS |= {"infogan": ("infogan", "paper"), "ddpm": ("ddpm", "paper"), "paired": ("ddpm", "tuned")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny saved pipeline of a kind."""
    folder = tmp_path_factory.mktemp("saved")
    for kind, (family, recipe) in KINDS.items():
        build_tiny(family, recipe=recipe).pipeline().save_pretrained(folder / kind)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    """A copy of one, with other values in some of its files."""

    def copy(kind, file=INDEX, **changes):
        folder = shutil.copytree(saved / kind, tmp_path / kind)
        change(folder / file, **changes)
        return folder

    return copy


@pytest.fixture
def little_memory():
    """Within the test this process gets half a GiB more than it has, and ten seconds."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    started = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - started < 10


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_of(folder):
    (path,) = folder.rglob("*.safetensors")
    return path


def rewrite(path, changes):
    """Write the weights as `changes` makes them."""
    save_file(changes(load_file(path)), path, {"format": "pt"})


NETWORK, UNET = "network/config.json", "unet/config.json"
HUGE = [
    # Buffers that are made when the network is built, 12 to 256 GB.
    ("vae", NETWORK, {"num_components": 10**9}, "gives num_components 1000000000; it must be from 0 to 1,000"),
    ("vae", NETWORK, {"latent_dim": 3000, "num_components": 1000}, "of shape .* asks for"),
    ("vae", NETWORK, {"latent_dim": 10**5}, "gives latent_dim 100000; it must be from 0 to 4,096"),
    ("vae", NETWORK, {"sample_size": 2**30}, "gives sample_size 1073741824"),
    ("gan", NETWORK, {"hidden_dim": 10**8}, "gives hidden_dim 100000000"),
    ("gan", NETWORK, {"hidden_dim": 16_384, "sample_size": 1024}, "of shape .* asks for"),
    ("gan", NETWORK, {"sample_size": 10**5}, "gives sample_size 100000"),
    ("dcgan", NETWORK, {"base_channels": 1e30}, "gives base_channels 1e"),
    ("dcgan", NETWORK, {"sample_size": 2**5000}, "gives sample_size"),
    ("acgan", NETWORK, {"class_names": [str(i) for i in range(10**5)]}, "gives 100,000 values for class_names"),
    ("infogan", NETWORK, {"num_continuous": 10**9}, "gives num_continuous 1000000000"),
    ("ddpm", UNET, {"layers_per_block": 10**6}, "gives layers_per_block 1000000; it must be from 0 to 8"),
    ("ddpm", UNET, {"block_out_channels": [8] * 10**6}, "gives 1,000,000 values for block_out_channels"),
    ("ddpm", UNET, {"block_out_channels": [4096, 4096], "norm_num_groups": 8}, "operations; at most"),
    (
        "ddpm",
        UNET,
        {"block_out_channels": [512, 512], "norm_num_groups": 8},
        "is of another network than unet/config.json",
    ),
    ("ddpm", UNET, {"sample_size": 10**6}, "gives sample_size 1000000; it must be from 0 to 1,024"),
    ("ddpm", UNET, {"sample_size": 1024}, "an image would take .* at most"),  # its attention
    ("paired", UNET, {"sample_size": 512}, "numbers in one tensor; at most"),
    ("ddpm", UNET, {"downsample_padding": 10**9}, "gives downsample_padding 1000000000"),
    ("ddpm", UNET, {"downsample_padding": 999}, "Sizes of tensors must match"),
    ("paired", UNET, {"num_class_embeds": 10**9}, "gives num_class_embeds 1000000000"),
    ("ddpm", SCHEDULER, {"num_train_timesteps": 10**9}, "gives num_train_timesteps 1000000000"),
    ("paired", SCHEDULER, {"num_train_timesteps": 10**9}, "gives num_train_timesteps 1000000000"),
    ("ddpm", SCHEDULER, {"trained_betas": [0.1] * 10**5}, "gives 100,000 values for trained_betas"),
    (
        "paired",
        INDEX,
        {"axes": [[f"axis{i}", [f"{i}-{j}" for j in range(100)]] for i in range(4)]},
        "100000000 labels",
    ),
    ("paired", INDEX, {"axes": [[f"axis{i}", ["a"]] for i in range(10**4)]}, "gives 20,000 values for axes"),
    ("paired", INDEX, {"frequencies": [1] * 10**6}, "gives 1,000,000 values for frequencies"),
    ("paired", INDEX, {"num_inference_steps": 10**9}, "gives num_inference_steps 1000000000"),
    ("paired", INDEX, {"patch_size": 10**6}, "gives patch_size 1000000"),
]


@pytest.mark.parametrize(("kind", "file", "changes", "message"), HUGE)
def test_what_asks_for_much_is_refused_quickly_and_in_little_memory(
    kind, file, changes, message, model, little_memory
):
    with pytest.raises(InputError, match=f"^The model in .* cannot be .*{message}"):
        HCMPipeline.from_pretrained(model(kind, file, **changes))


def test_one_from_the_hub_is_refused_too(saved, hub, tmp_path, little_memory):
    for file, changes, message in (
        (NETWORK, {"latent_dim": 3000, "num_components": 1000}, r"holds .* of shape .* asks for"),
        (NETWORK, {"num_components": 10**9}, "network/config.json gives num_components 1000000000"),
    ):
        files = {path.relative_to(saved / "vae").as_posix(): path.read_bytes() for path in files_of(saved / "vae")}
        files[file] = json.dumps(json.loads(files[file]) | changes).encode()
        hub.commit("model", "bob/trap", files)
        with pytest.raises(InputError, match=f"^The model in bob/trap cannot be used: .*{message}"):
            HCMPipeline.from_pretrained("bob/trap", cache_dir=tmp_path)


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


ODD = [
    ("dcgan", NETWORK, {"sample_size": 16.0}, "its sample_size is 16.0; it must be a whole number"),
    ("gan", NETWORK, {"sample_size": -16}, "gives sample_size -16; it must be from 0 to"),
    ("gan", NETWORK, {"latent_dim": math.nan}, "gives latent_dim nan"),
    ("acgan", NETWORK, {"default_class": "HOCM"}, "default_class is 'HOCM'; it must be one of class_names"),
    ("acgan", NETWORK, {"class_names": ["HCM"] * 5}, "no two of them the same"),
    ("infogan", NETWORK, {"num_categories": 8}, "latent_dim is 9; it must hold 8 categories"),
    ("ddpm", UNET, {"sample_size": None}, "its sample_size is None"),
    ("ddpm", UNET, {"sample_size": [16, 16]}, r"its sample_size is \[16, 16\]"),
    ("ddpm", UNET, {"time_embedding_type": "clock"}, "cannot be loaded"),
    ("ddpm", UNET, {"norm_eps": math.inf}, "gives norm_eps inf"),
    ("ddpm", SCHEDULER, {"beta_end": 5}, "no schedule of noise from 0 to 1"),
    ("ddpm", SCHEDULER, {"beta_end": math.nan}, "gives beta_end nan"),
    ("ddpm", SCHEDULER, {"trained_betas": [0.1, -0.1] * 500}, "gives trained_betas -0.1"),
    ("ddpm", SCHEDULER, {"prediction_type": "everything"}, "cannot be loaded"),
    ("ddpm", SCHEDULER, {"timestep_spacing": "wide"}, "cannot be loaded"),
    ("ddpm", SCHEDULER, {"variance_type": "learned"}, "cannot be loaded"),
    ("paired", SCHEDULER, {"algorithm_type": "magic"}, "cannot be loaded"),
    ("paired", INDEX, {"sampler": "euler"}, "names the sampler 'euler'; choose among ddpm, ddim"),
    ("paired", INDEX, {"sampler": ["ddpm"]}, "cannot be loaded"),
    ("paired", INDEX, {"num_inference_steps": 0}, "its num_inference_steps is 0; it must be from 1 to 1000"),
    ("paired", INDEX, {"num_inference_steps": 2.5}, "its num_inference_steps is 2.5"),
    ("paired", INDEX, {"frequencies": [1.0] * 29}, "it has 29 frequencies for 30 labels"),
    ("paired", INDEX, {"frequencies": [1.0] * 29 + [math.inf]}, "gives frequencies inf"),
    ("paired", INDEX, {"frequencies": [1.0] * 29 + [-1]}, "gives frequencies -1"),
    ("paired", INDEX, {"frequencies": ["1"] * 30}, "its frequencies must be finite numbers"),
    ("paired", INDEX, {"defaults": {"group": "HOCM"}}, "its default group is 'HOCM'"),
    ("paired", INDEX, {"defaults": {"wall": "thick"}}, "its default wall is 'thick'"),
    (
        "paired",
        INDEX,
        {"axes": [["group", ["HCM", "NOR"]]], "frequencies": [1, 1]},
        "takes 31 labels, its axes make 2",
    ),
    ("paired", INDEX, {"axes": [["group", ["HCM", "HCM"]]], "frequencies": [1, 1]}, "two of them are the same"),
    ("paired", INDEX, {"axes": [["group", ["any", "NOR"]]], "frequencies": [1, 1]}, "its axes hold 'any'"),
    ("paired", INDEX, {"axes": [["group", ["mild HCM", "NOR"]]], "frequencies": [1, 1]}, "its axes hold 'mild HCM'"),
    ("paired", INDEX, {"axes": [["group", []]], "frequencies": []}, "its axes lack answers"),
    ("paired", INDEX, {"axes": "group"}, "cannot be loaded"),
    ("paired", INDEX, {"patch_size": 2}, "its network has 4 channels; blocks of 2 px have 16"),
]


@pytest.mark.parametrize(("kind", "file", "changes", "message"), ODD)
def test_options_that_make_no_sense_are_refused_when_loaded(kind, file, changes, message, model):
    with pytest.raises(InputError, match=f"^The model in .*{message}"):
        HCMPipeline.from_pretrained(model(kind, file, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_is_what_was_saved_and_costs_no_randomness(kind, saved):
    before = torch.get_rng_state()
    pipeline = HCMPipeline.from_pretrained(saved / kind)
    assert torch.equal(before, torch.get_rng_state())
    network = next(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    state = load_file(weights_of(saved / kind))
    assert state.keys() == network.state_dict().keys() and not network.training
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    config = read_json(saved / kind / f"{weights_of(saved / kind).parent.name}/config.json")
    assert {name: config[name] for name in config if name in network.config and name[0] != "_"} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in network.config.items()
        if name[0] != "_"
    }


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


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"7", b"\xff\xfe{}", b"[" * 10**5, b'{"a": ' * 5000, b'{"a": %s}' % (b"9" * 10**4)],
)
@pytest.mark.parametrize(("kind", "file"), [("paired", INDEX), ("paired", SCHEDULER), ("dcgan", NETWORK)])
def test_damaged_configurations_are_named(kind, file, data, model):
    folder = model(kind)
    (folder / file).write_bytes(data)
    with pytest.raises(InputError, match=f"{file}.* damaged"):
        HCMPipeline.from_pretrained(folder)


def test_missing_and_endless_configurations_are_named(model, little_memory):
    folder = model("dcgan")
    with open(folder / NETWORK, "wb") as file:
        file.truncate(2**40)  # no bytes on the disk
    with pytest.raises(InputError, match=f"config.json is larger than {MOST_JSON_BYTES // 2**20} MiB"):
        HCMPipeline.from_pretrained(folder)
    (folder / NETWORK).unlink()
    with pytest.raises(InputError, match="Cannot read .*network/config.json"):
        HCMPipeline.from_pretrained(folder)


def test_unknown_options_are_left_out(model, saved):
    """As those of a later version of diffusers, or of one that wants to quantise."""
    folder = model("ddpm", UNET, quantization_config={"quant_method": "bitsandbytes"}, auto_map={"x": "y"})
    assert "quantization_config" not in HCMPipeline.from_pretrained(folder).unet.config


def plant(hub, folder, repo_id="bob/hearts"):
    """Commit a saved pipeline to a repository; its weights' blob there."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_of(folder)}
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


def test_the_bounds_leave_room_for_every_published_size(tmp_path):
    """Networks of 256 pixels, the largest that a mixture is used for, and the schedule's longest."""
    MixtureVAE(256, 128, 8, num_components=16).save_pretrained(tmp_path / "network")
    index = {"_class_name": "LatentPipeline", "network": ["hcm_hf.models.mixture_vae", "MixtureVAE"]}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert HCMPipeline.from_pretrained(tmp_path).network.config.sample_size == 256
    with safe_open(weights_of(tmp_path), framework="pt") as file:
        assert "component_factors" in file.keys()
