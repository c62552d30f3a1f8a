"""Select what of a run, a dataset or a Space goes to the Hub: known files and known keys only."""

import ast
import inspect
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import safetensors.torch
import torch
from diffusers import ConfigMixin
from huggingface_hub import constants

from hcm_hf.data.preparation import PreparationReport
from hcm_hf.data.schema import features
from hcm_hf.pipelines.auto import INDEX_FILE, HCMPipeline
from hcm_hf.pipelines.notes import without_paths
from hcm_hf.pipelines.sampling import FINE, OF_DIFFUSION
from hcm_hf.schedulers import SAMPLERS
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import read_name


SPACE_MODELS = "models.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_OF_DIFFUSERS = ("_class_name", "_diffusers_version")
_GENERATOR = (
    *("model", "model_hash", "version", "seed", "class", "classes", *OF_DIFFUSION),
    *("mixed_precision", "dataset_source", "license", "train_patients"),
)


def known_training(training: Mapping) -> dict:
    """The known entries of `training_config.json`, without the paths of the machine."""
    kept, family = without_paths(training), FAMILIES.get(training["family"])
    recipe = family and family.recipes.get(training["recipe"])
    objective = dict.fromkeys(recipe.noted_losses()) if recipe else {}
    sizes = {name: dict.fromkeys(own) for name, own in recipe.sizes.items()} if recipe else {}
    return _known(kept, dict.fromkeys(kept) | {"objective": objective, "sizes": sizes})


def known_preparation(preparation: Mapping) -> dict:
    """The known entries of `preparation.json`."""
    keys = dict.fromkeys(one.name for one in fields(PreparationReport))
    return _known(preparation, keys | {"generator": dict.fromkeys(_GENERATOR)})


def _known(value: Mapping, keys: Mapping[str, Any]) -> dict:
    """The entries whose keys are known; a mapping lists the keys below, None allows everything."""
    return {
        key: one if (below := keys[key]) is None or one is None else _known(one, below)
        for key, one in value.items()
        if key in keys and (keys[key] is None or one is None or isinstance(one, Mapping))
    }


def pipeline_files(folder: Path, pipeline: HCMPipeline) -> dict[str, bytes]:
    """The files of a saved pipeline, which was loaded from `folder`, by path; unchanged if they hold nothing else.

    Raises:
        InputError: if a file is missing, or is a link to another place.
    """
    component = pipeline.network_name
    network = pipeline.components[component]
    networks = (kind for kind in type(network).__mro__ if issubclass(kind, ConfigMixin))  # each writes its arguments
    configs = {
        INDEX_FILE: (*_OF_DIFFUSERS, *(key for key in pipeline.config if key != "_name_or_path")),
        f"{component}/config.json": (*_OF_DIFFUSERS, *(name for kind in networks for name in _arguments(kind))),
    }
    if pipeline.denoises:
        kinds = {type(pipeline.scheduler), *(sampler.scheduler for sampler in SAMPLERS.values())}
        names = (name for kind in kinds for name in _arguments(kind))  # one carries another's
        configs["scheduler/scheduler_config.json"] = (*_OF_DIFFUSERS, *names, *FINE)
    files = {}
    for name, keys in configs.items():
        data = read_regular(folder, name)
        value = json.loads(data)
        files[name] = data if set(value) <= set(keys) else to_json(_known(value, dict.fromkeys(keys)))
    weights = f"{component}/diffusion_pytorch_model.safetensors"
    files[weights] = _weights(read_regular(folder, weights), network)
    return files


def _arguments(function: Callable) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "kwargs"]


