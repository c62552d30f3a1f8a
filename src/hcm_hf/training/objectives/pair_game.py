"""The game of a generator of pairs against a discriminator of them, whatever the generator is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch.nn import functional as F

from hcm_hf.data.augmentation import NUM_CHANGES, change_images
from hcm_hf.data.slices import SliceBatch
from hcm_hf.models.conditioning import LARGEST_WALL
from hcm_hf.models.paired_acgan import PairedACGANDiscriminator, PairVerdict
from hcm_hf.models.unet import NUM_STRUCTURES


class Adversary(Protocol):
    """How logits of real and of fake pairs, (B,) each, become losses, (B,) each; lower is better."""

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Of telling real pairs from fake ones."""
        ...

    def generator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Of passing for real."""
        ...


@dataclass(frozen=True)
class NonSaturating:
    """The game of Goodfellow et al., https://huggingface.co/papers/1406.2661, with one-sided label smoothing."""

    label_smoothing: float = 0.1

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """-log D(real) - log(1 - D(fake)), labels smoothed."""
        target = torch.full_like(real, 1 - self.label_smoothing)
        return F.binary_cross_entropy_with_logits(real, target, reduction="none") + F.softplus(fake)

    def generator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """-log D(fake)."""
        return F.softplus(-fake)


@dataclass(frozen=True)
class Relativistic:
    """Each real pair against a fake one, https://huggingface.co/papers/2501.05441 (Huang et al. 2025, equation 1)."""

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """-log sigmoid(D(real) - D(fake))."""
        return F.softplus(fake - real)

    def generator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """-log sigmoid(D(fake) - D(real))."""
        return F.softplus(real - fake)


@dataclass(frozen=True)
class PairGame:
    """The settings of the game on pairs.

    Attributes:
        adversary: how logits become losses.
        mismatch_weight: weight of telling real pairs from real slices with the segmentation of another, so that masks
            have to fit their slices; 0 for none.
        class_weight: of the heads for group, phase, level and wall thickness, in both losses.
        penalty: weight (gamma) of R1, the penalty on the gradient at real pairs
            (https://huggingface.co/papers/1801.04406), and of R2, the same at generated pairs.
        penalty_interval: they are computed in a random one of this many steps, and multiplied by this number.
        augmentation: range of `change_images` before the discriminator; 1 for the full range, 0 for none.
        mask_noise: standard deviation of the noise on the masks' channels before the discriminator, which could
            otherwise tell exact masks by their values.
    """

    adversary: Adversary = Relativistic()
    mismatch_weight: float = 0.5
    class_weight: float = 0.2
    penalty: float = 0.05
    penalty_interval: int = 4
    augmentation: float = 1.0
    mask_noise: float = 0.1


