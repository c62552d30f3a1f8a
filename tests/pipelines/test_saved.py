"""Configurations of saved pipelines, which may come from anybody, are checked before anything is built."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from saved_files import INDEX, KINDS, NETWORK, SCHEDULER, UNET, paths_of, weights_of

from hcm_hf.models import MixtureVAE
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import MOST_JSON_BYTES, read_json


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
        files = {path.relative_to(saved / "vae").as_posix(): path.read_bytes() for path in paths_of(saved / "vae")}
        files[file] = json.dumps(json.loads(files[file]) | changes).encode()
        hub.commit("model", "bob/trap", files)
        with pytest.raises(InputError, match=f"^The model in bob/trap cannot be used: .*{message}"):
            HCMPipeline.from_pretrained("bob/trap", cache_dir=tmp_path)


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


def test_the_bounds_leave_room_for_every_published_size(tmp_path):
    """Networks of 256 pixels, the largest that a mixture is used for, and the schedule's longest."""
    MixtureVAE(256, 128, 8, num_components=16).save_pretrained(tmp_path / "network")
    index = {"_class_name": "LatentPipeline", "network": ["hcm_hf.models.mixture_vae", "MixtureVAE"]}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert HCMPipeline.from_pretrained(tmp_path).network.config.sample_size == 256
    with safe_open(weights_of(tmp_path), framework="pt") as file:
        assert "component_factors" in file.keys()
