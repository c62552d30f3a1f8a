"""Sampling from and loading of every family: each trained generator is a diffusers pipeline."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, ImagePipelineOutput, ModelMixin, UNet2DModel

from hcm_hf.models import LATENT_MODELS, LatentModel
from hcm_hf.models.paired import use_plain_attention
from hcm_hf.models.unet import SAMPLERS, convert_scheduler
from hcm_hf.pipelines.notes import check_training
from hcm_hf.pipelines.paired import OUTPUT_TYPES, PairedDDPMPipeline
from hcm_hf.pipelines.saved import check_options, load_network, load_scheduler, read_json
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import download, first_line, parse_repository
from hcm_hf.utils.names import CONFIG_FILE


_INDEX_FILE = "model_index.json"
ROOT_CONFIG = "config.json"  # of a repository: the Hub counts its downloads, and those of no other file


class LatentPipeline(DiffusionPipeline):
    """Images from latents in one call of one network: VAE, GAN, DCGAN, AC-GAN and InfoGAN.

    Args:
        network: the decoder or generator.
    """

    def __init__(self, network: LatentModel):
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
    ) -> "LatentPipeline":
        """Load as `HCMPipeline.from_pretrained` does, and take no other family.

        The base class would import what the folder names, and does not load networks of other libraries from the Hub.
        """
        pipeline = HCMPipeline.from_pretrained(
            pretrained_model_name_or_path,
            torch_dtype=torch_dtype,
            device=device,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
        )
        if not isinstance(pipeline, cls):
            kind = type(pipeline).__name__
            raise InputError(f"{pretrained_model_name_or_path} holds a {kind}; load it with HCMPipeline.")
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        class_labels: str | int | Sequence[str | int] | torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Generate images.

        Args:
            batch_size: number of images; with `latents`, their number instead.
            generator: source of randomness; a list gives each image its own.
            latents: (B, latent_dim), to be used instead of random ones.
            class_labels: where the network is conditional, the class of all images or of each; names or indices.
            output_type: "pil" (mode L), "np" (B, H, W, 1) in [0, 1] or "pt" (B, 1, H, W) in [0, 1].
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.

        Raises:
            InputError: if an argument does not fit the network; it names the argument.
        """
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"Unknown output_type '{output_type}'; choose among {', '.join(OUTPUT_TYPES)}.")
        latents = self._latents(batch_size, generator, latents)
        labels = self.network.prepare_class_labels(class_labels, len(latents))

        # A network that is being trained is put back as it was: batch normalisation samples in eval mode.
        training = self.network.training
        self.network.eval()
        try:
            images = self.network.decode(latents, labels)
        finally:
            self.network.train(training)

        images = (images.float() / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _latents(self, batch_size: int, generator, latents: torch.Tensor | None) -> torch.Tensor:
        if latents is None:
            if batch_size < 1:
                raise InputError(f"batch_size is {batch_size}; ask for one image or more.")
            if isinstance(generator, list) and len(generator) != batch_size:
                raise InputError(f"generator has {len(generator)} entries for a batch_size of {batch_size}.")
            return self.network.sample_latents(batch_size, generator)
        if not isinstance(latents, torch.Tensor):
            raise InputError(f"latents are a {type(latents).__name__}; give a torch.Tensor.")
        latent_dim = self.network.config.latent_dim
        if latents.ndim != 2 or len(latents) == 0 or latents.shape[1] != latent_dim:
            raise InputError(f"latents have shape {tuple(latents.shape)}; this model takes (batch, {latent_dim}).")
        return latents.to(self.network.device, self.network.dtype)


class HCMPipeline:
    """Loads any family: `HCMPipeline.from_pretrained` returns the pipeline that a folder or repository holds."""

    def __init__(self):
        raise TypeError("HCMPipeline is not instantiated; use HCMPipeline.from_pretrained.")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
    ) -> DiffusionPipeline:
        """Load a pipeline in eval mode from a folder or from the Hub.

        Classes come from this package's own table: no code named in the files is imported. Weights are safetensors,
        exactly those that the configuration asks for, and finite. What is out of bounds is refused before it takes
        memory, and so is a file in the cache that is no longer what the Hub sent.

        Args:
            pretrained_model_name_or_path: a saved pipeline's folder, a training run's (its best model), or a
                repository of the Hub, `user/name` or `user/name@revision`. A folder goes first.
            torch_dtype: of the weights; by default float32.
            device: where to put it.
            revision: branch, tag or commit of the repository.
            token: for a private repository; by default that of `hf auth login`.
            cache_dir: where repositories are kept; by default where the Hub's client keeps them.

        Raises:
            InputError: if there is no such folder or repository, it holds no pipeline of this package, or one that
                is damaged.
        """
        name = pretrained_model_name_or_path
        folder = find_pipeline(name, revision, token, cache_dir)
        index, saved, network_class = _read_index(folder, name)
        if not any((folder / saved.component).glob("*.safetensors")):
            raise InputError(f"The model in {name} has no safetensors weights; others, as pickles, are not loaded.")
        try:
            check_options({option: index[option] for option in saved.options}, _INDEX_FILE)
            network = load_network(network_class, folder / saved.component, saved.call, torch_dtype)
            return saved.load(folder, index, network).to(device)
        except InputError as error:
            raise InputError(f"The model in {name} cannot be used: {error}") from error
        except Exception as error:  # an odd option ends in any kind of error where the network or its blocks are built
            raise InputError(f"The model in {name} cannot be loaded ({first_line(error)}); copy it again.") from error


