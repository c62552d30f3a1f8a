"""AC-GAN's losses: the game with a classifier of both real and generated slices."""

import torch
from torch import nn
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import LatentModel
from hcm_hf.training.objectives.gan import GAN, Game, adversarial_loss


class ACGAN(GAN):
    """The game with an auxiliary classifier, https://huggingface.co/papers/1610.09585 (the study's equations 6 and 7).

    The discriminator ascends L_S + L_C and the generator L_C - L_S, L_S in the non-saturating form as in `GAN`.
    Generated images are of the classes of the batch. The discriminator maps images to source logits (B,) and class
    logits (B, classes).

    Args:
        generator, discriminator, game: as in `GAN`.
        class_weight: of L_C in both losses; a large one asks for the typical image of a class.
    """

    def __init__(self, generator: LatentModel, discriminator: nn.Module, game: Game, class_weight: float = 1.0):
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
