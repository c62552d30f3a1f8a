"""Every loss of the study's families, in one file: reading it is reading the comparison.

An objective holds a family's networks. It never sees an optimizer, a step number, a path or a device's name: the loop
in `training.py` steps the named network's optimizer each time `losses` yields, before it lets `losses` go on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from diffusers import DDPMScheduler, ModelMixin, UNet2DModel
from torch import nn
from torch.nn import functional as F

from hcm_hf.data.augmentation import augment_batch
from hcm_hf.data.differentiable_augmentation import NUM_CHANGES, change_images
from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import VAE, EncoderOutput, InfoGANGenerator, LatentModel, SliceEncoder
from hcm_hf.models.unet import convert_scheduler
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline


Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits and classes: a scalar, lower is better


class Objective(nn.Module):
    """What a family is trained to do; a subclass's children are its networks.

    Attributes:
        sampled: name of the network that is wanted in the end. EMA follows it and the pipeline holds it.
    """

    sampled: str

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield `(network name, scalar loss)` in the order of the paper's algorithm; gradients reach that network."""
        raise NotImplementedError(f"{type(self).__name__} does not define losses.")

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """A deterministic scalar on held-out slices, lower is better."""
        raise NotImplementedError(f"{type(self).__name__} does not define validation_loss.")

    def pipeline(self) -> HCMPipeline | ModelMixin:
        """The thing to save, a family's diffusers pipeline to sample from; the networks stay as they are."""
        raise NotImplementedError(f"{type(self).__name__} does not define pipeline.")

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """16 images (16, H, W, 1) in [0, 1] to watch training by, beside held-out slices; quick to make."""
        generator = torch.Generator().manual_seed(0)
        return self.pipeline()(batch_size=16, generator=generator, output_type="np").images