def _weights(data: bytes, network: torch.nn.Module) -> bytes:
    """A file of weights, rewritten if it holds anything but the network's."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    state = network.state_dict()
    if set(header) == set(state) and set(metadata) <= {"format"}:
        return data
    return safetensors.torch.save({name: value.contiguous() for name, value in state.items()}, {"format": "pt"})


def read_regular(folder: Path, name: str) -> bytes:
    """Read a file below a folder; links are followed only inside the cache of the Hub's client.

    Raises:
        InputError: if it is missing, or another link.
    """
    path, place = folder / name, folder
    for part in Path(name).parts:
        place = place / part
        if place.is_symlink() and not (place == path and _is_cached(path)):
            raise InputError(f"{place} is a link; a push takes files only, so put the file in its place.")
    if not path.is_file():
        raise InputError(f"{path} is missing; a push needs it.")
    return path.read_bytes()


def _is_cached(path: Path) -> bool:
    """Whether a link leads from a snapshot of the Hub's client to the blobs beside it."""
    snapshots = next((one for one in path.absolute().parents if one.name == "snapshots"), None)
    target = Path(os.path.normpath(path.absolute().parent / os.readlink(path)))
    return snapshots is not None and target.parent == snapshots.parent / "blobs"


def own_columns(split: datasets.Dataset) -> datasets.Dataset:
    """The columns of a prepared dataset; pictures as bytes, without their original paths."""
    columns = features(split.features["group"].names)
    split = split.select_columns(list(columns))
    for column in ("image", "mask"):
        split = split.cast_column(column, datasets.Image(decode=False))

    def without_paths(row: dict) -> dict:
        for column in ("image", "mask"):
            if row[column] is not None and row[column]["bytes"] is None:
                raise InputError(f"The dataset names a file in place of the pixels of '{column}'; prepare it again.")
        return {key: row[key] and {"bytes": row[key]["bytes"], "path": None} for key in ("image", "mask")}

    return split.map(without_paths, keep_in_memory=True, features=split.features).cast(columns)


def space_files(folder: Path) -> dict[str, bytes]:
    """The files of the Space in a folder, the modules that its app imports, and this package's source if needed.

    Raises:
        InputError: if there is no Space, or one of its files is a link to another place.
    """
    if not (folder / constants.REPOCARD_NAME).is_file():
        raise InputError(f"{folder} holds no {constants.REPOCARD_NAME}; name a folder of spaces/.")
    files, imported = {}, set()
    named = [constants.REPOCARD_NAME, "requirements.txt", "packages.txt", SPACE_MODELS]
    metric = f"{folder.resolve().name}.py"  # of the `evaluate` library
    waiting = [name for name in (*named, "app.py", metric) if os.path.lexists(folder / name)]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        inside = _PACKAGE in (folder / name).resolve().parents  # the metric: there is one of it, in the package
        files[name] = (folder / name).read_bytes() if inside else read_regular(folder, name)
        if name.endswith(".py"):
            modules = set(_imports(name, files[name]))
            imported |= modules
            beside = [*(f"{module}.py" for module in modules), f"{name.removesuffix('.py')}.yaml"]
            waiting += [one for one in beside if os.path.lexists(folder / one)]
    if _PACKAGE.name in imported:
        sources = (
            *_PACKAGE.rglob("*.py"),
            *_PACKAGE.glob("model_cards/*.md"),
            *_PACKAGE.glob("model_cards/*.bib"),
            _PACKAGE / "py.typed",
        )
        names = (path.relative_to(_PACKAGE) for path in sources if "__pycache__" not in path.parts)
        files |= {f"{_PACKAGE.name}/{name.as_posix()}": read_regular(_PACKAGE, str(name)) for name in names}
    return files


def served_models(folder: Path) -> list[str]:
    """The models that the Space in a folder serves, from the file that a push writes; none without it.

    Raises:
        InputError: if the file is damaged.
    """
    path = folder / SPACE_MODELS
    try:
        names = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and read_name(name) for name in names):
        raise InputError(f"{path} is no list of names; push the Space again with its `models`.")
    return names


def _imports(name: str, source: bytes) -> Iterator[str]:
    """Top-level names of the modules that a source imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{name} is no Python ({error}); mend it.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def to_json(value: object) -> bytes:
    """Encode JSON as this package writes it."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