def _call_latent(network: LatentModel) -> torch.Tensor:
    return network.decode(torch.zeros(1, network.config.latent_dim), network.prepare_class_labels(None, 1))


def _call_ddpm(network: UNet2DModel) -> torch.Tensor:
    return _call_unet(network, None)


def _call_paired(network: UNet2DModel) -> torch.Tensor:
    return _call_unet(use_plain_attention(network), torch.zeros(1, dtype=torch.long))


def _call_unet(network: UNet2DModel, class_labels: torch.Tensor | None) -> torch.Tensor:
    size = network.config.sample_size
    images = torch.zeros(1, network.config.in_channels, size, size)
    return network(images, torch.zeros((), dtype=torch.long), class_labels=class_labels).sample


def _load_latent(folder: Path, index: dict, network: LatentModel) -> LatentPipeline:
    return LatentPipeline(network)


def _load_ddpm(folder: Path, index: dict, network: UNet2DModel) -> DDPMPipeline:
    if (network.config.in_channels, network.config.out_channels) != (1, 1):
        raise InputError("it makes colour images; this package is for grey ones.")
    return DDPMPipeline(network, load_scheduler(DDPMScheduler, folder / "scheduler"))


def _load_paired(folder: Path, index: dict, network: UNet2DModel) -> PairedDDPMPipeline:
    if (sampler := index["sampler"]) not in SAMPLERS:
        raise InputError(f"{_INDEX_FILE} names the sampler {sampler!r}; choose among {', '.join(SAMPLERS)}.")
    scheduler = load_scheduler(SAMPLERS[sampler].scheduler, folder / "scheduler")
    pipeline = PairedDDPMPipeline(network, scheduler, **{name: index[name] for name in _PAIRED_OPTIONS})
    pipeline.check()
    return pipeline


@dataclass(frozen=True)
class _Saved:
    """How a kind of pipeline is saved.

    Attributes:
        component: the one that is the network.
        networks: its classes by name.
        call: calls the network for one image.
        load: `load(folder, index, network)` builds the pipeline.
        options: what the pipeline itself is told, beside its components.
    """

    component: str
    networks: dict[str, type[ModelMixin]]
    call: Callable[[ModelMixin], torch.Tensor]
    load: Callable[[Path, dict, ModelMixin], DiffusionPipeline]
    options: tuple[str, ...] = ()


_PAIRED_OPTIONS = ("axes", "frequencies", "defaults", "patch_size", "sampler", "num_inference_steps")
# What a saved folder may name.
_PIPELINES = {
    "LatentPipeline": _Saved("network", LATENT_MODELS, _call_latent, _load_latent),
    "DDPMPipeline": _Saved("unet", {"UNet2DModel": UNet2DModel}, _call_ddpm, _load_ddpm),
    "PairedDDPMPipeline": _Saved("unet", {"UNet2DModel": UNet2DModel}, _call_paired, _load_paired, _PAIRED_OPTIONS),
}


