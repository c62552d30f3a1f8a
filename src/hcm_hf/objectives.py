"""Every loss of every family, in one file: reading it is reading the comparison.

An objective holds a family's networks. It never sees an optimizer, a step number, a path or a device's name: the loop
in `training.py` steps the named network's optimizer each time `losses` yields, before it lets `losses` go on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import LatentModel
from hcm_hf.pipeline import LatentPipeline


class Objective(nn.Module):
    """What a family is trained to do; a subclass's children are its networks.

    Attributes:
        sampled: name of the network that makes images. EMA follows it and the pipeline holds it.
    """

    sampled: str

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield `(network name, scalar loss)` in the order of the paper's algorithm; gradients reach that network."""
        raise NotImplementedError(f"{type(self).__name__} does not define losses.")

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """A deterministic scalar on held-out slices, lower is better."""
        raise NotImplementedError(f"{type(self).__name__} does not define validation_loss.")

    def pipeline(self):
        """The diffusers pipeline to sample from and to save; it shares the weights."""
        raise NotImplementedError(f"{type(self).__name__} does not define pipeline.")


class GAN(Objective):
    """The minimax game with the non-saturating generator loss, https://huggingface.co/papers/1406.2661.

    The study's equation 5 with one-sided label smoothing and a gradient penalty, "where applicable". It serves every
    unconditional pair of networks: GAN and DCGAN differ in these alone.

    Args:
        generator: decodes latents to images.
        discriminator: maps images to logits (B,).
        label_smoothing: real images are labelled 1 - label_smoothing (https://huggingface.co/papers/1606.03498, 3.4).
        penalty_weight: weight of `gradient_penalty`, the gamma of its paper.
    """

    sampled = "generator"

    def __init__(
        self,
        generator: LatentModel,
        discriminator: nn.Module,
        label_smoothing: float,
        penalty_weight: float,
    ):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.label_smoothing = label_smoothing
        self.penalty_weight = penalty_weight

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Ascend the discriminator, then descend the generator on fresh latents (algorithm 1)."""
        size = len(batch)
        with torch.no_grad():
            generated = self.generator(self.generator.sample_latents(size))
        loss = adversarial_loss(self.discriminator(batch.images), 1 - self.label_smoothing)
        loss = loss + adversarial_loss(self.discriminator(generated), 0.0)
        yield "discriminator", loss + self.penalty_weight * gradient_penalty(self.discriminator, batch.images)

        with frozen(self.discriminator):
            generated = self.generator(self.generator.sample_latents(size))
            yield "generator", adversarial_loss(self.discriminator(generated), 1.0)

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Kernel distance of generated slices at fixed latents to the held-out ones."""
        latents = self.generator.sample_latents(256, torch.Generator().manual_seed(0))
        generated = torch.cat([self.generator.decode(chunk) for chunk in latents.split(64)])
        return kernel_distance(generated, batch.images)

    def pipeline(self) -> LatentPipeline:
        """The generator as a pipeline."""
        return LatentPipeline(self.generator)


def adversarial_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    """Binary cross-entropy of discriminator logits (B,) with one target for all; the mean, in nats."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(discriminator: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """R1, E ||grad D(x)||^2 / 2 on real images, https://huggingface.co/papers/1801.04406 (equation 9); in float32.

    This form of the penalty is made for the minimax game and, as it looks at real images alone, goes with a
    batch-normalised discriminator.

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
