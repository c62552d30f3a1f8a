"""The pipeline of the tuned diffusion model and its students: slices with their segmentations, as asked for."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from hcm_hf.models.unet import PAIR_CHANNELS, split_pairs, use_plain_attention
from hcm_hf.pipelines.conditions import Conditions
from hcm_hf.pipelines.saved import LARGEST
from hcm_hf.utils.errors import InputError


OUTPUT_TYPES = ("pil", "np", "pt")


@dataclass
class PairedPipelineOutput(BaseOutput):
    """Slices with their segmentations.

    Attributes:
        images: as `output_type` says: PIL images of mode L, (B, H, W, 1) in [0, 1] or (B, 1, H, W) in [0, 1].
        masks: PIL images of mode L, uint8 (B, H, W) or int64 (B, H, W), with the labels of ACDC: 0 background, 1 right
            ventricle's cavity, 2 myocardium, 3 left ventricle's cavity.
        conditions: what each shows, for example {"group": "HCM", "phase": "ED", "level": "mid"}.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    masks: list[Image.Image] | np.ndarray | torch.Tensor
    conditions: list[dict[str, str | None]]


class PairedDDPMPipeline(DiffusionPipeline):
    """Slices with their segmentations from noise, for a group, phase and part of the heart.

    Args:
        unet: predicts from blocks of noisy pixels of image and mask, with a label.
        scheduler: takes the noise off.
        axes: what can be asked for, a mapping or pairs: see `Conditions`, like the next two.
        frequencies: how often each combination was met in training.
        defaults: what is shown unless something else is asked for.
        patch_size: pixels a side of a block.
        sampler: the name in `SAMPLERS` that the scheduler goes by.
        num_inference_steps: calls of the network by default.
    """

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
        )

    @property
    def conditions(self) -> Conditions:
        """What can be asked for."""
        return Conditions(dict(self.config.axes), self.config.frequencies, self.config.defaults)

    @property
    def sample_size(self) -> int:
        """Pixels a side of the slices."""
        return self.unet.config.sample_size * self.config.patch_size

    def check(self) -> None:
        """See that labels, network and scheduler fit each other: of a saved pipeline, each comes from its own file.

        Raises:
            InputError: says what does not fit.
        """
        self.conditions.check()
        config, network = self.config, self.unet.config
        labels, channels = network.num_class_embeds, PAIR_CHANNELS * config.patch_size**2
        if labels != self.conditions.null_label + 1:
            raise InputError(f"its network takes {labels} labels, its axes make {self.conditions.null_label} and one.")
        if (network.in_channels, network.out_channels) != (channels, channels):
            raise InputError(
                f"its network has {network.in_channels} channels; blocks of {config.patch_size} px have {channels}."
            )
        if self.sample_size > LARGEST["sample_size"]:
            raise InputError(
                f"it makes slices of {self.sample_size} pixels a side; the most are {LARGEST['sample_size']}."
            )
        most = self.scheduler.config.num_train_timesteps
        if not isinstance(config.num_inference_steps, int) or not 1 <= config.num_inference_steps <= most:
            raise InputError(f"its num_inference_steps is {config.num_inference_steps}; it must be from 1 to {most}.")

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        class_labels: str | int | Sequence[str | int] | torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> PairedPipelineOutput | tuple:
        """Generate slices with their segmentations.

        Args:
            batch_size: number of slices.
            generator: source of randomness, of labels that are left open and of noise; a list gives each slice its
                own, so that it does not depend on the others.
            num_inference_steps: calls of the network; by default the model's own number.
            class_labels: what to show, for all slices or a list with one entry each: names such as "HCM ED mid",
                "NOR", "ES apex", or the label's index. What is left open is drawn as it was met in training;
                without a group, HCM.
            guidance_scale: weight w of classifier-free guidance (https://huggingface.co/papers/2207.12598):
                null + w (labelled - null). 1 is none; above it labels are followed more closely, at a second call of
                the network per step and less variety.
            output_type: "pil", "np" or "pt", see `PairedPipelineOutput`.
            return_dict: whether to return a `PairedPipelineOutput` or a tuple of its parts.

        Raises:
            InputError: if an argument does not fit the model; it names the argument.
        """
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"Unknown output_type '{output_type}'; choose among {', '.join(OUTPUT_TYPES)}.")
        labels = self.draw_labels(batch_size, generator, class_labels)
        steps = self.denoise(labels, generator, num_inference_steps, guidance_scale)
        bar = self.progress_bar(steps, total=num_inference_steps or self.config.num_inference_steps)
        pairs = deque(bar, maxlen=1).pop()

        images, masks = split_pairs(pairs.float(), self.config.patch_size)
        images = (images / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images, masks = images.permute(0, 2, 3, 1).cpu().numpy(), masks.byte().cpu().numpy()
        if output_type == "pil":
            images, masks = self.numpy_to_pil(images), [Image.fromarray(mask) for mask in masks]
        conditions = [self.conditions.describe(label) for label in labels.tolist()]
        output = PairedPipelineOutput(images=images, masks=masks, conditions=conditions)
        return output if return_dict else (images, masks, conditions)

    def draw_labels(
        self,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        class_labels: str | int | Sequence[str | int] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The labels (B,) of the slices to make; the arguments are those of a call."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; ask for one image or more.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise InputError(f"generator has {len(generator)} entries for a batch_size of {batch_size}.")
        return self.conditions.draw(class_labels, batch_size, generator).to(self.unet.device)

    def denoise(
        self,
        labels: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
    ) -> Iterator[torch.Tensor]:
        """What a call makes, after each of its steps, as `split_pairs` takes it; the last has no noise left.

        Args:
            labels: of `draw_labels`, (B,).
            generator: as in a call, like the other arguments.
            num_inference_steps: calls of the network.
            guidance_scale: of classifier-free guidance.

        Raises:
            InputError: if an argument does not fit the model.
        """
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        most = self.scheduler.config.num_train_timesteps
        if not 1 <= steps <= most:
            raise InputError(f"num_inference_steps is {steps}; choose from 1 to {most}.")
        if not 0 <= guidance_scale < float("inf"):
            raise InputError(f"guidance_scale is {guidance_scale}; give 0 or more, 1 for none.")
        unet, scheduler = self.unet, self.scheduler
        shape = (len(labels), unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        pairs = randn_tensor(shape, generator=generator, device=unet.device, dtype=unet.dtype)
        scheduler.set_timesteps(steps)
        training = unet.training
        unet.eval()
        try:
            for timestep in scheduler.timesteps:
                with torch.no_grad():  # not around the whole: the caller goes on in between
                    predicted = self._predict(pairs, timestep, labels, guidance_scale).to(pairs.dtype)
                    pairs = scheduler.step(predicted, timestep, pairs, generator=generator).prev_sample
                yield pairs
        finally:
            unet.train(training)

    def _predict(
        self, pairs: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale == 1:
            return self.unet(pairs, timestep, class_labels=labels).sample
        nothing = torch.full_like(labels, self.conditions.null_label)
        both = self.unet(torch.cat([pairs, pairs]), timestep, class_labels=torch.cat([labels, nothing])).sample
        labelled, unlabelled = both.chunk(2)
        return unlabelled + guidance_scale * (labelled - unlabelled)
