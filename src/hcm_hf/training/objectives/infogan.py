"""InfoGAN's losses: the game with a bound on the mutual information of codes and images."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import InfoGANGenerator
from hcm_hf.training.objectives.gan import GAN, Game, adversarial_loss


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
        self, generator: InfoGANGenerator, discriminator: nn.Module, game: Game, information_weight: float = 1.0
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