def prepare_sampling(
    pipeline: DiffusionPipeline,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
) -> tuple[dict, dict]:
    """Make a pipeline ready to sample as told: a diffusion model gets its scheduler here.

    Args:
        pipeline: of any family.
        class_labels: the class of the images, for a model with classes; by default the model's.
        scheduler: for a diffusion model, a name of `SAMPLERS`; by default the model's own, "ddpm" for the study's.
        num_inference_steps: for a diffusion model; by default the model's own for its own scheduler, otherwise the
            scheduler's in `SAMPLERS`.
        guidance_scale: for a diffusion model with classes; 1, which is none, by default.

    Returns:
        The arguments for a call of `pipeline`, and what to note down beside the images: `class`, for a diffusion model
        `scheduler` and `num_inference_steps`, and with classes `guidance_scale`.

    Raises:
        InputError: if the pipeline has no use for an argument.
    """
    options = {"scheduler": scheduler, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    if "scheduler" not in pipeline.components:
        for argument, value in options.items():
            if value is not None:
                raise InputError(f"--{argument} {value} given, but this model is no diffusion model; leave it out.")
        pipeline.network.prepare_class_labels(class_labels, 1)
        label = pipeline.network.default_class if class_labels is None else class_labels
        return {"class_labels": label}, {"class": label}

    own = pipeline.config.get("sampler", "ddpm")
    name = scheduler or own
    converted, default_steps = convert_scheduler(pipeline.scheduler, name)
    if name == own:
        default_steps = pipeline.config.get("num_inference_steps", default_steps)
    steps = default_steps if num_inference_steps is None else num_inference_steps
    if not 1 <= steps <= converted.config.num_train_timesteps:
        most = converted.config.num_train_timesteps
        raise InputError(f"--num_inference_steps is {steps}; choose from 1 to {most}.")
    noted = {"scheduler": name, "num_inference_steps": steps}
    if isinstance(pipeline, PairedDDPMPipeline):
        pipeline.conditions.allowed(class_labels)
        scale = 1.0 if guidance_scale is None else float(guidance_scale)
        if not 0 <= scale < float("inf"):
            raise InputError(f"--guidance_scale is {scale}; give 0 or more, 1 for none.")
        pipeline.scheduler = converted
        label = " ".join(pipeline.config.defaults.values()) if class_labels is None else class_labels
        arguments = {"num_inference_steps": steps, "class_labels": class_labels, "guidance_scale": scale}
        return arguments, {"class": label} | noted | {"guidance_scale": scale}
    for argument, value in {"class_labels": class_labels, "--guidance_scale": guidance_scale}.items():
        if value is not None:
            raise InputError(f"{argument} {value} given, but this diffusion model has no classes; leave it out.")
    pipeline.scheduler = converted
    return {"num_inference_steps": steps}, {"class": None} | noted


def find_pipeline(
    name: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    argument: str = "--model",
) -> Path:
    """The folder that holds `model_index.json`: `name` itself, in a training run its `best`, or a repository's copy.

    Args:
        name: as in `HCMPipeline.from_pretrained`, like the other arguments.
        revision: of a repository.
        token: for a repository.
        cache_dir: for a repository.
        argument: what the user calls it.

    Raises:
        InputError: if there is none, or the repository cannot be had.
    """
    if (repository := parse_repository(name, revision)) is not None:
        return _download(*repository, token, cache_dir)
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(
            f"{argument} {name} does not exist; name a folder that train.py wrote, or user/name on the Hub."
        )
    for candidate in (folder, folder / "best"):
        if (candidate / _INDEX_FILE).is_file():
            return candidate
    raise InputError(f"{argument} {name} holds no saved pipeline ({_INDEX_FILE}); train it to its first validation.")


def read_training(folder: str | Path) -> dict:
    """What the training run of a model wrote of itself; empty where that is not at hand.

    Args:
        folder: of a training run or a saved pipeline.

    Raises:
        InputError: if that is damaged or half-empty; names the file.
    """
    folder = Path(folder)
    places = (folder, folder / "best", *([folder.parent] if folder.name == "best" else []))
    for path in (place / CONFIG_FILE for place in places):
        if path.is_file():
            return check_training(read_json(path), path)
    return {}


def hash_model(model: str | Path) -> str:
    """The first 16 hexadecimal digits of SHA-256 over a saved pipeline's weights, configurations and options."""
    folder = find_pipeline(model)
    index, saved, _ = _read_index(folder, model)
    digest = hashlib.sha256("".join(json.dumps(index[name], sort_keys=True) for name in saved.options).encode())
    parts = [path for pattern in pipeline_patterns(folder, model) for path in folder.glob(pattern)]
    for path in sorted(parts, key=lambda path: path.relative_to(folder).as_posix()):
        if path.parent != folder and (path.suffix == ".safetensors" or path.name.endswith("config.json")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _download(repo_id: str, revision: str | None, token: str | bool | None, cache_dir: str | Path | None) -> Path:
    """A repository's pipeline in the cache; of one that is none of this package, no more than its index."""
    where = {"token": token, "cache_dir": cache_dir}
    places = ("", "best/")  # of a run that was uploaded as it is
    root = download(repo_id, [place + _INDEX_FILE for place in places], revision=revision, **where)
    place = next((place for place in places if (root / place / _INDEX_FILE).is_file()), None)
    if place is None:
        raise InputError(f"The model {repo_id} holds no pipeline ({_INDEX_FILE}); check the name and the revision.")
    patterns = [place + pattern for pattern in (CONFIG_FILE, *pipeline_patterns(root / place, repo_id))]
    patterns += [ROOT_CONFIG, CONFIG_FILE]
    return (
        download(repo_id, patterns, revision=root.name, **where) / place
    )  # the same commit, whatever came in between


def pipeline_patterns(folder: Path, name: str | Path) -> list[str]:
    """Patterns of the files that make up a saved pipeline, and of no others.

    Args:
        folder: holds its `model_index.json`.
        name: as the user knows it.
    """
    component = _read_index(folder, name)[1].component
    return [_INDEX_FILE, f"{component}/*.json", f"{component}/*.safetensors", "scheduler/*.json"]


def _read_index(folder: Path, name: str | Path) -> tuple[dict, _Saved, type[ModelMixin]]:
    """What a saved pipeline writes of itself, how its kind is saved, and the class of its network."""
    index = read_json(folder / _INDEX_FILE)
    try:
        class_name = index["_class_name"]
        saved = _PIPELINES.get(class_name, _Saved("network", {}, _call_latent, _load_latent))
        network_name = str(index.get(saved.component, (None, None))[1])
        for name_of_option in saved.options:
            index[name_of_option]
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{name}: {_INDEX_FILE} is damaged; copy the model again.") from error
    if network_name not in saved.networks:
        raise InputError(f"{name} holds a {class_name} of {network_name}, which is not a model of this package.")
    return index, saved, saved.networks[network_name]
