"""The loss of the tuned diffusion model, which denoises slices together with their segmentations."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel

from hcm_hf.data.augmentation import augment_batch
from hcm_hf.data.cohort import LEVELS
from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.models.unet import NUM_STRUCTURES, PAIR_CHANNELS, join_pairs
from hcm_hf.pipelines.conditions import count_labels, join_labels
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.schedulers import convert_scheduler, cosine_schedule
from hcm_hf.training.objectives.base import Objective, fixed_noise_loss


class PairedDiffusion(Objective):
    """Joint denoising of slices and their segmentations, conditioned on group, phase and level.

    The v-prediction loss (https://huggingface.co/papers/2202.00512) with min-SNR weights
    (https://huggingface.co/papers/2303.09556). Labels are dropped at random for classifier-free guidance
    (https://huggingface.co/papers/2207.12598). Slices are augmented.

    Args:
        unet: predicts v from blocks of noisy pixels and a label; see `build_paired_unet`.
        vocabulary: what the labels mean.
        label_dropout: share of slices whose label is dropped.
        max_snr: upper bound of the weight, gamma in its paper.
        image_weight: weight of the image; each structure has weight 1.
        augmentation: 1 for the full range of `augment`, 0 for none.
        sampler: the pipeline's sampler, a name of `SAMPLERS`.
        num_inference_steps: the pipeline's number of sampling steps.
    """

    sampled, asks = "unet", True
    label_counts: torch.Tensor

    def __init__(
        self,
        unet: UNet2DModel,
        vocabulary: Vocabulary,
        label_dropout: float = 0.1,
        max_snr: float = 5.0,
        image_weight: float = 1.0,
        augmentation: float = 0.5,
        sampler: str = "sde-dpmsolver++",
        num_inference_steps: int = 20,
    ):
        super().__init__()
        self.unet = unet
        self.vocabulary, self.defaults = vocabulary, vocabulary.defaults
        self.null_label = count_labels(vocabulary.axes)
        self.scheduler = cosine_schedule()  # adds the noise
        self.patch_size = math.isqrt(unet.config.in_channels // PAIR_CHANNELS)
        self.sampler, self.num_inference_steps = sampler, num_inference_steps
        self.label_dropout = label_dropout
        self.max_snr = max_snr
        self.image_weight = image_weight
        self.augmentation = augmentation
        self.register_buffer("label_counts", torch.zeros(self.null_label + 1, dtype=torch.int64))

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the weighted error of v at timesteps that are spread over the batch."""
        images, masks, labels = self.prepare(batch)
        pairs = join_pairs(images, masks, self.patch_size)
        yield "unet", self.loss(pairs, batch.masks, labels, self.draw_noise(batch, pairs), self.draw_timesteps(batch))

    def prepare(self, batch: SliceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return augmented images and masks and their labels, some dropped; count the labels."""
        device = batch.images.device
        labels = find_labels(batch, self.vocabulary)
        self.label_counts += torch.bincount(batch.whole(labels), minlength=len(self.label_counts))
        dropped = batch.draw(lambda n: torch.rand(n, device=device)) < self.label_dropout
        images, masks = augment_batch(batch, self.augmentation)
        return images, masks, labels.masked_fill(dropped, self.null_label)

    def draw_timesteps(self, batch: SliceBatch) -> torch.Tensor:
        """Draw one timestep per slice, (B,): uniform, stratified over the batch (papers/2107.00630, I.1)."""
        num_timesteps, device = self.scheduler.config.num_train_timesteps, batch.images.device

        def spread(n: int) -> torch.Tensor:
            points = (torch.arange(n, device=device) + torch.rand(1, device=device)) / n
            return (points[torch.randperm(n, device=device)] * num_timesteps).long().clamp(max=num_timesteps - 1)

        return batch.draw(spread)

    def draw_noise(self, batch: SliceBatch, pairs: torch.Tensor) -> torch.Tensor:
        """Standard normal noise of the shape of `pairs`."""
        return batch.draw(lambda n: torch.randn(n, *pairs.shape[1:], device=pairs.device))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same with all labels, at fixed noise and at timesteps spread evenly, two for each slice."""
        pairs = join_pairs(batch.images, batch.masks, self.patch_size).repeat(2, 1, 1, 1)
        masks, labels = batch.masks.repeat(2, 1, 1), find_labels(batch, self.vocabulary).repeat(2)
        return fixed_noise_loss(self.loss, self.scheduler, pairs, masks, labels)

    def loss(
        self,
        pairs: torch.Tensor,
        masks: torch.Tensor,
        labels: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Mean over slices, pixels and weighted channels of `v_weights` times v's squared error.

        `pairs` are those of `join_pairs`, as `noise` (B, C, H, W); where a mask (B, H, W) is -1 its channels do not
        count; labels and timesteps are (B,).
        """
        noisy = self.scheduler.add_noise(pairs, noise, timesteps)
        target = self.scheduler.get_velocity(pairs, noise, timesteps)
        error = (self.unet(noisy, timesteps, class_labels=labels).sample.float() - target).square()
        error = by_channel(error).mean((2, 3, 4))
        return (v_weights(self.scheduler, timesteps, self.max_snr) * self.weigh(error, masks)).mean()

    def weigh(self, values: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Weighted mean, (B,), of values for image and structures, (B, 4); where a mask is -1, of the image alone."""
        structures = values[:, 1:].sum(1) * (masks.amin((1, 2)) >= 0)
        return (self.image_weight * values[:, 0] + structures) / (self.image_weight + NUM_STRUCTURES)

    def pipeline(self) -> PairedDDPMPipeline:
        """The pipeline with its sampler; open conditions are drawn with their frequency in training."""
        scheduler, _ = convert_scheduler(self.scheduler, self.sampler)
        counts = self.label_counts[:-1].tolist()
        return PairedDDPMPipeline(
            self.unet,
            scheduler,
            axes=self.vocabulary.axes,
            frequencies=counts,
            defaults=self.defaults,
            patch_size=self.patch_size,
            sampler=self.sampler,
            num_inference_steps=self.num_inference_steps,
        )

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """Eight slices, and their segmentations as shades of grey."""
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        images, masks, _ = pipeline(8, torch.Generator().manual_seed(0), output_type="np", return_dict=False)
        return np.concatenate([images, masks[..., None] / NUM_STRUCTURES])


def by_channel(pairs: torch.Tensor) -> torch.Tensor:
    """Pairs (B, 4 P, H, W) by image and structures, (B, 4, P, H, W), P being the pixels of a block."""
    return pairs.unflatten(1, (PAIR_CHANNELS, -1))


def find_labels(batch: SliceBatch, vocabulary: Vocabulary) -> torch.Tensor:
    """Group, phase and level of each slice as one label, (B,); frames between the phases get the null label."""
    return join_labels(vocabulary.axes, find_answers(batch))


def find_answers(batch: SliceBatch) -> dict[str, torch.Tensor]:
    """What each slice shows by question, as the index of the answer, (B,); below 0 where it is not known."""
    levels = (batch.positions * len(LEVELS)).long().clamp(max=len(LEVELS) - 1)
    return {"group": batch.class_labels, "phase": batch.phases, "level": levels}


def v_weights(scheduler: DDPMScheduler, timesteps: torch.Tensor, max_snr: float) -> torch.Tensor:
    """Min-SNR weights of the squared error of v at timesteps, (B,): min(SNR + 1, max_snr) / (SNR + 1).

    The error of v is SNR + 1 times the error of the pair. So the pair's error has weight 1 at pure noise, more at less
    noise, and at most `max_snr`. The paper's min(SNR, max_snr) (https://huggingface.co/papers/2303.09556, section 3.4)
    has nearly no weight at pure noise, where the anatomy and the brightness are decided.
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    return (max_snr * (1 - alphas)).clamp(max=1)  # SNR + 1 is 1 / (1 - alpha)
