"""Loading of saved networks and schedulers, whose files may come from anybody: checked first, built afterwards.

A configuration may ask for any size. So every number has a bound, the network is built and called once on PyTorch's
`meta` device, which takes no memory, and the header of the weights has to fit it before the weights are read.
"""

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, SchedulerMixin
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hcm_hf.schedulers import SAMPLERS, convert_scheduler
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained, hash_file, read_json


MOST_HEADER_BYTES = 4 * 2**20  # of a file of weights
MOST_OPERATIONS = 1e12  # floating-point operations of one call for one image; 64 px take 1e9
MOST_NUMBERS = 2**28  # in any tensor that a call makes for one image; as float32 1 GiB
# The largest value of a number in a configuration, by its name; all are 0 or more.
LARGEST = {
    **{"sample_size": 1024, "in_channels": 4096, "out_channels": 4096, "patch_size": 32},
    **{"latent_dim": 4096, "hidden_dim": 16_384, "base_channels": 1024, "num_components": 1000},
    **{"max_channels": 4096, "num_labels": 10_000, "condition_dim": 4096},
    **{"block_out_channels": 4096, "layers_per_block": 8, "attention_head_dim": 4096, "norm_num_groups": 4096},
    **{"attn_norm_num_groups": 4096, "dropout": 1, "time_embedding_dim": 16_384, "num_class_embeds": 10_001},
    **{"num_train_timesteps": 10_000, "num_inference_steps": 10_000, "trained_betas": 1, "frequencies": 1e15},
}
_LARGEST_OTHER = 1000
_UNBOUNDED = ("lambda_min_clipped",)  # minus infinity by default
# The largest number of values in a list, by its name.
_LONGEST = {
    **dict.fromkeys(("class_names", "groups", "axes", "defaults"), 1000),
    **dict.fromkeys(("trained_betas", "frequencies"), 10_000),
}
_LONGEST_OTHER = 10
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them
_SHA256 = re.compile("[0-9a-f]{64}")


def check_options(options: Mapping, file: str) -> None:
    """Check the numbers and the lengths of lists in a configuration, from `file`, against their bounds.

    Raises:
        InputError: names the first that is beyond its bound.
    """
    for name, option in options.items():
        values, longest = list(_flat(option)), _LONGEST.get(name, _LONGEST_OTHER)
        if len(values) > longest:
            raise InputError(f"{file} gives {len(values):,} values for {name}; at most {longest:,} are allowed.")
        most = LARGEST.get(name, _LARGEST_OTHER)
        for value in values if name not in _UNBOUNDED else ():
            if isinstance(value, int | float) and not 0 <= value <= most:
                raise InputError(f"{file} gives {name} {str(value)[:20]}; it must be from 0 to {most:,}.")


def _flat(option: object) -> Iterator[object]:
    """The values in lists and objects, at any depth."""
    if isinstance(option, list | dict):
        for value in option.values() if isinstance(option, dict) else option:
            yield from _flat(value)
    else:
        yield option


def load_network(
    network_class: type[ModelMixin], path: Path, call: Callable[[ModelMixin], torch.Tensor], dtype: torch.dtype
) -> ModelMixin:
    """Load a network in eval mode, with exactly the weights that its configuration asks for.

    `path` is the weights', with `config.json` beside it; `call` calls the network once, for one image (1, C, H, W).

    Raises:
        InputError: if a number is beyond its bound, the weights are of another network, damaged, not floating-point
            or not finite, or the network does not make images of its `sample_size`.
    """
    folder = path.parent
    options = read_json(folder / "config.json")
    check_options(options, f"{folder.name}/config.json")
    _check_call(network_class, json.dumps(options), call)  # type: ignore[arg-type]  # mypy: no hash of type[Any]
    network = _build_empty(network_class, options)
    if not path.is_file():
        raise InputError(f"its weights are not in one file, {folder.name}/{path.name}; save it so.")
    wanted = network.state_dict()
    most = MOST_HEADER_BYTES + sum(8 * tensor.numel() for tensor in wanted.values())
    if (size := path.stat().st_size) > most:
        raise InputError(f"{path} has {size:,} bytes, and the configuration asks for {most:,} at most; copy it again.")
    _check_hash(path)
    _check_header(path, wanted)
    with explained(path):
        state = load_file(path)
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{path} holds numbers that are not finite ({name}); train it again, or copy it again.")
    network.load_state_dict(state, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):  # one that is not saved
        raise InputError(f"{folder.name}/config.json asks for blocks that this package does not load.")
    return network


def _build_empty(network_class: type[ModelMixin], options: Mapping) -> ModelMixin:
    """Build a network of this configuration on the meta device, in eval mode."""
    known = inspect.signature(network_class).parameters
    with torch.device("meta"):
        return network_class(**{name: value for name, value in options.items() if name in known}).eval()


