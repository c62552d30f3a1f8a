"""The losses of the tuned AC-GAN: a game on slices with their segmentations, for a label and a wall thickness."""

from collections.abc import Iterator

import numpy as np
import torch

from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.models.paired_acgan import PairedACGANDiscriminator, PairedACGANGenerator
from hcm_hf.models.unet import NUM_STRUCTURES, join_pairs
from hcm_hf.pipelines.conditions import count_labels
from hcm_hf.pipelines.paired_latent import PairedLatentPipeline
from hcm_hf.training.objectives.base import Objective
from hcm_hf.training.objectives.gan import frozen, kernel_distance
from hcm_hf.training.objectives.pair_game import PairGame, PairJudge, Shown
from hcm_hf.training.objectives.paired import find_answers, find_labels
from hcm_hf.training.objectives.walls import no_range, ranges_of, read_walls, widen


class PairedACGAN(Objective):
    """A generator of slices with their segmentations against a discriminator of such pairs; see `PairJudge`.

    Args:
        generator: makes pairs.
        discriminator: scores pairs.
        vocabulary: what the labels mean.
        game: how.
        label_dropout: share of pairs whose label is left open.
        wall_dropout: share of pairs whose wall thickness is left open.
    """

    sampled, asks = "generator", True
    label_counts: torch.Tensor
    wall_range: torch.Tensor

    def __init__(
        self,
        generator: PairedACGANGenerator,
        discriminator: PairedACGANDiscriminator,
        vocabulary: Vocabulary,
        game: PairGame | None = None,
        label_dropout: float = 0.1,
        wall_dropout: float = 0.3,
    ):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.vocabulary, self.defaults = vocabulary, vocabulary.defaults
        self.null_label = count_labels(vocabulary.axes)
        self.judge = PairJudge(discriminator, game or PairGame(), self.null_label)
        self.label_dropout, self.wall_dropout = label_dropout, wall_dropout
        self.register_buffer("label_counts", torch.zeros(self.null_label + 1, dtype=torch.int64))
        self.register_buffer("wall_range", no_range())

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the discriminator's loss, then the generator's on the same pairs."""
        shown = self.observe(batch)
        real = join_pairs(batch.images, batch.masks, 1)  # (B, 4, H, W)
        known = (batch.masks.amin((1, 2)) >= 0).to(real)
        fake = self.generator(batch.draw(self.generator.sample_latents), *shown.given)
        yield "discriminator", self.judge.discriminator_loss(batch, real, fake.detach(), known, shown)
        with frozen(self.discriminator):
            yield "generator", self.judge.generator_loss(batch, real, fake, known, shown)

    def observe(self, batch: SliceBatch) -> Shown:
        """What the slices show; count labels and find the range of the walls on the way."""
        labels, walls = find_labels(batch, self.vocabulary), read_walls(batch.masks)
        self.label_counts += torch.bincount(batch.whole(labels), minlength=len(self.label_counts))
        widen(self.wall_range, batch.whole(walls))
        chance = batch.draw(lambda n: torch.rand(n, 2, device=labels.device))
        return Shown(
            answers=list(find_answers(batch).values()),
            walls=walls,
            given_labels=labels.masked_fill(chance[:, 0] < self.label_dropout, self.null_label),
            given_walls=walls.masked_fill(chance[:, 1] < self.wall_dropout, torch.nan),
        )

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """Kernel distance between slices generated from fixed latents and the held-out slices, as in `GAN`."""
        latents = self.generator.sample_latents(self.num_compared, torch.Generator().manual_seed(0)).split(64)
        chosen = torch.linspace(0, len(batch) - 1, self.num_compared).round().long()
        labels = find_labels(batch, self.vocabulary)[chosen].split(64)
        walls = read_walls(batch.masks)[chosen].split(64)
        generated = [self.generator(*chunk)[:, :1] for chunk in zip(latents, labels, walls, strict=True)]
        return kernel_distance(torch.cat(generated), batch.images)

    def pipeline(self) -> PairedLatentPipeline:
        """The generator as a pipeline; open conditions are drawn with their frequency in training."""
        return PairedLatentPipeline(
            self.generator,
            axes=self.vocabulary.axes,
            frequencies=self.label_counts[:-1].tolist(),
            defaults=self.defaults,
            ranges=ranges_of(self.wall_range),
        )

    def preview(self, batch: SliceBatch) -> np.ndarray:
        """Eight slices, and their segmentations as shades of grey."""
        images, masks, _ = self.pipeline()(8, torch.Generator().manual_seed(0), output_type="np", return_dict=False)
        return np.concatenate([images, masks[..., None] / NUM_STRUCTURES])
