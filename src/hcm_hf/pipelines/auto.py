"""`HCMPipeline`: the base of every pipeline, which loads any family from a folder or from the Hub."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import ModelCard, constants
from PIL import Image

from hcm_hf.models.latent import Generators
from hcm_hf.pipelines.conditions import Conditions
from hcm_hf.pipelines.notes import check_training, without_paths
from hcm_hf.pipelines.sampling import Sampling, one_of
from hcm_hf.pipelines.saved import check_options, load_network
from hcm_hf.utils.devices import find_device
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import SUMS_FILE, check_sums, read_json, write_text
from hcm_hf.utils.hub import download, first_line, parse_repository
from hcm_hf.utils.names import CONFIG_FILE
from hcm_hf.utils.shipped import find_shipped


INDEX_FILE = "model_index.json"
ROOT_CONFIG = "config.json"  # of a repository: the Hub counts its downloads, and those of no other file
_VARIANT = re.compile(r"[\w-]{1,64}")
# The pipelines that a saved folder may name, and the modules beside this one that they are in.
_KINDS = {
    "DDPMPipeline": "ddpm",
    "LatentPipeline": "latent",
    "PairedDDPMPipeline": "paired",
    "PairedLatentPipeline": "paired_latent",
}


class HCMPipeline(DiffusionPipeline):
    """The base of every pipeline: `HCMPipeline.from_pretrained` loads any family, a subclass its own.

    A subclass builds itself in `_build` and calls its network once in `_call_once`.

    Attributes:
        network_name: the component that is the network.
        network_classes: the classes that it may be of, by name.
        saved_options: what the pipeline itself is told, beside its components.
        later_options: those of `saved_options` that folders of before lack, with what they mean there.
        library_name: the library that loads what it saves.
        output_types: the values of a call's `output_type`.
        makes_masks: whether images come with segmentations.
        predicts_noise: whether `unet` predicts the noise of images alone, as `denoising_errors` needs it.
    """

    network_name: ClassVar[str]
    network_classes: ClassVar[Mapping[str, type[ModelMixin]]]
    saved_options: ClassVar[tuple[str, ...]] = ()
    later_options: ClassVar[Mapping[str, Any]] = {}
    library_name: ClassVar[str] = "hcm_hf"
    output_types: ClassVar[tuple[str, ...]] = ("pil", "np", "pt")
    makes_masks: ClassVar[bool] = False
    predicts_noise: ClassVar[bool] = False
    _training: dict | InputError | None = None

    @classmethod
    def _build(cls, folder: Path, index: dict, network: ModelMixin) -> "HCMPipeline":
        """Build the pipeline that a folder holds around its network."""
        raise NotImplementedError(f"{cls.__name__} does not define _build.")

    @staticmethod
    def _call_once(network: ModelMixin) -> torch.Tensor:
        """Call a network for one image."""
        raise NotImplementedError("A pipeline defines _call_once.")

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Generate images; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__.")

    @property
    def sample_size(self) -> int:
        """Pixels a side of the images."""
        return self.components[self.network_name].config.sample_size

    @property
    def conditions(self) -> Conditions:
        """What the images can be asked to show; without axes, nothing."""
        return Conditions({}, (1.0,), {})

    @property
    def num_codes(self) -> tuple[int, int]:
        """Number of values of the categorical code and of continuous codes; 0 for a model without them."""
        return 0, 0

    @property
    def sampling_defaults(self) -> Sampling:
        """How images are sampled by default; None for what a model does not take."""
        return Sampling()

    @property
    def preview_steps(self) -> int | None:
        """Sampling steps that are enough for a preview; None where it takes none."""
        return None

    @property
    def denoises(self) -> bool:
        """Whether this is a diffusion model, with a scheduler and sampling steps."""
        return self.sampling_defaults.scheduler is not None

    @property
    def training_config(self) -> dict:
        """What the training run wrote of itself; empty where that is not at hand.

        Raises:
            InputError: if it is damaged.
        """
        if isinstance(self._training, InputError):
            raise self._training
        return self._training or {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
        torch_dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
        device: str | torch.device = "cpu",
        device_map: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        variant: str | None = None,
    ) -> Self:
        """Load a pipeline in eval mode from a folder or from the Hub.

        Classes come from this package's own table: no code named in the files is imported. Weights are safetensors,
        exactly those that the configuration asks for, and finite. What is out of bounds is refused before it takes
        memory, and so is a file in the cache that is no longer what the Hub sent.

        Args:
            pretrained_model_name_or_path: a saved pipeline's folder, a training run's (its best model), a trained
                model that comes with this package ("hcm-dcgan-64"; `hcm-hf models` lists them), or a repository of
                the Hub, `user/name` or `user/name@revision`. A folder goes first.
            dtype: of the weights, float32 by default; or a mapping from a component's name, or "default", to one.
            torch_dtype: the old name of `dtype`.
            device: where to put it.
            device_map: in place of `device`, a device, or "balanced" for the accelerator if there is one.
            revision: branch, tag or commit of the repository.
            token: for a private repository; by default that of `hf auth login`.
            cache_dir: where repositories are kept; by default where the Hub's client keeps them.
            local_files_only: whether to take a repository from the cache alone.
            variant: of the weights' files: "fp16" loads `diffusion_pytorch_model.fp16.safetensors`.

        Raises:
            InputError: if there is no such model, or it is damaged, of another package or of another class.
        """
        name = pretrained_model_name_or_path
        dtype = one_of(dtype=dtype, torch_dtype=torch_dtype)
        if device_map is not None:
            device = find_device() if device_map == "balanced" else device_map
        folder = find_pipeline(name, revision, token, cache_dir, local_files_only=local_files_only)
        index, kind, network_class = _read_index(folder, name)
        if not issubclass(kind, cls):
            raise InputError(f"{name} holds a {kind.__name__}; load it with HCMPipeline.")
        if variant is not None and not _VARIANT.fullmatch(variant):
            raise InputError(f"variant is {variant!r}; give a word such as fp16.")
        ending = f".{variant}.safetensors" if variant else ".safetensors"
        weights = (folder / kind.network_name / SAFETENSORS_WEIGHTS_NAME).with_suffix(ending)
        if variant is not None and not weights.is_file():
            raise InputError(
                f"You are trying to load the model files of the `variant={variant}`, but no such modeling files are "
                f"available in {name}."
            )
        if not any(weights.parent.glob("*.safetensors")):
            raise InputError(f"The model in {name} has no safetensors weights; others, as pickles, are not loaded.")
        try:
            check_sums(folder, *(path.relative_to(folder).as_posix() for path in pipeline_files(folder, name)))
            index = dict(kind.later_options) | index
            check_options({option: index[option] for option in kind.saved_options}, INDEX_FILE)
            network = load_network(network_class, weights, kind._call_once, _dtype_of(dtype, kind.network_name))
            pipeline = kind._build(folder, index, network).to(device)
        except InputError as error:
            raise InputError(f"The model in {name} cannot be used: {error}") from error
        except Exception as error:  # an odd option ends in any kind of error where the network or its blocks are built
            raise InputError(f"The model in {name} cannot be loaded ({first_line(error)}); copy it again.") from error
        try:
            pipeline._training = read_training(folder)
        except InputError as error:
            pipeline._training = error  # for whoever relies on it: the images are good without
        return pipeline

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, *arguments: Any, **options: Any
    ) -> None:
        """Save the pipeline, with what its training run wrote of itself. See `DiffusionPipeline.save_pretrained`.

        `push_to_hub` does the same. Paths of this machine are left out.

        Raises:
            InputError: if `safe_serialization` is False, or what the run wrote is damaged.
        """
        if not safe_serialization:
            raise InputError("safe_serialization is False; weights are saved as safetensors alone.")
        Path(save_directory, SUMS_FILE).unlink(missing_ok=True)  # of what stood there before
        if self.training_config:  # before the rest, which may push the folder
            path = Path(save_directory, CONFIG_FILE)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(without_paths(self.training_config), indent=2) + "\n")
        super().save_pretrained(os.fspath(save_directory), safe_serialization, *arguments, **options)

    def _upload_folder(self, working_dir: str | os.PathLike, repo_id: str, **options: Any) -> Any:
        """Push a saved pipeline with the licence of the data that it was trained on in its card."""
        path = Path(working_dir, constants.REPOCARD_NAME)
        license_name = self.training_config.get("dataset_license")
        if license_name and path.is_file():
            card = ModelCard.load(path)
            card.data.license = card.data.license or license_name
            card.save(path)
        return super()._upload_folder(working_dir, repo_id, **options)

    def _check_output_type(self, output_type: str) -> None:
        if output_type not in self.output_types:
            raise InputError(f"Unknown output_type '{output_type}'; choose among {', '.join(self.output_types)}.")

    def _check_batch(self, batch_size: int, generator: Generators) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; ask for one image or more.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise InputError(f"generator has {len(generator)} entries for a batch_size of {batch_size}.")

    def _convert(self, images: torch.Tensor, output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
        """Turn images (B, 1, H, W) in [-1, 1] and beyond into what `output_type` says."""
        images = images if output_type == "latent" else images.float()
        return VaeImageProcessor().postprocess(images, output_type)


def call_unet(network: UNet2DModel, class_labels: torch.Tensor | None) -> torch.Tensor:
    """Call a U-Net for one image."""
    size = network.config.sample_size
    images = torch.zeros(1, network.config.in_channels, size, size)
    return network(images, torch.zeros((), dtype=torch.long), class_labels=class_labels).sample


def _dtype_of(dtype: torch.dtype | Mapping[str, torch.dtype] | None, component: str) -> torch.dtype:
    """The type of a component's weights."""
    if isinstance(dtype, Mapping):
        dtype = dtype.get(component, dtype.get("default"))
    if dtype is None:
        return torch.float32
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype is {dtype!r}; give a floating-point type such as torch.float16.")
    return dtype