@lru_cache(maxsize=256)
@torch.no_grad()
def _check_call(network_class: type[ModelMixin], options: str, call: Callable[[ModelMixin], torch.Tensor]) -> None:
    """Call a network on the meta device, once for each configuration, which comes as JSON.

    Does it make images of its size, at a bearable cost?
    """
    network = _build_empty(network_class, json.loads(options))
    size = network.config.sample_size
    if not isinstance(size, int) or size < 1:
        raise InputError(f"its sample_size is {size}; it must be a whole number of pixels.")
    with torch.device("meta"), _LargestTensor() as largest, FlopCounterMode(display=False) as counter:
        shape = call(network).shape
    if shape[2:] != (size, size):
        raise InputError(f"it makes images of {shape[-1]} pixels a side, its sample_size is {size}.")
    for spent, most, what in (
        (counter.get_total_flops(), MOST_OPERATIONS, "floating-point operations"),
        (largest.size, MOST_NUMBERS, "numbers in one tensor"),
    ):
        if spent > most:
            raise InputError(f"an image would take {spent:.1e} {what}; at most {most:.1e} are allowed.")


class _LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements that a tensor made meanwhile has, as `size`."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = (tensor.numel() for tensor in tree_leaves(made) if isinstance(tensor, torch.Tensor))
            self.size = max(self.size, *sizes, 0)
        return made


def _check_hash(path: Path) -> None:
    """Compare a file in the cache of the Hub's client with the SHA-256 that the Hub gave for it.

    The client checks the length of a download, and nothing of what lies in its cache. It calls a file in LFS by its
    SHA-256, so that this takes no request and works offline. Of a file in git, of a copy on a system without links and
    of a folder from elsewhere, no SHA-256 is known.
    """
    while path.is_symlink():
        path = path.parent / os.readlink(path)
        if path.parent.name == "blobs" and _SHA256.fullmatch(path.name):
            break
    else:
        return
    if hash_file(path) != path.name:
        raise InputError(
            f"{path.resolve()} is damaged: its SHA-256 is not the one that the Hub gives; delete that file and load "
            "the model again."
        )


def _check_header(path: Path, wanted: Mapping[str, torch.Tensor]) -> None:
    """Compare names, shapes and types in the header of a file of weights with those of a network."""
    with explained(path):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise InputError(f"{path} has a header of {length:,} bytes; it is damaged: copy it again.")
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            stored = {name: (tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    for names, others, verb in ((wanted, stored, "lacks"), (stored, wanted, "holds")):
        if odd := [one for one in names if one not in others]:
            raise InputError(
                f"{path} is of another network than {path.parent.name}/config.json asks for: it {verb} {odd[0]}; copy "
                "the model again."
            )
    for name, tensor in wanted.items():
        shape, kind = stored[name]
        if shape != tensor.shape:
            raise InputError(
                f"{path} holds {name} of shape {shape}, and {path.parent.name}/config.json asks for "
                f"{tuple(tensor.shape)}; copy the model again."
            )
        if kind not in (_FLOATS if tensor.is_floating_point() else ("I64",)):
            raise InputError(f"{path} holds {name} as {kind}, which is no type of weights; save it as float32.")


def load_scheduler(scheduler_class: type[SchedulerMixin], folder: Path) -> SchedulerMixin:
    """Load a scheduler from its folder; it works with any sampler that it may be converted to.

    Raises:
        InputError: if a number is beyond its bound, or a step makes anything but numbers.
    """
    options = read_json(folder / "scheduler_config.json")
    check_options(options, f"{folder.name}/scheduler_config.json")
    options.pop("_use_default_values", None)
    _check_steps(scheduler_class, json.dumps(options), folder.name)  # type: ignore[arg-type]  # alike
    return scheduler_class.from_config(options)


@lru_cache(maxsize=256)
def _check_steps(scheduler_class: type[SchedulerMixin], options: str, folder: str) -> None:
    """Take steps with every sampler, once for each configuration, which comes as JSON."""
    scheduler = scheduler_class.from_config(json.loads(options))
    for each in (scheduler, *(convert_scheduler(scheduler, name)[0] for name in SAMPLERS)):
        signal = each.alphas_cumprod
        sample, generator = torch.zeros(1, 1, 8, 8), torch.Generator().manual_seed(0)
        each.set_timesteps(min(4, each.config.num_train_timesteps))
        for timestep in each.timesteps:
            sample = each.step(sample, timestep, sample, generator=generator).prev_sample
        if not (sample.isfinite().all() and (signal >= 0).all() and (signal <= 1).all()):
            raise InputError(f"{folder}/scheduler_config.json is no schedule of noise from 0 to 1; copy it again.")
