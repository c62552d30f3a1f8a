"""What a report compares: generated images, real slices, and the encoder's predictions for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from diffusers import DDPMPipeline

from hcm_hf.data.identity import shared_patients
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.encoder import Encoder, Predictions
from hcm_hf.evaluation.extractors import imagenet_features
from hcm_hf.evaluation.images import THIRDS, GeneratedImages, RealSlices, fingerprint, read_split
from hcm_hf.evaluation.report import Data, Report
from hcm_hf.metrics.bootstrap import bootstrap_draws
from hcm_hf.metrics.protocols import reference_size
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.version import __version__


@dataclass(frozen=True)
class Reference:
    """The real slices of a prepared dataset, decoded once.

    Attributes:
        all_seen: slices of training patients of all groups, all frames.
        all_heldout: slices of held-out patients of all groups at end diastole and end systole.
        groups: the groups that images are compared with.
        seen_groups: those that the generator was trained on; None where that is not known, which takes `groups`.
        split: the name of the held-out split.
        name: of the dataset, for the report.
        cohort: the name of the held-out patients' cohort, where they are of one of several; None for all.
    """

    all_seen: RealSlices
    all_heldout: RealSlices
    groups: Sequence[str] = (TARGET_GROUP,)
    seen_groups: Sequence[str] | None = None
    split: str = "test"
    name: str = ""
    cohort: str | None = None

    @classmethod
    def read(
        cls,
        dataset: datasets.DatasetDict,
        split: str = "test",
        groups: Sequence[str] = (TARGET_GROUP,),
        seen_groups: Sequence[str] | None = None,
        name: str = "",
        cohort: str | None = None,
    ) -> "Reference":
        """Decode a prepared dataset, whose training split is what the generator was trained on.

        Raises:
            InputError: if there is no such split, group or cohort, or a split has no slices in ED or ES.
        """
        Vocabulary.of(dataset).choose(groups)
        seen, heldout = read_split(dataset, "train", all_frames=True), read_split(dataset, split, cohort=cohort)
        return cls(seen, heldout, tuple(groups), seen_groups, split, name, cohort)

    def check(self) -> None:
        """Refuse splits that share a patient, under whatever names.

        Raises:
            InputError: if they do.
        """
        ours, theirs = self.heldout.identities, self.training.identities
        if shared := shared_patients(ours, theirs) or [one for one in ours if one in theirs]:
            raise InputError(
                f"Patient {shared[0]} is both in split 'train' and in split '{self.split}'; prepare the data again."
            )

    @cached_property
    def training(self) -> RealSlices:
        """Slices of training patients of the groups."""
        return self._choose("train", self.all_training, self.groups)

    @cached_property
    def heldout(self) -> RealSlices:
        """Slices of held-out patients of the groups."""
        return self._choose(self.split, self.all_heldout, self.groups)

    @cached_property
    def seen(self) -> RealSlices:
        """All slices that the generator was trained on, which it may copy."""
        return self._choose("train", self.all_seen, self.seen_groups or self.groups)

    @cached_property
    def all_training(self) -> RealSlices:
        """Slices of training patients of all groups at end diastole and end systole."""
        return self.all_seen.at_ends()

    def _choose(self, split: str, slices: RealSlices, groups: Sequence[str]) -> RealSlices:
        chosen = slices.of_groups(groups)
        if not (chosen.phases >= 0).any():
            raise InputError(
                f"Split '{split}' has no slices of {', '.join(groups)} in ED or ES; name other groups or another "
                "split."
            )
        return chosen


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, and what several parts need to know of it.

    Attributes:
        generated: the images.
        reference: the real slices.
        encoder: of `load_encoder`; None leaves out what needs it.
        model: the diffusion model that made the images, for the test of membership; None for any other.
        real_per_image: real images that a generated one is compared with at random.
        seed: of all choices.
    """

    generated: GeneratedImages
    reference: Reference
    encoder: Encoder | None = None
    model: DDPMPipeline | None = None
    real_per_image: int = 50
    seed: int = 0

    @property
    def device(self) -> str | torch.device:
        """Where networks compute: where the encoder is."""
        return "cpu" if self.encoder is None else self.encoder.features.device

    @property
    def pixel_spacing(self) -> float:
        """The side of a pixel, mm."""
        return FIELD_OF_VIEW / self.generated.images.shape[2]

    def random(self, *stream: int) -> np.random.Generator:
        """Random numbers that are a function of the seed and of what they are for."""
        return np.random.default_rng((self.seed, *stream))

    @cached_property
    def resamples(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the held-out patients, and draws of them."""
        return bootstrap_draws(self.reference.heldout.patients, self.random(5))

    @cached_property
    def mean_image(self) -> np.ndarray:
        """The pixel-wise mean of the training slices, (1, H, W)."""
        return self.reference.training.images.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)

    @cached_property
    def mean_images(self) -> np.ndarray:
        """As many copies of it as there are held-out slices, a little shifted and brightened: (M, H, W)."""
        generator, count = self.random(6), len(self.reference.heldout.images)
        shifts = generator.integers(-3, 4, size=(count, 2))
        gains = generator.uniform(0.9, 1.1, size=(count, 1, 1))
        moved = np.stack([np.roll(self.mean_image[0], tuple(shift), axis=(0, 1)) for shift in shifts])
        return (moved * gains).clip(0, 1).astype(np.float32)

    @property
    def against_heldout(self) -> dict[str, np.ndarray]:
        """The rows of parts that compare sets of images with the held-out slices: real ones are training slices."""
        return {
            "generated": self.generated.images,
            "real": self.reference.training.images,
            "mean_image": self.mean_images,
        }

    def counts(self, images: np.ndarray) -> dict[str, Any]:
        """What a number says of images that are compared with all held-out slices."""
        codes, draws = self.resamples
        return {"protocol": "all", "n_generated": len(images), "n_real": len(codes), "n_patients": draws.shape[1]}

    @property
    def images(self) -> dict[str, np.ndarray]:
        """The images by row; `training` are the training slices."""
        return {
            "generated": self.generated.images,
            "real": self.reference.heldout.images,
            "training": self.reference.training.images,
            "mean_image": self.mean_images,
        }

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """The feature encoder's features by row of `images`, (N, D)."""
        assert self.encoder is not None  # what needs it is left out without one
        return {name: self.encoder.features.predict(images).features for name, images in self.images.items()}

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """The segmenter's predictions by row of `images`."""
        assert self.encoder is not None  # what needs it is left out without one
        return {name: self.encoder.segmenter.predict(images) for name, images in self.images.items()}

    @property
    def told_groups(self) -> tuple[str, ...]:
        """The groups that the segmenter tells apart; none where it does not know all groups of the real slices."""
        assert self.encoder is not None  # what needs it is left out without one
        segmenter, reference = self.encoder.segmenter, self.reference
        return segmenter.group_names if segmenter.knows(reference.all_training, reference.all_heldout) else ()

    @cached_property
    def phases(self) -> dict[str, np.ndarray]:
        """The phase of each slice by row of `images`, (N,), the index in `PHASES`.

        Of real slices the true one; of generated ones the one asked for, or the segmenter's where none was.
        """
        predicted, pairs = self.predictions, self.generated.pairs
        return {
            "generated": _known_or(None if pairs is None else pairs.phases, predicted["generated"].phases),
            "real": self.reference.heldout.phases,
            "training": self.reference.training.phases,
            "mean_image": predicted["mean_image"].phases,
        }

    @cached_property
    def both_splits(self) -> tuple[np.ndarray, np.ndarray]:
        """Real slices of the groups, of training and held-out patients, (N, H, W), and whose each is, (N,)."""
        ours, theirs = self.reference.training, self.reference.heldout
        return np.concatenate([ours.images, theirs.images]), np.concatenate([ours.patients, theirs.patients])

    @cached_property
    def imagenet_features(self) -> dict[str, np.ndarray]:
        """Features of `extractors.imagenet_features` by row, and those of the held-out slices; real ones are kept."""
        sets = self.against_heldout | {"heldout": self.reference.heldout.images}
        return {name: imagenet_features(one, self.device, name in ("real", "heldout")) for name, one in sets.items()}

    @property
    def levels(self) -> dict[str, np.ndarray | None]:
        """Phase and third of the heart as one number, of generated images and of the held-out slices in their place.

        Of generated images those that were asked for, or the segmenter's where none were; None if some are missing
        and there is no segmenter. Of held-out slices the true ones.
        """
        pairs, real = self.generated.pairs, self.reference.heldout.levels
        if pairs is not None and min(pairs.phases.min(), pairs.thirds.min()) >= 0:
            return {"generated": pairs.phases * THIRDS + pairs.thirds, "real": real}
        if self.encoder is None:
            return {"generated": None, "real": None}
        predicted = self.predictions["generated"].levels % THIRDS
        thirds = _known_or(None if pairs is None else pairs.thirds, predicted)
        return {"generated": self.phases["generated"] * THIRDS + thirds, "real": real}

    def begin_report(self) -> Report:
        """A report that says what is compared, without its parts."""
        images, reference = self.generated.images, self.reference
        training, heldout, seen = reference.training, reference.heldout, reference.seen
        data = Data(
            reference.name,
            fingerprint(training, heldout),
            reference.split,
            list(reference.groups),
            images.shape[2],
            reference.cohort,
        )
        return Report(
            hcm_hf_version=__version__,
            generator=self.generated.source,
            dataset=data,
            seed=self.seed,
            real_per_image=self.real_per_image,
            n_generated=len(images),
            n_reference=reference_size(training.patients, heldout.patients),
            seen_groups=list(reference.seen_groups or reference.groups),
            seen_groups_assumed=reference.seen_groups is None,
            n_seen=len(seen.images),
            n_seen_patients=len(np.unique(seen.patients)),
            n_train=len(training.images),
            n_train_patients=len(np.unique(training.patients)),
            n_heldout=len(heldout.images),
            n_heldout_patients=len(np.unique(heldout.patients)),
            encoder=None,
        )


def _known_or(known: np.ndarray | None, predicted: np.ndarray) -> np.ndarray:
    """Indices (N,) that are known, and the predicted ones where they are -1 or nothing is known."""
    return predicted if known is None else np.where(known >= 0, known, predicted)