def find_pipeline(
    name: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    argument: str = "model",
    local_files_only: bool = False,
) -> Path:
    """The folder of `model_index.json`: `name` itself, in a run its `best`, a trained model, or a repository's copy.

    The arguments are those of `HCMPipeline.from_pretrained`; `argument` is what the user calls `name`.

    Raises:
        InputError: if there is none, or the repository cannot be had.
    """
    if (repository := parse_repository(name, revision)) is not None:
        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return _download(*repository, options)
    folder = find_shipped(name, argument)
    for candidate in (folder, folder / "best"):
        if (candidate / INDEX_FILE).is_file():
            return candidate
    raise InputError(f"{argument} {name} holds no saved pipeline ({INDEX_FILE}); train it to its first validation.")


def read_training(folder: str | Path) -> dict:
    """What a training run wrote of itself, from its folder or that of its pipeline; empty where that is not at hand.

    Raises:
        InputError: if that is damaged or half-empty; names the file.
    """
    folder = Path(folder)
    places = (folder, folder / "best", *([folder.parent] if folder.name == "best" else []))
    for path in (place / CONFIG_FILE for place in places):
        if path.is_file():
            check_sums(path.parent, CONFIG_FILE)
            return check_training(read_json(path), path)
    return {}


def hash_model(model: str | Path) -> str:
    """The first 16 hexadecimal digits of SHA-256 over a saved pipeline's weights, configurations and options."""
    folder = find_pipeline(model)
    index, kind, _ = _read_index(folder, model)
    options = (json.dumps(index[name], sort_keys=True) for name in kind.saved_options if name in index)
    digest = hashlib.sha256("".join(options).encode())
    for path in sorted(pipeline_files(folder, model), key=lambda path: path.relative_to(folder).as_posix()):
        if path.parent != folder and (path.suffix == ".safetensors" or path.name.endswith("config.json")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _download(repo_id: str, revision: str | None, options: Mapping) -> Path:
    """A repository's pipeline in the cache; of one that is none of this package, no more than its index."""
    places = ("", "best/")  # of a run that was uploaded as it is
    root = download(repo_id, [place + INDEX_FILE for place in places], revision=revision, **options)
    place = next((place for place in places if (root / place / INDEX_FILE).is_file()), None)
    if place is None:
        raise InputError(f"The model {repo_id} holds no pipeline ({INDEX_FILE}); check the name and the revision.")
    patterns = [place + pattern for pattern in (CONFIG_FILE, *pipeline_patterns(root / place, repo_id))]
    patterns += [ROOT_CONFIG, CONFIG_FILE]
    root = download(repo_id, patterns, revision=root.name, **options)  # the same commit, whatever came in between
    return root / place


def pipeline_files(folder: Path, name: str | Path) -> list[Path]:
    """The files of the pipeline saved in a folder, `name` to the user."""
    return [path for pattern in pipeline_patterns(folder, name) for path in folder.glob(pattern)]


def pipeline_patterns(folder: Path, name: str | Path) -> list[str]:
    """Patterns of the files of the pipeline saved in a folder, `name` to the user, and of no others."""
    component = _read_index(folder, name)[1].network_name
    return [INDEX_FILE, f"{component}/*.json", f"{component}/*.safetensors", "scheduler/*.json"]


def _read_index(folder: Path, name: str | Path) -> tuple[dict, type[HCMPipeline], type[ModelMixin]]:
    """What a saved pipeline writes of itself, its class, and that of its network."""
    index = read_json(folder / INDEX_FILE)
    try:
        class_name = index["_class_name"]
        module = _KINDS.get(class_name)
        kind = vars(import_module(f"hcm_hf.pipelines.{module}"))[class_name] if module else None
        network_name = str(index.get(kind.network_name if kind else "network", (None, None))[1])
        needed = set(kind.saved_options) - set(kind.later_options) if kind else ()
        for option in needed:
            index[option]
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{name}: {INDEX_FILE} is damaged; copy the model again.") from error
    if kind is None or network_name not in kind.network_classes:
        raise InputError(f"{name} holds a {class_name} of {network_name}, which is not a model of this package.")
    return index, kind, kind.network_classes[network_name]
