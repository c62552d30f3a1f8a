"""The losses of few-step students that also have to pass for real before a discriminator of pairs."""

from collections.abc import Iterator, Mapping

import torch
from torch.nn import functional as F

from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.models.paired_acgan import PairedACGANDiscriminator
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.training.objectives.distillation import Autoguidance, MomentMatching
from hcm_hf.training.objectives.gan import frozen
from hcm_hf.training.objectives.pair_game import PairGame, PairJudge, Shown
from hcm_hf.training.objectives.paired import by_channel, find_answers


class AdversarialMatching(MomentMatching):
    """Moment matching with a discriminator of pairs beside it, as in https://huggingface.co/papers/2405.14867.

    The discriminator sees real pairs, the student's predictions and mismatched pairs, in which a slice has the
    segmentation of another, so that masks have to fit their slices. Its gradient on a prediction has a fixed share of
    the length of the matching's, of image and segmentation apart, for each slice: neither drowns the other.

    Args:
        teacher: a diffusion model with many sampling steps.
        vocabulary: what the labels mean.
        discriminator: scores pairs of pixels.
        num_inference_steps: the student's number of sampling steps.
        label_dropout, max_snr, image_weight, augmentation, wall_dropout, guide, autoguidance: as in `MomentMatching`.
        game: of the discriminator.
        adversarial_weight: length of its gradient over that of the matching's.
    """

    def __init__(
        self,
        teacher: PairedDDPMPipeline,
        vocabulary: Vocabulary,
        discriminator: PairedACGANDiscriminator,
        num_inference_steps: int,
        label_dropout: float,
        max_snr: float,
        image_weight: float,
        augmentation: float,
        wall_dropout: float = 0.3,
        game: PairGame | None = None,
        adversarial_weight: float = 0.5,
        guide: PairedDDPMPipeline | None = None,
        autoguidance: Autoguidance | None = None,
    ):
        super().__init__(
            teacher,
            vocabulary,
            num_inference_steps,
            label_dropout,
            max_snr,
            image_weight,
            augmentation,
            wall_dropout,
            guide,
            autoguidance,
        )
        self.discriminator = discriminator
        self.judge = PairJudge(discriminator, game or PairGame(), self.null_label)
        self.adversarial_weight = adversarial_weight

    def move(
        self,
        batch: SliceBatch,
        pairs: torch.Tensor,
        asked: Mapping[str, torch.Tensor],
        guess: torch.Tensor,
        direction: torch.Tensor,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the discriminator's loss, then move the student; see `MomentMatching.move`."""
        known = (batch.masks.amin((1, 2)) >= 0).to(pairs)
        walls = asked.get("wall_thickness", known.new_full(known.shape, torch.nan))
        shown = Shown(list(find_answers(batch).values()), walls, asked["class_labels"], walls)
        real, drawn = self.pixels(pairs), guess.detach().float().requires_grad_()
        yield "discriminator", self.judge.discriminator_loss(batch, real, self.pixels(guess.detach()), known, shown)
        # Without autocast: a small gradient is stretched, and would be rounding errors alone.
        with frozen(self.discriminator), torch.autocast(pairs.device.type, enabled=False):
            loss = self.judge.generator_loss(batch, real, self.pixels(drawn), known, shown)
            (slope,) = torch.autograd.grad(loss, drawn)
        yield from super().move(batch, pairs, asked, guess, direction + self.scaled(by_channel(slope), direction))

    def pixels(self, pairs: torch.Tensor) -> torch.Tensor:
        """Pairs of blocks, masks at the teacher's scale, as the discriminator sees them: (B, 4, H, W), masks at 1."""
        whole = F.pixel_shuffle(pairs, self.patch_size)
        return torch.cat([whole[:, :1], whole[:, 1:] / self.mask_scale], dim=1)

    def scaled(self, slope: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """The discriminator's gradient at its share of the direction's length, of image and structures apart."""
        parts = []
        for part in (slice(0, 1), slice(1, None)):
            lengths = [one[:, part].square().sum((1, 2, 3, 4), keepdim=True).sqrt() for one in (slope, direction)]
            parts.append(slope[:, part] * self.adversarial_weight * lengths[1] / lengths[0].clamp(min=1e-12))
        return torch.cat(parts, dim=1)
