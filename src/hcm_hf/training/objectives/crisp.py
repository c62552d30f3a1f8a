"""The loss of the crisp diffusion model: the paired one without the causes of its grain."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from hcm_hf.data.augmentation import augment_batch
from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.models.unet import ConditionedUNet2DModel, join_pairs
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.schedulers import convert_scheduler
from hcm_hf.training.objectives.distillation import predict_origin
from hcm_hf.training.objectives.paired import PairedDiffusion, by_channel, find_labels
from hcm_hf.training.objectives.walls import no_range, ranges_of, read_walls, widen
from hcm_hf.utils.arguments import one_of


# Noise levels, noise over signal, between which the validation loss is told apart.
BANDS = (0.05, 0.1, 0.5, 2.0)


@dataclass(frozen=True)
class Crispness:
    """What a crisp model is trained to do, and how it is sampled.

    Attributes:
        level_mean: of the logarithm of the noise levels (noise over signal) of training, which are normal
            (https://huggingface.co/papers/2206.00364, section 5; the numbers of https://huggingface.co/papers/2312.02696).
        level_deviation: its standard deviation.
        prediction_type: what the network predicts, "v_prediction" or "sample", the pair itself.
        max_weight: upper bound of the weight of the pair's squared error, 1 / sigma^2, with which errors of v count
            evenly.
        mask_scale: of the masks' channels. At 1 masks are decided long before texture
            (https://huggingface.co/papers/2210.06366).
        image_weight: weight of the image; each structure has weight 1.
        label_dropout: share of slices whose label is left open, for classifier-free guidance.
        wall_dropout: share of slices whose wall thickness is left open.
        augmentation: 1 for the full range of `augment`, 0 for none.
        sampler: the pipeline's sampler, a name of `SAMPLERS`.
        num_inference_steps: the pipeline's number of sampling steps.
        stochastic_floor: the noise level below which sampling adds no noise.
        last_sigma: the noise level of the last call of the network.
    """

    level_mean: float = -0.8
    level_deviation: float = 1.6
    prediction_type: Literal["v_prediction", "sample"] = "v_prediction"
    max_weight: float = 2500.0
    mask_scale: float = 0.5
    image_weight: float = 3.0
    label_dropout: float = 0.1
    wall_dropout: float = 0.3
    augmentation: float = 0.5
    sampler: str = "sde-dpmsolver++"
    num_inference_steps: int = 20
    stochastic_floor: float = 0.2
    last_sigma: float = 0.03


class CrispDiffusion(PairedDiffusion):
    """Joint denoising of slices and their segmentations for group, phase, level and wall thickness.

    It differs from `PairedDiffusion` where that leaves grain. Noise levels are normal in their logarithm, so that fine
    ones are not rare, and errors of v count evenly up to a bound. Masks have half the scale. Sampling adds no noise at
    fine levels.

    Args:
        unet: predicts from blocks of noisy pixels, a label and a wall thickness.
        vocabulary: what the labels mean.
        crispness: how.
    """

    wall_range: torch.Tensor
    levels: torch.Tensor

    def __init__(self, unet: ConditionedUNet2DModel, vocabulary: Vocabulary, crispness: Crispness | None = None):
        how = crispness or Crispness()
        super().__init__(
            unet,
            vocabulary,
            how.label_dropout,
            how.max_weight,
            how.image_weight,
            how.augmentation,
            how.sampler,
            how.num_inference_steps,
        )
        one_of("prediction_type", how.prediction_type, ("v_prediction", "sample"))
        self.crispness = how
        self.scheduler.register_to_config(prediction_type=how.prediction_type)
        self.register_buffer("wall_range", no_range())
        alphas = self.scheduler.alphas_cumprod
        self.register_buffer("levels", ((1 - alphas) / alphas).sqrt(), persistent=False)

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the weighted error of the pair at noise levels that are spread over the batch."""
        device = batch.images.device
        labels = find_labels(batch, self.vocabulary)
        self.label_counts += torch.bincount(batch.whole(labels), minlength=len(self.label_counts))
        images, masks = augment_batch(batch, self.crispness.augmentation)
        walls = read_walls(masks)
        widen(self.wall_range, batch.whole(walls))
        chance = batch.draw(lambda n: torch.rand(n, 2, device=device))
        labels = labels.masked_fill(chance[:, 0] < self.crispness.label_dropout, self.null_label)
        walls = walls.masked_fill(chance[:, 1] < self.crispness.wall_dropout, torch.nan)
        pairs = join_pairs(images, masks, self.patch_size, self.crispness.mask_scale)
        noise, timesteps = self.draw_noise(batch, pairs), self.draw_timesteps(batch)
        yield "unet", self.errors(pairs, masks, labels, walls, noise, timesteps).mean()

    def draw_timesteps(self, batch: SliceBatch) -> torch.Tensor:
        """Draw the timesteps of noise levels, (B,): stratified over the batch (papers/2107.00630, I.1)."""
        device = batch.images.device

        def spread(n: int) -> torch.Tensor:
            points = (torch.arange(n, device=device) + torch.rand(1, device=device)) / n
            return self.timesteps_at(points[torch.randperm(n, device=device)])

        return batch.draw(spread)

    def timesteps_at(self, quantiles: torch.Tensor) -> torch.Tensor:
        """The timesteps of the noise levels at quantiles, in [0, 1], of those of training."""
        normal = torch.special.ndtri(quantiles.double().clamp(1e-6, 1 - 1e-6))
        wanted = (self.crispness.level_mean + self.crispness.level_deviation * normal).exp()
        return torch.searchsorted(self.levels.double(), wanted).clamp(max=len(self.levels) - 1)

    def errors(
        self,
        pairs: torch.Tensor,
        masks: torch.Tensor,
        labels: torch.Tensor,
        walls: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """The weighted squared error of each pair, (B,); the arguments are those of `PairedDiffusion.loss`.

        `walls` are in mm, (B,), not a number where they are left open.
        """
        noisy = self.scheduler.add_noise(pairs, noise, timesteps)
        asked = {"class_labels": labels, "wall_thickness": walls}
        predicted = predict_origin(self.scheduler, self.unet, noisy, asked, timesteps)
        error = by_channel((predicted - pairs).square()).mean((2, 3, 4))
        alphas = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return (1 / (1 - alphas)).clamp(max=self.max_snr) * self.weigh(error, masks)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The mean of `errors` with all labels and walls, at fixed noise and levels, two for each slice."""
        return self._validation_errors(batch)[0].mean()

    def validation_details(self, batch: SliceBatch) -> dict[str, float]:
        """The same for each band of noise levels, by the band's name; lower is better."""
        errors, levels = self._validation_errors(batch)
        bands = torch.bucketize(levels, torch.tensor(BANDS, device=levels.device), right=True)
        ends = (0.0, *BANDS, math.inf)
        names = [f"noise {low:g} to {high:g}" for low, high in zip(ends, ends[1:], strict=False)]
        return {name: float(errors[bands == band].mean()) for band, name in enumerate(names) if (bands == band).any()}

    def _validation_errors(self, batch: SliceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors, and the noise levels they are at, (2 B,)."""
        generator = torch.Generator().manual_seed(0)
        pairs = join_pairs(batch.images, batch.masks, self.patch_size, self.crispness.mask_scale).repeat(2, 1, 1, 1)
        noise = torch.randn(pairs.shape, generator=generator).to(pairs)
        order = torch.randperm(len(pairs), generator=generator)
        timesteps = self.timesteps_at(((order + 0.5) / len(order)).to(pairs.device))
        columns = (
            *(pairs, batch.masks.repeat(2, 1, 1), find_labels(batch, self.vocabulary).repeat(2)),
            *(read_walls(batch.masks).repeat(2), noise, timesteps),
        )
        parts = zip(*(column.split(64) for column in columns), strict=True)
        return torch.cat([self.errors(*part) for part in parts]), self.levels[timesteps]

    def pipeline(self) -> PairedDDPMPipeline:
        """The pipeline with its sampler; open conditions are drawn with their frequency in training."""
        scheduler, _ = convert_scheduler(self.scheduler, self.sampler)
        scheduler.register_to_config(
            stochastic_floor=self.crispness.stochastic_floor, last_sigma=self.crispness.last_sigma
        )
        return PairedDDPMPipeline(
            self.unet,
            scheduler,
            axes=self.vocabulary.axes,
            frequencies=self.label_counts[:-1].tolist(),
            defaults=self.defaults,
            patch_size=self.patch_size,
            sampler=self.sampler,
            num_inference_steps=self.num_inference_steps,
            mask_scale=self.crispness.mask_scale,
            ranges=ranges_of(self.wall_range),
        )
