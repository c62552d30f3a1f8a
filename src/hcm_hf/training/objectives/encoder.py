"""The losses of the encoder of the evaluation: segmentation, group, phase and position of slices."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from hcm_hf.data.augmentation import augment_batch
from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import EncoderOutput, SliceEncoder
from hcm_hf.training.objectives.base import Objective


Augmentation = Callable[[SliceBatch], tuple[torch.Tensor, torch.Tensor]]  # of images and masks
MILD: Augmentation = partial(augment_batch, interpolation="bilinear")
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits and classes: a scalar, lower is better


class SliceRecognition(Objective):
    """Segmentation, group, phase and position of slices: the training of the encoder of the evaluation.

    The loss is a sum of four tasks. Segmentation: cross-entropy and soft Dice loss
    (https://huggingface.co/papers/1606.04797). Phase: cross-entropy. Group: cross-entropy with smoothed labels and
    weight 1/5. Position: squared error. A task without a label does not count. The group has a low weight because it
    overfits first, and would stop the training before the segmentation is good.

    Args:
        encoder: the network.
        augmentation: of a batch's images and masks.
    """

    sampled = "encoder"

    def __init__(self, encoder: SliceEncoder, augmentation: Augmentation = MILD):
        super().__init__()
        self.encoder = encoder
        self.augmentation = augmentation

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the losses of augmented slices."""
        images, masks = self.augmentation(batch)
        batch = replace(batch, images=images, masks=masks)
        smoothed = partial(F.cross_entropy, label_smoothing=0.1)
        yield "encoder", self.loss(batch, (smoothed, F.cross_entropy), (F.cross_entropy, soft_dice_loss))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same tasks without augmentation, with bounded scores: Brier scores and soft Dice loss.

        A few confident mistakes would dominate cross-entropies on the slices of a few patients.
        """
        return self.loss(batch, (brier_score, brier_score), (soft_dice_loss,))

    def loss(self, batch: SliceBatch, classified: Sequence[Score], segmented: Sequence[Score]) -> torch.Tensor:
        """Return the sum over the tasks.

        Args:
            batch: slices.
            classified: the scores of group and phase, for logits (N, C) and classes (N,).
            segmented: the scores of the segmentation, for logits (N, C, H, W) and masks (N, H, W).
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
        """Eight held-out slices, then their predicted segmentations, with labels as shades of grey."""
        images = batch.images[torch.linspace(0, len(batch) - 1, 8).long()]
        training = self.encoder.training
        logits = self.encoder.eval()(images).mask_logits
        self.encoder.train(training)
        shown = torch.cat([(images + 1) / 2, logits.argmax(1, keepdim=True) / (logits.shape[1] - 1)])
        return shown.permute(0, 2, 3, 1).cpu().numpy()


def brier_score(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Mean squared error of probabilities (https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    Args:
        logits: (B, C).
        classes: whole numbers from 0, (B,).

    Returns:
        A scalar in [0, 2], lower is better.
    """
    return (logits.softmax(1) - F.one_hot(classes, logits.shape[1])).square().sum(1).mean()


def soft_dice_loss(mask_logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 minus the Dice coefficient of probabilities and masks over the whole batch, averaged over structures.

    Args:
        mask_logits: (B, structures, H, W), the background first; it is left out.
        masks: whole numbers from 0, (B, H, W).

    Returns:
        A scalar in [0, 1], lower is better.
    """
    probabilities = mask_logits.softmax(1)[:, 1:]
    truth = F.one_hot(masks, mask_logits.shape[1]).permute(0, 3, 1, 2)[:, 1:]
    common = (probabilities * truth).sum((0, 2, 3))
    total = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * common + 1) / (total + 1)).mean()  # +1: an absent structure that is not predicted has no loss
