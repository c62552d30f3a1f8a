"""The losses of few-step students of a tuned diffusion model."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel

from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.models.unet import join_pairs, use_plain_attention
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.training.objectives.gan import kernel_distance
from hcm_hf.training.objectives.paired import PairedDiffusion, by_channel, find_labels
from hcm_hf.training.objectives.walls import read_walls


@dataclass(frozen=True)
class Autoguidance:
    """Guidance of a model by a weaker one of its kind: https://huggingface.co/papers/2406.02507.

    Attributes:
        guidance_weight: 1 leaves the model as it is.
        guided_above, guided_below: the noise levels, noise over signal, between which it is guided
            (https://huggingface.co/papers/2404.07724).
    """

    guidance_weight: float = 1.5
    guided_above: float = 0.2
    guided_below: float = 2.0

    def push(self, expected: torch.Tensor, weaker: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Push expected pairs away from the weaker model's, (B, C, H, W), at noise levels (B, 1, 1, 1)."""
        within = (self.guided_above < levels) & (levels < self.guided_below)
        return expected + (self.guidance_weight - 1) * within * (expected - weaker)


class MomentMatching(PairedDiffusion):
    """A few-step student whose noised images have the denoised means that the teacher expects.

    Moment matching, https://huggingface.co/papers/2406.04103 (after algorithm 2). Noise real pairs to z_t at one of a
    student's timesteps, let the student predict the pair x~, and draw z_s ~ q(z_s | z_t, x~) within its step. An
    auxiliary denoiser learns E[x~ | z_s], regularised to the teacher. The student moves along the difference between
    the teacher's and the auxiliary's expectation at z_s. This matches distributions, not the paths of a deterministic
    solver, so the student samples with the chain's own random steps. Gradients are scaled for each image and structure
    as in https://huggingface.co/papers/2311.18828 (equation 8). Both networks use the same z_s.

    The first step starts from pure noise, but at a timestep where the network expects some signal, so that each noise
    gives another pair. A network that expects only noise answers with one mean for all, which students of one or two
    steps hardly unlearn (https://huggingface.co/papers/2404.04057 starts at the same noise). The first step's
    z_s ~ q(z_s | x~) cover all noise from its end to the teacher's last timestep, including more noise than it starts
    from: there anatomy and brightness are decided, which the teacher takes as given at less noise.

    The student predicts what its teacher predicts, v or the pair, and takes a wall thickness if its teacher does.

    Args:
        teacher: a diffusion model with many sampling steps.
        vocabulary: what the labels mean.
        num_inference_steps: the student's number of sampling steps.
        label_dropout, max_snr, image_weight, augmentation: as in `PairedDiffusion`.
        wall_dropout: share of slices whose wall thickness is left open.
        guide: a weaker model, for autoguidance of the teacher; none by default.
        autoguidance: how.
    """

    def __init__(
        self,
        teacher: PairedDDPMPipeline,
        vocabulary: Vocabulary,
        num_inference_steps: int,
        label_dropout: float,
        max_snr: float,
        image_weight: float,
        augmentation: float,
        wall_dropout: float = 0.3,
        guide: PairedDDPMPipeline | None = None,
        autoguidance: Autoguidance | None = None,
    ):
        super().__init__(
            copy_unet(teacher.unet),
            vocabulary,
            label_dropout,
            max_snr,
            image_weight,
            augmentation,
            sampler="ddpm",
            num_inference_steps=num_inference_steps,
        )
        self.scheduler.register_to_config(prediction_type=teacher.scheduler.config.prediction_type)
        self.teacher_scheduler = self.scheduler
        self.scheduler = cut_scheduler(self.scheduler, count_timesteps(self.scheduler, num_inference_steps))
        self.auxiliary = copy_unet(teacher.unet)
        self.teacher, self.guide = teacher, guide  # pipelines are no modules: they are neither trained nor saved here
        self.autoguidance = autoguidance or Autoguidance()
        if guide is not None:
            check_guide(guide, teacher)
        self.mask_scale, self.ranges = teacher.config.mask_scale, teacher.config.ranges
        self.wall_dropout = wall_dropout
        self.label_counts[:-1] = torch.tensor(teacher.config.frequencies)

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the auxiliary denoiser's error on the student's pairs, then update the student."""
        pairs, asked = self.draw_pairs(batch)
        scheduler, device = self.teacher_scheduler, pairs.device
        starts = batch.draw(lambda n: torch.randint(1, self.num_inference_steps + 1, (n,), device=device))
        places = batch.draw(lambda n: torch.rand(n, device=device))
        stops = trailing_timesteps(self.scheduler, self.num_inference_steps).to(device)
        timesteps, end = stops[starts], stops[starts - 1].clamp(min=0)
        first = starts == self.num_inference_steps
        beyond = torch.where(first, scheduler.config.num_train_timesteps, timesteps)
        # From the end of the student's step to t - 1; for the first step, to the teacher's last timestep.
        lower = end + (places * (beyond - end)).long()
        first = first[:, None, None, None]
        noise, fresh = self.draw_noise(batch, pairs), self.draw_noise(batch, pairs)
        noisy = torch.where(first, noise, scheduler.add_noise(pairs, noise, timesteps))
        guess = predict_origin(scheduler, self.unet, noisy, asked, timesteps)
        within = torch.minimum(lower, timesteps - 1)
        again = posterior_sample(scheduler, noisy, guess.detach(), timesteps, within, fresh)
        again = torch.where(first, scheduler.add_noise(guess.detach(), fresh, lower), again)
        with torch.no_grad():
            expected = self.expect(again, asked, lower)

        learnt = predict_origin(scheduler, self.auxiliary, again, asked, lower)
        alphas = scheduler.alphas_cumprod.to(device)[lower]
        weight = (1 / (1 - alphas)).clamp(max=self.max_snr)  # SNR + 1, so that errors of v count evenly
        error = (learnt - guess.detach()).square() + (learnt - expected).square()  # the second regularises
        error = by_channel(error).mean((2, 3, 4))
        yield "auxiliary", (weight * self.weigh(error, batch.masks)).mean()

        with torch.no_grad():
            learnt = predict_origin(scheduler, self.auxiliary, again, asked, lower)
            distance = by_channel((guess - expected).abs()).mean((2, 3, 4), keepdim=True)
            direction = by_channel(learnt - expected) / distance.clamp(min=0.05)
        yield from self.move(batch, pairs, asked, guess, direction)

    def expect(self, noisy: torch.Tensor, asked: Mapping[str, torch.Tensor], timesteps: torch.Tensor) -> torch.Tensor:
        """The clean pairs that the teacher expects of noisy ones, pushed away from what its guide expects."""
        expected = predict_origin(self.teacher_scheduler, self.teacher.unet, noisy, asked, timesteps)
        if self.guide is None:
            return expected
        weaker = predict_origin(self.teacher_scheduler, self.guide.unet, noisy, asked, timesteps)
        alpha, sigma = noise_levels(self.teacher_scheduler, timesteps)
        return self.autoguidance.push(expected, weaker, sigma / alpha)

    def move(
        self,
        batch: SliceBatch,
        pairs: torch.Tensor,
        asked: Mapping[str, torch.Tensor],
        guess: torch.Tensor,
        direction: torch.Tensor,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Update the student, whose predictions are to go against a direction.

        Args:
            batch: the slices.
            pairs: theirs, (B, C, H, W), with masks at the teacher's scale.
            asked: what the networks were told of them.
            guess: the student's predictions of clean pairs, alike.
            direction: from what the teacher expects to what the student makes expect, (B, 4, P, H, W).
        """
        yield "unet", self.weigh((by_channel(guess) * direction).mean((2, 3, 4)), batch.masks).mean()

    def draw_pairs(self, batch: SliceBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Augmented pairs, and what the networks are told of them."""
        images, masks, labels = self.prepare(batch)
        pairs = join_pairs(images, masks, self.patch_size, self.mask_scale)
        if not self.ranges:
            return pairs, {"class_labels": labels}
        dropped = batch.draw(lambda n: torch.rand(n, device=masks.device)) < self.wall_dropout
        return pairs, {
            "class_labels": labels,
            "wall_thickness": read_walls(masks).masked_fill(dropped, torch.nan),
        }

    def pipeline(self) -> PairedDDPMPipeline:
        """The student as a pipeline, for what its teacher can be asked."""
        pipeline = super().pipeline()
        pipeline.register_to_config(mask_scale=self.mask_scale, ranges=self.ranges)
        return pipeline

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Kernel distance between the student's images, for the held-out slices' labels, and these slices.

        As with a GAN, the losses do not rank checkpoints; see `kernel_distance`.
        """
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        known = find_labels(batch, self.vocabulary)
        known = known[known < self.null_label]
        labels = known[torch.linspace(0, len(known) - 1, self.num_compared).round().long()]
        images = [
            pipeline(
                len(part), torch.Generator().manual_seed(index), class_labels=part, output_type="pt", return_dict=False
            )[0]
            for index, part in enumerate(labels.split(64))
        ]
        return kernel_distance(2 * torch.cat(images) - 1, batch.images)


def check_teacher(
    name: str, teacher: DiffusionPipeline, sample_size: int, vocabulary: Vocabulary
) -> PairedDDPMPipeline:
    """A teacher or guide, if its slices, of `sample_size` pixels a side, and its conditions are the dataset's.

    Raises:
        ValueError: if they are not, or it makes no segmentations.
    """
    if not isinstance(teacher, PairedDDPMPipeline):
        raise ValueError(f"the {name} is a {type(teacher).__name__}, and only a PairedDDPMPipeline can teach.")
    if teacher.sample_size != sample_size:
        raise ValueError(f"the {name} makes slices of {teacher.sample_size} px, the dataset's have {sample_size}.")
    if [(axis, tuple(names)) for axis, names in teacher.config.axes] != list(vocabulary.axes.items()):
        own, asked = dict(teacher.config.axes), vocabulary.axes
        raise ValueError(f"the {name}'s conditions are {own}, the dataset's are {asked}.")
    return teacher


def check_guide(guide: PairedDDPMPipeline, teacher: PairedDDPMPipeline) -> None:
    """Raise a `ValueError` unless what a guide predicts can be compared with what its teacher does."""
    for name in ("prediction_type", "mask_scale", "patch_size"):
        own, other = ({**pipeline.config, **pipeline.scheduler.config}[name] for pipeline in (guide, teacher))
        if own != other:
            raise ValueError(f"the guide has {name} {own}, the teacher {other}.")
    if bool(guide.config.ranges) != bool(teacher.config.ranges):
        raise ValueError("one of the guide and the teacher can be asked for a wall thickness, the other cannot.")


def copy_unet(unet: UNet2DModel) -> UNet2DModel:
    """The same network with weights of its own, to be trained."""
    return use_plain_attention(deepcopy(unet).float().train().requires_grad_())


def count_timesteps(scheduler: DDPMScheduler, calls: int) -> int:
    """Count a student's timesteps: noise up to 2.5 times the signal for one step, twice that for each further one."""
    ratios = (1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod
    return int((ratios <= (2.5 * 2.0 ** (calls - 1)) ** 2).sum())


def cut_scheduler(scheduler: DDPMScheduler, num_timesteps: int) -> DDPMScheduler:
    """The same schedule without its last timesteps, so that samplers start at less noise."""
    betas = scheduler.betas[:num_timesteps].tolist()
    return DDPMScheduler.from_config(scheduler.config, num_train_timesteps=num_timesteps, trained_betas=betas)


def trailing_timesteps(scheduler: DDPMScheduler, calls: int) -> torch.Tensor:
    """The timesteps of a sampler with `calls` steps, from -1 (no noise) to the last of training: (calls + 1,)."""
    last = scheduler.config.num_train_timesteps
    return (torch.arange(calls + 1) * (last / calls)).round().long() - 1


def noise_levels(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Alpha and sigma, (B, 1, 1, 1) each, of a noisy pair alpha x + sigma noise; 1 and 0 at timestep -1."""
    alphas = scheduler.alphas_cumprod.to(timesteps.device)
    alphas = torch.cat([alphas, alphas.new_ones(1)])[timesteps][:, None, None, None]  # -1 is the last
    return alphas.sqrt(), (1 - alphas).sqrt()


def predict_origin(
    scheduler: DDPMScheduler,
    unet: UNet2DModel,
    noisy: torch.Tensor,
    asked: Mapping[str, torch.Tensor],
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Predict the clean pair from a noisy one; from v, alpha z - sigma v (papers/2202.00512, appendix D)."""
    predicted = unet(noisy, timesteps, **asked).sample.float()
    if scheduler.config.prediction_type == "sample":
        return predicted
    alpha, sigma = noise_levels(scheduler, timesteps)
    return alpha * noisy - sigma * predicted


def posterior_sample(
    scheduler: DDPMScheduler,
    noisy: torch.Tensor,
    origin: torch.Tensor,
    timesteps: torch.Tensor,
    lower: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """A less noisy pair, z_s ~ q(z_s | z_t, x) for s < t (papers/2107.00630, appendix A.2).

    z_t is `noisy` and x is `origin`, both (B, C, H, W) as the standard normal `noise`; t and s are `timesteps` and
    `lower`, (B,).
    """
    (alpha, sigma), (low_alpha, low_sigma) = (noise_levels(scheduler, steps) for steps in (timesteps, lower))
    ratio = alpha / low_alpha
    variance = sigma.square() - (ratio * low_sigma).square()  # of z_t given z_s
    mean = ratio * low_sigma.square() / sigma.square() * noisy + low_alpha * variance / sigma.square() * origin
    return mean + low_sigma * (variance.clamp(min=0).sqrt() / sigma) * noise