class VariationalAutoencoder(Objective):
    """The negative evidence lower bound, https://huggingface.co/papers/1312.6114 (equation 3 there and in the study).

    Args:
        vae: encodes images to moments and decodes latents to images.
    """

    sampled = "vae"

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the bound with one latent drawn for each image (equation 10)."""
        yield "vae", self.loss(batch.images, batch.draw(self.vae.sample_latents))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same at fixed noise; in nats per image."""
        noise = self.vae.sample_latents(len(batch), torch.Generator().manual_seed(0))
        return self.loss(batch.images, noise)

    def loss(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Negative evidence lower bound of images (B, 1, H, W) at noise (B, latent_dim); the mean, in nats."""
        mean, log_variance = (moment.float() for moment in self.vae.encode(images))
        reconstructions = self.vae.decode(mean + noise * torch.exp(log_variance / 2))
        return (gaussian_nll(reconstructions, images) + kl_divergence(mean, log_variance)).mean()

    def pipeline(self) -> LatentPipeline:
        """The VAE as a pipeline; `pipeline.network` encodes too."""
        return LatentPipeline(self.vae)


@dataclass(frozen=True)
class Game:
    """The rules that a generator and a discriminator play by.

    Attributes:
        label_smoothing: real images are labelled 1 - label_smoothing (https://huggingface.co/papers/1606.03498, 3.4).
        penalty_per_pixel: weight of `gradient_penalty`, the gamma of its paper, for each pixel of an image.
        penalty_interval: the penalty is taken in one of so many steps, at random, and counts as many times there
            (lazy regularisation, https://huggingface.co/papers/1912.04958, appendix B).
        augmentation: 1 for the full range of `change_images`, through which the discriminator then sees real and
            generated images in both steps, so that it does not learn a few hundred slices by heart; 0 for none.
    """

    label_smoothing: float
    penalty_per_pixel: float
    penalty_interval: int = 1
    augmentation: float = 0.0


class GAN(Objective):
    """The minimax game with the non-saturating generator loss, https://huggingface.co/papers/1406.2661.

    The study's equation 5 with one-sided label smoothing and a gradient penalty, "where applicable". It serves every
    unconditional pair of networks: GAN and DCGAN differ in these alone.

    Args:
        generator: decodes latents to images.
        discriminator: maps images to logits (B,).
        game: label smoothing, gradient penalty, augmentation.
    """

    sampled = "generator"

    def __init__(self, generator: LatentModel, discriminator: nn.Module, game: Game):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.game = game

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Ascend the discriminator, then descend the generator on fresh latents (algorithm 1)."""
        yield "discriminator", self.discriminator_loss(batch)
        with frozen(self.discriminator):
            yield "generator", self.generator_loss(batch)

    def discriminator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """-E log D(x) - E log(1 - D(G(z))), labels smoothed, and the penalty."""
        with torch.no_grad():
            generated = self.generator(batch.draw(self.generator.sample_latents))
        change = self.changes(batch)
        loss = adversarial_loss(self.discriminator(change(batch.images)), 1 - self.game.label_smoothing)
        loss = loss + adversarial_loss(self.discriminator(change(generated)), 0.0)
        return loss + self.penalty(lambda images: self.discriminator(change(images)), batch)

    def generator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """-E log D(G(z))."""
        generated = self.generator(batch.draw(self.generator.sample_latents))
        return adversarial_loss(self.discriminator(self.changes(batch)(generated)), 1.0)

    def changes(self, batch: SliceBatch) -> Callable[[torch.Tensor], torch.Tensor]:
        """What happens to images before a discriminator sees them: in one step the same to real and generated ones."""
        if self.game.augmentation == 0:
            return lambda images: images
        draws = batch.draw(lambda n: torch.rand(n, NUM_CHANGES, device=batch.images.device))
        return partial(change_images, draws=draws, strength=self.game.augmentation)

    def penalty(self, source: Callable[[torch.Tensor], torch.Tensor], batch: SliceBatch) -> torch.Tensor:
        """`gradient_penalty` of the real images with its weight, in the steps that take it; 0 in the others."""
        interval = self.game.penalty_interval
        if interval > 1 and torch.rand(()) * interval >= 1:  # alike in all processes
            return batch.images.new_zeros(())
        weight = interval * self.game.penalty_per_pixel * batch.images[0].numel()
        return weight * gradient_penalty(source, batch.images)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Kernel distance of generated slices at fixed latents to the held-out ones.

        The classes of both are the same in number; whether an image is of its class is not looked at.
        """
        latents = self.generator.sample_latents(256, torch.Generator().manual_seed(0)).split(64)
        classes = batch.class_labels[torch.linspace(0, len(batch) - 1, 256).round().long()].split(64)
        generated = torch.cat([self.generator.decode(*chunk) for chunk in zip(latents, classes, strict=True)])
        return kernel_distance(generated, batch.images)

    def pipeline(self) -> LatentPipeline:
        """The generator as a pipeline."""
        return LatentPipeline(self.generator)


class ACGAN(GAN):
    """The game with an auxiliary classifier, https://huggingface.co/papers/1610.09585 (the study's equations 6 and 7).

    The discriminator ascends L_S + L_C and the generator L_C - L_S, L_S in the non-saturating form as in `GAN`.
    Generated images are of the classes of the batch. The discriminator maps images to source logits (B,) and class
    logits (B, classes).

    Args:
        generator, discriminator, game: as in `GAN`.
        class_weight: of L_C in both losses; a large one asks for the typical image of a class.
    """

    def __init__(
        self,
        generator: LatentModel,
        discriminator: nn.Module,
        game: Game,
        class_weight: float = 1.0,
    ):
        super().__init__(generator, discriminator, game)
        self.class_weight = class_weight

    def discriminator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """-L_S - L_C, labels of the source smoothed, and the penalty of the source."""
        with torch.no_grad():
            generated = self.generator(batch.draw(self.generator.sample_latents), batch.class_labels)
        change = self.changes(batch)
        source, classes = self.discriminator(change(batch.images))
        loss = adversarial_loss(source, 1 - self.game.label_smoothing) + self.class_loss(classes, batch)
        source, classes = self.discriminator(change(generated))
        loss = loss + adversarial_loss(source, 0.0) + self.class_loss(classes, batch)
        return loss + self.penalty(lambda images: self.discriminator(change(images))[0], batch)

    def generator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """-E log P(real | G(c, z)) - E log P(c | G(c, z))."""
        generated = self.generator(batch.draw(self.generator.sample_latents), batch.class_labels)
        source, classes = self.discriminator(self.changes(batch)(generated))
        return adversarial_loss(source, 1.0) + self.class_loss(classes, batch)

    def class_loss(self, classes: torch.Tensor, batch: SliceBatch) -> torch.Tensor:
        """-L_C with its weight, of class logits (B, classes) of images of the batch's classes."""
        return self.class_weight * F.cross_entropy(classes, batch.class_labels)


class InfoGAN(GAN):
    """The game with a bound on mutual information, https://huggingface.co/papers/1606.03657 (the study's equation 8).

    Both losses subtract the bound, as in the authors' code: Q, which shares the discriminator's body, learns with the
    discriminator, and the generator learns to be read. The generator splits its latents into noise and codes; the
    discriminator maps images to logits (B,) and Q's two readings.

    Args:
        generator, discriminator, game: as in `GAN`.
        information_weight: weight of the bound, the paper's lambda.
    """

    def __init__(
        self,
        generator: InfoGANGenerator,
        discriminator: nn.Module,
        game: Game,
        information_weight: float,
    ):
        super().__init__(generator, discriminator, game)
        self.information_weight = information_weight

    def discriminator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """That of `GAN` less lambda times the bound."""
        latents = batch.draw(self.generator.sample_latents)
        with torch.no_grad():
            generated = self.generator(latents)
        change = self.changes(batch)
        loss = adversarial_loss(self.discriminator(change(batch.images))[0], 1 - self.game.label_smoothing)
        logits, *reading = self.discriminator(change(generated))
        loss = loss + adversarial_loss(logits, 0.0) - self.information_weight * self.information(latents, *reading)
        return loss + self.penalty(lambda images: self.discriminator(change(images))[0], batch)

    def generator_loss(self, batch: SliceBatch) -> torch.Tensor:
        """That of `GAN` less lambda times the bound."""
        latents = batch.draw(self.generator.sample_latents)
        logits, *reading = self.discriminator(self.changes(batch)(self.generator(latents)))
        return adversarial_loss(logits, 1.0) - self.information_weight * self.information(latents, *reading)

    def information(self, latents: torch.Tensor, category: torch.Tensor, continuous: torch.Tensor) -> torch.Tensor:
        """`mutual_information` of the codes in `latents` and Q's reading of them."""
        _, true_category, true_continuous = self.generator.split_latents(latents)
        return mutual_information(true_category, true_continuous, category, continuous)


class Diffusion(Objective):
    """The simplified denoising loss, https://huggingface.co/papers/2006.11239 (equation 14; the study's 9 to 12).

    Args:
        unet: predicts the noise in noisy images.
        scheduler: adds it.
    """

    sampled = "unet"

    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler):
        super().__init__()
        self.unet = unet
        self.scheduler = scheduler

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the error of the predicted noise at a random timestep for each image (algorithm 1)."""
        num_timesteps, device = self.scheduler.config.num_train_timesteps, batch.images.device
        timesteps = batch.draw(lambda n: torch.randint(num_timesteps, (n,), device=device))
        noise = batch.draw(lambda n: torch.randn(n, *batch.images.shape[1:], device=device))
        yield "unet", self.loss(batch.images, noise, timesteps)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same at fixed noise and at timesteps that are spread evenly, four for each image."""
        generator = torch.Generator().manual_seed(0)
        images = batch.images.repeat(4, 1, 1, 1)
        noise = torch.randn(images.shape, generator=generator).to(images)
        order = torch.randperm(len(images), generator=generator)
        timesteps = ((order + 0.5) / len(order) * self.scheduler.config.num_train_timesteps).long().to(images.device)
        parts = [part.split(64) for part in (images, noise, timesteps)]
        return sum(len(part[0]) * self.loss(*part) for part in zip(*parts, strict=True)) / len(images)

    def loss(self, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the noise predicted in images (B, 1, H, W) at timesteps (B,)."""
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        return F.mse_loss(self.unet(noisy, timesteps).sample.float(), noise)

    def pipeline(self) -> DDPMPipeline:
        """What diffusers loads as a pipeline of its own."""
        return DDPMPipeline(self.unet, self.scheduler)

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """As the base class, in 50 steps instead of a thousand."""
        pipeline = DDPMPipeline(self.unet, convert_scheduler(self.scheduler, "ddpm")[0])
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return pipeline(16, generator, num_inference_steps=50, output_type="np").images


class SliceRecognition(Objective):
    """Segmentation, group, phase and position of slices at once: it trains the encoder that judges the generators.

    The sum of cross-entropy and soft Dice loss (https://huggingface.co/papers/1606.04797) of the segmentation, the
    cross-entropies of phase and, at a fifth and with labels smoothed, of the group, and the squared error of the
    position. What a slice has no label for does not count. At full weight the group, which a hundred patients soon
    teach by heart, would end the training before the segmentation is good.

    Args:
        encoder: sees slices.
    """

    sampled = "encoder"

    def __init__(self, encoder: SliceEncoder):
        super().__init__()
        self.encoder = encoder

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the losses of augmented slices."""
        images, masks = augment_batch(batch, interpolation="bilinear")
        batch = replace(batch, images=images, masks=masks)
        smoothed = partial(F.cross_entropy, label_smoothing=0.1)
        yield "encoder", self.loss(batch, (smoothed, F.cross_entropy), (F.cross_entropy, soft_dice_loss))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same tasks on the slices as they are, by bounded scores: Brier scores and soft Dice loss.

        Cross-entropies on the slices of a few patients are ruled by a few confident mistakes.
        """
        return self.loss(batch, (brier_score, brier_score), (soft_dice_loss,))

    def loss(self, batch: SliceBatch, classified: Sequence[Score], segmented: Sequence[Score]) -> torch.Tensor:
        """The sum over the tasks.

        Args:
            batch: slices.
            classified: the scores of group and phase, of logits (N, C) and classes (N,).
            segmented: those of the segmentation, of logits (N, C, H, W) and masks (N, H, W).
        """
        seen = EncoderOutput(*(part.float() for part in self.encoder(batch.images)))
        total = classified[0](seen.group_logits, batch.class_labels) / 5
        total = total + F.mse_loss(seen.positions, batch.positions)
        total = total + 0 * (seen.phase_logits.sum() + seen.mask_logits.sum())  # gradients for all, labels or not
        known = batch.phases >= 0
        if known.any():
            total = total + classified[1](seen.phase_logits[known], batch.phases[known])
        known = batch.masks.amin((1, 2)) >= 0
        if known.any():
            total = total + sum(score(seen.mask_logits[known], batch.masks[known]) for score in segmented)
        return total

    def pipeline(self) -> SliceEncoder:
        """The encoder itself."""
        return self.encoder

    @torch.no_grad()
    def preview(self, batch: SliceBatch) -> np.ndarray:
        """Eight held-out slices, then what the encoder takes for their segmentation, its labels as shades of grey."""
        images = batch.images[torch.linspace(0, len(batch) - 1, 8).long()]
        training = self.encoder.training
        logits = self.encoder.eval()(images).mask_logits
        self.encoder.train(training)
        shown = torch.cat([(images + 1) / 2, logits.argmax(1, keepdim=True) / (logits.shape[1] - 1)])
        return shown.permute(0, 2, 3, 1).cpu().numpy()


def gaussian_nll(means: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """-log N(x; mean, 1) of images (B, 1, H, W), summed over pixels: (B,), in nats."""
    return ((images - means).square() + math.log(2 * math.pi)).sum((1, 2, 3)) / 2


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, variance) || N(0, 1)) of moments (B, latent_dim), summed over dimensions: (B,), in nats (its B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def mutual_information(
    category: torch.Tensor, continuous: torch.Tensor, category_logits: torch.Tensor, continuous_means: torch.Tensor
) -> torch.Tensor:
    """The bound E log Q(c | x) + H(c) on the mutual information of codes and images; in nats (InfoGAN, equation 5).

    Args:
        category: one-hot codes (B, num_categories), each value as likely.
        continuous: codes (B, num_continuous), uniform on [-1, 1].
        category_logits: of Q(categorical | x), (B, num_categories).
        continuous_means: of Q(continuous | x), normal with unit variance, (B, num_continuous).
    """
    log_category = F.log_softmax(category_logits, dim=1).mul(category).sum(1)  # (B,)
    log_continuous = -((continuous - continuous_means).square() + math.log(2 * math.pi)).sum(1) / 2  # (B,)
    entropy = math.log(category.shape[1]) + continuous.shape[1] * math.log(2)
    return (log_category + log_continuous).mean() + entropy


def brier_score(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Squared error of probabilities (https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2); the mean.

    Args:
        logits: (B, C).
        classes: whole numbers from 0, (B,).

    Returns:
        A scalar in [0, 2], lower is better.
    """
    return (logits.softmax(1) - F.one_hot(classes, logits.shape[1])).square().sum(1).mean()


def soft_dice_loss(mask_logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 less the Dice coefficient of probabilities and masks, over the whole batch; the mean of all structures.

    Args:
        mask_logits: (B, structures, H, W), the background first, which does not count.
        masks: whole numbers from 0, (B, H, W).

    Returns:
        A scalar in [0, 1], lower is better.
    """
    probabilities = mask_logits.softmax(1)[:, 1:]
    truth = F.one_hot(masks, mask_logits.shape[1]).permute(0, 3, 1, 2)[:, 1:]
    common = (probabilities * truth).sum((0, 2, 3))
    total = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * common + 1) / (total + 1)).mean()  # +1: a structure that is not there counts as found


def adversarial_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    """Binary cross-entropy of discriminator logits (B,) with one target for all; the mean, in nats."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(discriminator: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """R1, E ||grad D(x)||^2 / 2 on real images, https://huggingface.co/papers/1801.04406 (equation 9); in float32.

    Under batch normalisation an image's logit depends on the others of its batch too; the gradient taken is that of
    the sum of logits, which then is not quite each image's own.

    Args:
        discriminator: maps images to logits (B,).
        images: real images (B, 1, H, W).
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean() / 2


def kernel_distance(generated: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Unbiased squared MMD of two image sets under a cubic kernel, lower is better, 0 for equal distributions.

    The kernel of KID (https://huggingface.co/papers/1801.01401), not on learned features but on `describe`: it ranks
    checkpoints of networks whose training losses do not, and is deliberately not the judge of the final images.

    Args:
        generated: (N, 1, H, W) in [-1, 1], N of 2 or more.
        real: (M, 1, H, W) in [-1, 1], M of 2 or more.
    """
    blocks = []
    descriptions = (describe(images.cpu()) for images in (generated, real))  # not every device has float64
    for fake, true in zip(*descriptions, strict=True):
        centre = true.mean(0)
        scale = (true - centre).square().sum(1).mean().sqrt()  # both blocks weigh the same
        blocks.append(((fake - centre) / scale, (true - centre) / scale))
    x, y = (torch.cat(sides, dim=1) for sides in zip(*blocks, strict=True))
    kernel_xx, kernel_yy, kernel_xy = ((a @ b.T / len(blocks) + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (kernel_xx, kernel_yy)]
    return sum(within) - 2 * kernel_xy.mean()


def describe(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A description of images without learned parameters, in double precision.

    Args:
        images: (N, 1, H, W) in [-1, 1].

    Returns:
        Average-pooled pixels (N, 256) and the log radial power spectrum (N, H / 2).
    """
    images = images.double()
    pixels = F.adaptive_avg_pool2d(images, 16).flatten(1)
    size = images.shape[-1]
    power = torch.fft.fft2(images.squeeze(1)).abs().square().flatten(1)  # (N, H W)
    frequency = torch.fft.fftfreq(size, d=1 / size, device=images.device)
    radius = torch.hypot(frequency[:, None], frequency[None, :]).round().long().flatten()
    rings = [power[:, radius == ring].mean(1) for ring in range(size // 2)]
    return pixels, torch.log(torch.stack(rings, dim=1) / size**2 + 1e-6)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the block, gradients flow through `network` but not to its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
