"""The pipeline of the tuned diffusion model and its students: slices with their segmentations, as asked for."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor

from hcm_hf.models.latent import Generators
from hcm_hf.models.unet import PAIR_CHANNELS, ConditionedUNet2DModel, split_pairs, use_plain_attention
from hcm_hf.pipelines.auto import INDEX_FILE, call_unet
from hcm_hf.pipelines.conditions import Asked
from hcm_hf.pipelines.denoising import Callback, DenoisingMixin
from hcm_hf.pipelines.pairs import PairedPipeline, PairedPipelineOutput
from hcm_hf.pipelines.sampling import Sampling, one_of
from hcm_hf.pipelines.saved import LARGEST, load_scheduler
from hcm_hf.schedulers import SAMPLERS
from hcm_hf.utils.errors import InputError


class PairedDDPMPipeline(DenoisingMixin, PairedPipeline):
    """Slices with their segmentations from noise, for a group, phase and part of the heart, and for a wall thickness.

    Args:
        unet: predicts from blocks of noisy pixels of image and mask, with a label; a `ConditionedUNet2DModel` with a
            wall thickness too.
        scheduler: takes the noise off.
        axes: what can be asked for, a mapping or pairs: see `Conditions`, like the next two.
        frequencies: how often each combination was met in training.
        defaults: what is shown unless something else is asked for.
        patch_size: pixels a side of a block.
        sampler: the name in `SAMPLERS` that the scheduler goes by.
        num_inference_steps: calls of the network by default.
        mask_scale: of the masks' channels: this where a structure is, and its negative elsewhere.
        ranges: the least and the greatest wall thickness of training, mm; empty where it cannot be asked for.
    """

    network_name = "unet"
    network_classes = {"UNet2DModel": UNet2DModel, "ConditionedUNet2DModel": ConditionedUNet2DModel}
    later_options = {"mask_scale": 1.0, "ranges": {}}
    saved_options = (
        *("axes", "frequencies", "defaults", "patch_size", "sampler", "num_inference_steps"),
        *later_options,
    )
    _callback_tensor_inputs = ["latents", "labels"]

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        axes: Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]] = (),
        frequencies: Sequence[float] = (1.0,),
        defaults: dict[str, str] | None = None,
        patch_size: int = 1,
        sampler: str = "ddpm",
        num_inference_steps: int = 1000,
        mask_scale: float = 1.0,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ):
        super().__init__()
        self.register_modules(unet=use_plain_attention(unet), scheduler=scheduler)  # as it was trained
        self.register_to_config(
            axes=[[name, list(answers)] for name, answers in dict(axes).items()],  # JSON sorts names, not lists
            frequencies=list(frequencies),
            defaults=defaults or {},
            patch_size=patch_size,
            sampler=sampler,
            num_inference_steps=num_inference_steps,
            mask_scale=mask_scale,
            ranges={name: list(ends) for name, ends in (ranges or {}).items()},
        )

    @classmethod
    def _build(cls, folder: Path, index: dict, network: UNet2DModel) -> "PairedDDPMPipeline":
        if (sampler := index["sampler"]) not in SAMPLERS:
            raise InputError(f"{INDEX_FILE} names the sampler {sampler!r}; choose among {', '.join(SAMPLERS)}.")
        scheduler = load_scheduler(SAMPLERS[sampler].scheduler, folder / "scheduler")
        pipeline = cls(network, scheduler, **{name: index[name] for name in cls.saved_options})
        pipeline.check()
        return pipeline

    @staticmethod
    def _call_once(network: UNet2DModel) -> torch.Tensor:
        return call_unet(use_plain_attention(network), torch.zeros(1, dtype=torch.long))

    @property
    def sample_size(self) -> int:
        """See `HCMPipeline.sample_size`."""
        return super().sample_size * self.config.patch_size

    def check(self) -> None:
        """See that labels, network and scheduler fit each other: of a saved pipeline, each comes from its own file.

        Raises:
            InputError: says what does not fit.
        """
        self.check_conditions()
        config, network = self.config, self.unet.config
        labels, channels = network.num_class_embeds, PAIR_CHANNELS * config.patch_size**2
        if labels != self.conditions.null_label + 1:
            raise InputError(f"its network takes {labels} labels, its axes make {self.conditions.null_label} and one.")
        if (network.in_channels, network.out_channels) != (channels, channels):
            raise InputError(
                f"its network has {network.in_channels} channels; blocks of {config.patch_size} px have {channels}."
            )
        if config.ranges and not isinstance(self.unet, ConditionedUNet2DModel):
            raise InputError("its ranges name wall_thickness, which its network does not take.")
        if not 0 < config.mask_scale <= 1:
            raise InputError(f"its mask_scale is {config.mask_scale}; it must be above 0 and at most 1.")
        if self.sample_size > LARGEST["sample_size"]:
            raise InputError(f"its slices have {self.sample_size} px a side; the most are {LARGEST['sample_size']}.")
        most = self.scheduler.config.num_train_timesteps
        if not isinstance(config.num_inference_steps, int) or not 1 <= config.num_inference_steps <= most:
            raise InputError(f"its num_inference_steps is {config.num_inference_steps}; it must be from 1 to {most}.")

    @property
    def sampling_defaults(self) -> Sampling:
        """Those that it was saved with."""
        config = self.config
        return Sampling(scheduler=config.sampler, num_inference_steps=config.num_inference_steps, guidance_scale=1.0)

    @property
    def preview_steps(self) -> int:
        """See `HCMPipeline.preview_steps`."""
        return self.config.num_inference_steps

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        class_labels: str | int | Sequence[str | int] | np.ndarray | torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
        conditions: Mapping[str, str | float] | Sequence[Mapping[str, str | float]] | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> PairedPipelineOutput | tuple:
        """Generate slices with their segmentations.

        Args:
            batch_size: number of slices.
            generator: source of randomness, of open conditions and of noise; a list gives each slice its own, so
                that it does not depend on the others.
            num_inference_steps: sampling steps; by default the model's own number.
            class_labels: what to show as a label, or a list or array with one entry each, of labels or names. A
                string of names, "HCM ED mid", is the old form of `conditions` and will go.
            guidance_scale: weight w of classifier-free guidance (https://huggingface.co/papers/2207.12598):
                null + w (labelled - null). 1 is none; above it labels are followed more closely, at a second call of
                the network per step and less variety.
            output_type: "pil", "np", "pt" or "latent", see `PairedPipelineOutput`.
            return_dict: whether to return a `PairedPipelineOutput` or a tuple of its parts.
            conditions: what to show, {"group": "HCM", "phase": "ED", "level": "mid"}, and of a model with `ranges` a
                wall thickness in mm, {"wall_thickness": 21.0}; for all slices or a list with one entry each. What is
                not named keeps its default, which the group has. Words that are open, or "any", are drawn as often as
                they occurred in training; an open wall thickness is left to the network.
            callback_on_step_end: called after each step, `callback(pipeline, step, timestep, tensors)`; it returns
                the tensors, which it may replace.
            callback_on_step_end_tensor_inputs: the tensors that it gets: "latents", which `decode` shows, and
                "labels".

        Raises:
            InputError: if an argument does not fit the model; it names the argument.
        """
        self._check_output_type(output_type)
        if isinstance(class_labels, str):
            warnings.warn("class_labels as a string is deprecated; give conditions.", FutureWarning, stacklevel=3)
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        sampling = Sampling(num_inference_steps=steps, guidance_scale=guidance_scale)
        sampling.check(self.scheduler.config.num_train_timesteps)
        asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor
        asked = one_of(conditions=conditions, class_labels=class_labels)
        labels = self.draw_labels(batch_size, generator, asked)
        walls, amounts = self.find_walls(batch_size, asked)
        latents = self._denoise(
            {"latents": self._draw_noise(batch_size, generator), "labels": labels},
            lambda timestep, latents, labels: self._predict(latents, timestep, labels, guidance_scale, walls),
            steps,
            generator,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        self.maybe_free_model_hooks()

        shown = [
            self.conditions.describe(label) | amount for label, amount in zip(labels.tolist(), amounts, strict=True)
        ]
        if output_type == "latent":
            output = PairedPipelineOutput(images=latents, masks=None, conditions=shown)
        else:
            output = self._split(latents, shown, output_type, self.config.patch_size, self.config.mask_scale)
        return output if return_dict else (output.images, output.masks, output.conditions)

    def decode(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What latents show: images (B, 1, H, W) in [0, 1] and masks (B, H, W), int64."""
        images, masks = split_pairs(latents.float(), self.config.patch_size, self.config.mask_scale)
        return VaeImageProcessor.denormalize(images), masks

    def _predict(
        self,
        pairs: torch.Tensor,
        timestep: torch.Tensor,
        labels: torch.Tensor,
        guidance_scale: float,
        walls: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if guidance_scale == 1:
            return self._call_network(pairs, timestep, labels, walls)
        nothing = torch.full_like(labels, self.conditions.null_label)
        open_walls = None if walls is None else torch.cat([walls, torch.full_like(walls, torch.nan)])
        both = self._call_network(torch.cat([pairs, pairs]), timestep, torch.cat([labels, nothing]), open_walls)
        labelled, unlabelled = both.chunk(2)
        return unlabelled + guidance_scale * (labelled - unlabelled)

    def _call_network(
        self, pairs: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor, walls: torch.Tensor | None
    ) -> torch.Tensor:
        known = {"wall_thickness": walls} if self.config.ranges else {}
        return self.unet(pairs, timestep, class_labels=labels, **known).sample.to(pairs.dtype)