@dataclass
class Shown:
    """What a batch of pairs shows, and what the networks are given of it.

    Attributes:
        answers: of each question, the index of the answer, (B,); below 0 where it is not known.
        walls: mm, (B,); not a number where there is none.
        given_labels: the label, (B,), of some the one that leaves everything open.
        given_walls: the walls, some left out.
    """

    answers: list[torch.Tensor]
    walls: torch.Tensor
    given_labels: torch.Tensor
    given_walls: torch.Tensor

    @property
    def given(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the networks are given."""
        return self.given_labels, self.given_walls


class PairJudge:
    """A discriminator of pairs: how it is trained, and how a generator of pairs learns from it.

    Its heads learn group, phase, level and wall thickness from real pairs, and the generator has to satisfy them: an
    AC-GAN, https://huggingface.co/papers/1610.09585. Slices without a segmentation do not count.

    Args:
        discriminator: scores pairs.
        game: how.
        null_label: the label that leaves everything open.
    """

    def __init__(self, discriminator: PairedACGANDiscriminator, game: PairGame, null_label: int):
        self.discriminator, self.game, self.null_label = discriminator, game, null_label

    def discriminator_loss(
        self, batch: SliceBatch, real: torch.Tensor, fake: torch.Tensor, known: torch.Tensor, shown: Shown
    ) -> torch.Tensor:
        """Of telling real pairs from generated and from mismatched ones, and of what real pairs show.

        Args:
            batch: the slices.
            real: their pairs, (B, 4, H, W).
            fake: generated pairs for the same conditions, alike.
            known: 1 where a slice has a segmentation, (B,).
            shown: of `observe`.
        """
        game, augmented, fake = self.game, self.augmented(batch, shown), _segmented(fake, known)
        verdict = augmented(real)
        loss = _mean(game.adversary.discriminator(verdict.logits, augmented(fake).logits), known)
        if game.mismatch_weight:
            masks, segmented = (_of_the_slice_before(batch, one) for one in (real[:, 1:], known))
            wrong = torch.cat([real[:, :1], masks], dim=1)
            apart = game.adversary.discriminator(verdict.logits, augmented(wrong).logits)
            loss = loss + game.mismatch_weight * _mean(apart, known * segmented)
        loss = loss + game.class_weight * self.class_loss(verdict, shown, known)
        if torch.rand(()) * game.penalty_interval < 1:  # alike in all processes
            weight = game.penalty_interval * game.penalty / 2
            slopes = sum(_squared_slope(augmented, pairs) for pairs in (real, fake))
            loss = loss + weight * _mean(torch.as_tensor(slopes), known)
        return loss

    def generator_loss(
        self, batch: SliceBatch, real: torch.Tensor, fake: torch.Tensor, known: torch.Tensor, shown: Shown
    ) -> torch.Tensor:
        """Of passing for real, and of showing what was asked for; the arguments are those of `discriminator_loss`."""
        augmented = self.augmented(batch, shown)
        verdict = augmented(_segmented(fake, known))
        with torch.no_grad():
            rivals = augmented(real).logits
        asked = (shown.given_labels < self.null_label).to(known)
        wall_asked = Shown(shown.answers, shown.given_walls, *shown.given)
        loss = _mean(self.game.adversary.generator(rivals, verdict.logits), known)
        return loss + self.game.class_weight * self.class_loss(verdict, wall_asked, known, asked)

    def augmented(self, batch: SliceBatch, shown: Shown) -> Callable[[torch.Tensor], PairVerdict]:
        """The discriminator behind its augmentation, which is the same for all pairs of one loss."""
        device, size = batch.images.device, batch.images.shape[-1]
        draws = batch.draw(lambda n: torch.rand(n, NUM_CHANGES, device=device))
        noise = self.game.mask_noise * batch.draw(lambda n: torch.randn(n, NUM_STRUCTURES, size, size, device=device))
        change = partial(change_images, draws=draws, strength=self.game.augmentation)

        def see(pairs: torch.Tensor) -> PairVerdict:
            noisy = torch.cat([pairs[:, :1], pairs[:, 1:] + noise], dim=1)
            return self.discriminator(change(noisy), *shown.given)

        return see

    def class_loss(
        self, verdict: PairVerdict, shown: Shown, known: torch.Tensor, asked: torch.Tensor | float = 1.0
    ) -> torch.Tensor:
        """Cross-entropy of group, phase and level, and the absolute error of the wall in units of 10 mm.

        Args:
            verdict: of the discriminator.
            shown: what the pairs show, or are to show.
            known: 1 where a slice has a segmentation, (B,).
            asked: 1 where the label counts, (B,).
        """
        total = known.new_zeros(())
        for logits, answers in zip(verdict.answers, shown.answers, strict=True):
            counts = known * asked * (answers >= 0)
            total = total + _mean(F.cross_entropy(logits, answers.clamp(min=0), reduction="none"), counts)
        measured = shown.walls.isfinite()
        error = (verdict.walls - shown.walls.nan_to_num(0.0) / LARGEST_WALL).abs() * LARGEST_WALL / 10
        return total + _mean(error, known * measured)


def _of_the_slice_before(batch: SliceBatch, values: torch.Tensor) -> torch.Tensor:
    """Values (B, ...) of the slice that comes before each one in the whole batch, whatever the processes."""
    return batch.whole(values).roll(1, 0)[batch.process_index :: batch.num_processes]


def _segmented(fake: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Generated pairs without their segmentation where the real one beside them has none, (B, 4, H, W)."""
    return torch.cat([fake[:, :1], fake[:, 1:] * known[:, None, None, None]], dim=1)


def _mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of weighted values, (B,); over all slices, so that the means of several processes have a mean."""
    return (values * weights).mean()


def _squared_slope(discriminator: Callable[[torch.Tensor], PairVerdict], pairs: torch.Tensor) -> torch.Tensor:
    """The squared length of the gradient of all logits with respect to each pair, (B,), in float32.

    Where the discriminator sees the spread of a batch, a pair's gradient holds a little of the others' logits.
    """
    with torch.autocast(pairs.device.type, enabled=False):
        pairs = pairs.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(pairs).logits.sum(), pairs, create_graph=True)
        return gradient.square().sum((1, 2, 3))
