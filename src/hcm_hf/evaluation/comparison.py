"""What a report compares with what: generated images, real slices, and what the encoder sees in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from diffusers import DDPMPipeline

from hcm_hf.evaluation.encoder import Encoder, Sight
from hcm_hf.evaluation.extractors import Extractor
from hcm_hf.evaluation.images import THIRDS, GeneratedPairs, RealSlices
from hcm_hf.metrics.protocols import bootstrap_draws


Rows = dict[str, dict[str, dict]]  # row -> flat name -> number


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, and what several parts need to know of it.

    Attributes:
        generated: float32 (N, H, W) in [0, 1].
        training: slices of the groups that are compared with, of training patients.
        seen: all slices that the generator has been trained on, which it may copy; other groups' too.
        heldout: slices of the same groups of other patients.
        groups: these groups.
        pixel_spacing: mm.
        encoder: sees anatomy and features; None leaves out what needs it.
        extractors: further features.
        model: the diffusion model that made the images, to ask what it remembers; None for any other.
        pairs: the generated images' segmentations and what was asked for; None where there are none.
        all_training: slices of training patients of all groups, to compare the segmentations with.
        all_heldout: the same of held-out patients.
        real_per_image: real images that a generated one is compared with at random.
        seed: of all choices.
        device: where to compute.
    """

    generated: np.ndarray
    training: RealSlices
    seen: RealSlices
    heldout: RealSlices
    groups: Sequence[str]
    pixel_spacing: float
    encoder: Encoder | None = None
    extractors: Sequence[Extractor] = ()
    model: DDPMPipeline | None = None
    pairs: GeneratedPairs | None = None
    all_training: RealSlices | None = None
    all_heldout: RealSlices | None = None
    real_per_image: int = 50
    seed: int = 0
    device: str = "cpu"

    def random(self, stream: int) -> np.random.Generator:
        """Random numbers that are a function of the seed and of what they are for."""
        return np.random.default_rng((self.seed, stream))

    @cached_property
    def resamples(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the held-out patients, and draws of them."""
        return bootstrap_draws(self.heldout.patients, self.random(5))

    @cached_property
    def mean_image(self) -> np.ndarray:
        """The pixel-wise mean of the training slices, (1, H, W)."""
        return self.training.images.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)

    @cached_property
    def mean_images(self) -> np.ndarray:
        """As many copies of it as there are held-out slices, a little shifted and brightened: (M, H, W)."""
        generator, count = self.random(6), len(self.heldout.images)
        shifts = generator.integers(-3, 4, size=(count, 2))
        gains = generator.uniform(0.9, 1.1, size=(count, 1, 1))
        moved = np.stack([np.roll(self.mean_image[0], tuple(shift), axis=(0, 1)) for shift in shifts])
        return (moved * gains).clip(0, 1).astype(np.float32)

    @cached_property
    def sights(self) -> dict[str, Sight]:
        """What the encoder sees, by row; `training` are the training slices."""
        sets = {"generated": self.generated, "real": self.heldout.images, "training": self.training.images}
        return {name: self.encoder.look(images) for name, images in (sets | {"mean_image": self.mean_images}).items()}

    @property
    def levels(self) -> dict[str, np.ndarray | None]:
        """Phase and third of the heart as one number, of generated images and of the held-out slices in their place.

        Those that were asked for and the true ones or, where nothing is known of either, those that the encoder sees;
        None without it.
        """
        if self.pairs is not None and min(self.pairs.phases.min(), self.pairs.thirds.min()) >= 0:
            return {"generated": self.pairs.phases * THIRDS + self.pairs.thirds, "real": self.heldout.levels}
        rows = ("generated", "real")
        return {name: None if self.encoder is None else self.sights[name].levels for name in rows}
