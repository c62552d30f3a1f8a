"""The losses of GAN and DCGAN: the minimax game, which AC-GAN and InfoGAN extend."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hcm_hf.data.augmentation import NUM_CHANGES, change_images
from hcm_hf.data.slices import SliceBatch
from hcm_hf.metrics import distribution, spectrum
from hcm_hf.models import LatentModel
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.training.objectives.base import Objective


@dataclass(frozen=True)
class Game:
    """The settings of the game between generator and discriminator.

    Attributes:
        label_smoothing: real images are labelled 1 - label_smoothing (https://huggingface.co/papers/1606.03498, 3.4).
        penalty_per_pixel: weight of `gradient_penalty` for each pixel of an image, gamma in its paper.
        penalty_interval: the penalty is computed in a random one of this many steps, and multiplied by this number
            (lazy regularisation, https://huggingface.co/papers/1912.04958, appendix B).
        augmentation: range of `change_images`, applied to real and generated images before the discriminator, so that
            it does not overfit a few hundred slices; 1 for the full range, 0 for none.
    """

    label_smoothing: float
    penalty_per_pixel: float
    penalty_interval: int = 1
    augmentation: float = 0.0


class GAN(Objective):
    """The minimax game with the non-saturating generator loss, https://huggingface.co/papers/1406.2661.

    The study's equation 5 with one-sided label smoothing and a gradient penalty. GAN and DCGAN differ only in their
    networks.

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
        """The augmentation of the discriminator's inputs, the same for real and generated images of one step."""
        if self.game.augmentation == 0:
            return lambda images: images
        draws = batch.draw(lambda n: torch.rand(n, NUM_CHANGES, device=batch.images.device))
        return partial(change_images, draws=draws, strength=self.game.augmentation)

    def penalty(self, source: Callable[[torch.Tensor], torch.Tensor], batch: SliceBatch) -> torch.Tensor:
        """Weighted `gradient_penalty` of the real images in the steps that compute it; 0 in the others."""
        interval = self.game.penalty_interval
        if interval > 1 and torch.rand(()) * interval >= 1:  # alike in all processes
            return batch.images.new_zeros(())
        weight = interval * self.game.penalty_per_pixel * batch.images[0].numel()
        return weight * gradient_penalty(source, batch.images)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Kernel distance between slices generated from fixed latents and the held-out slices.

        Both sets hold the classes in the same shares; whether an image shows its class is not measured.
        """
        latents = self.generator.sample_latents(self.num_compared, torch.Generator().manual_seed(0)).split(64)
        chosen = torch.linspace(0, len(batch) - 1, self.num_compared).round().long()
        classes = batch.class_labels[chosen].split(64)
        generated = torch.cat([self.generator.decode(*chunk) for chunk in zip(latents, classes, strict=True)])
        return kernel_distance(generated, batch.images)

    def pipeline(self) -> LatentPipeline:
        """The generator as a pipeline."""
        return LatentPipeline(self.generator)


def adversarial_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    """Binary cross-entropy of discriminator logits (B,) with one target for all; the mean, in nats."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(discriminator: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """R1, E ||grad D(x)||^2 / 2 on real images, https://huggingface.co/papers/1801.04406 (equation 9); in float32.

    Under batch normalisation an image's logit depends on the other images of its batch. The gradient is that of the
    sum of logits, which then differs slightly from each image's own. The discriminator maps images (B, 1, H, W) to
    logits (B,).
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean() / 2


def kernel_distance(generated: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Unbiased squared MMD of two image sets under a cubic kernel; lower is better, 0 for equal distributions.

    The kernel is that of KID (https://huggingface.co/papers/1801.01401), on `describe` instead of learned features. It
    ranks checkpoints whose training losses do not, and is not among the metrics of the final images. Each set is
    (N, 1, H, W) in [-1, 1], N of 2 or more.
    """
    if not torch.isfinite(generated).all():
        return torch.tensor(math.nan)  # the run then reports that it diverged
    blocks = []
    descriptions = (describe(images.cpu()) for images in (generated, real))
    for fake, true in zip(*descriptions, strict=True):
        centre = true.mean(0)
        scale = np.sqrt(np.square(true - centre).sum(1).mean())  # both blocks have the same weight
        blocks.append(((fake - centre) / scale, (true - centre) / scale))
    x, y = (np.concatenate(sides, axis=1) for sides in zip(*blocks, strict=True))
    per_block = math.sqrt(x.shape[1] / len(blocks))  # the kernel divides by the number of features
    return torch.tensor(distribution.kernel_distance(per_block * x, per_block * y), dtype=torch.float64)


def describe(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Average-pooled pixels (N, 256) and log radial power (N, H / 2) of images (N, 1, H, W), in double precision."""
    pixels = F.adaptive_avg_pool2d(images.double(), 16).flatten(1)
    power = spectrum.radial_power(images.double().squeeze(1).numpy())
    return pixels.numpy(), np.log(power[:, : images.shape[-1] // 2] + 1e-6)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients flow through `network` but not to its parameters, within the block."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
