"""The arms of the experiment: which slices a network is trained on, in what order, and how they are augmented.

An arm is an entry of `ARMS`; nothing else knows their names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import datasets
import numpy as np
import torch

from hcm_hf.data.augmentation import StrongAugmentation
from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.evaluation.encoder import Instrument
from hcm_hf.metrics.anatomy import dice
from hcm_hf.study.usefulness.rows import decode, encode, make_rows
from hcm_hf.utils.devices import random_state_kept


CHAMBER_LABELS = (1, 2, 3)  # of a mask
Augmentation = Callable[[SliceBatch], tuple[torch.Tensor, torch.Tensor]]


class Material(Protocol):
    """What a cell's training slices are made of."""

    @property
    def real(self) -> datasets.Dataset:
        """The segmented slices of the drawn patients."""

    @property
    def seed(self) -> int:
        """A seed of the draw, the same in all arms."""

    def generated(self, count: int) -> datasets.Dataset:
        """The first `count` slices of the cell's generator."""

    def segmenter(self) -> Instrument:
        """A segmenter that has seen the drawn patients alone."""


class SliceSource(Protocol):
    """Where training slices come from."""

    @property
    def is_synthetic(self) -> bool:
        """Whether a generator makes them."""

    @property
    def candidates(self) -> int:
        """Generated slices that it looks at, for each real one."""

    def slices(self, material: Material) -> datasets.Dataset:
        """The slices, with the columns of the real ones."""


@dataclass(frozen=True)
class Real:
    """The slices of the drawn patients."""

    is_synthetic = False
    candidates = 0

    def slices(self, material: Material) -> datasets.Dataset:
        """Those slices as they are."""
        return material.real


@dataclass(frozen=True)
class Warped:
    """Warped copies of the real slices, made once: a control for the number of slices.

    Attributes:
        per_real: copies of each slice.
        warp: how slices and masks are deformed.
    """

    per_real: int = 1
    warp: StrongAugmentation = StrongAugmentation(elastic=0.04, gamma=0, contrast=0, brightness=0, blur=0, noise=0)

    is_synthetic = False
    candidates = 0

    @random_state_kept()
    def slices(self, material: Material) -> datasets.Dataset:
        """The copies."""
        real = material.real
        torch.manual_seed(material.seed)
        batch = Slices(real, real.features["group"].names).batch(slice(None))
        made = []
        for copy in range(self.per_real):
            images, masks = self.warp(batch)
            pixels = ((images[:, 0] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
            columns = {name: list(real[name]) for name in real.features if name not in ("image", "mask", "patient")}
            columns |= {"image": encode(pixels), "mask": encode(masks.byte().numpy())}
            columns["patient"] = [f"warped-{copy}:{name}" for name in real["patient"]]
            made.append(make_rows(columns, real))
        return datasets.concatenate_datasets(made)


@dataclass(frozen=True)
class Synthetic:
    """Slices of the cell's generator.

    Attributes:
        per_real: slices for each real one.
    """

    per_real: int = 1

    is_synthetic = True

    @property
    def candidates(self) -> int:
        """As many as it takes."""
        return self.per_real

    def slices(self, material: Material) -> datasets.Dataset:
        """The first of them."""
        return material.generated(self.per_real * len(material.real))


@dataclass(frozen=True)
class Filtered:
    """Slices of the cell's generator whose masks a segmenter of the drawn patients agrees with.

    Attributes:
        per_real: slices for each real one; fewer if too few are left.
        least_dice: between mask and segmenter, the mean of the chambers that either of them has.
        candidates: slices to choose from, for each real one.
    """

    per_real: int = 1
    least_dice: float = 0.7
    candidates: int = 2

    is_synthetic = True

    def slices(self, material: Material) -> datasets.Dataset:
        """The first of those that are left."""
        rows = material.generated(self.candidates * len(material.real))
        images, masks = decode(rows)
        found = material.segmenter().predict(images.astype(np.float32) / 255).masks
        agreement = np.array([_agreement(mask, own) for mask, own in zip(masks, found, strict=True)])
        return rows.select(np.flatnonzero(agreement >= self.least_dice)[: self.per_real * len(material.real)])


@dataclass(frozen=True)
class Stage:
    """A stretch of a training.

    Attributes:
        sources: whose slices are mixed.
        share: of the optimiser steps.
    """

    sources: tuple[SliceSource, ...]
    share: float = 1.0

    def slices(self, material: Material) -> list[datasets.Dataset]:
        """The slices of each source; a step draws from all of them alike."""
        return [source.slices(material) for source in self.sources]


@dataclass(frozen=True)
class Unchanged:
    """No augmentation."""

    def __call__(self, batch: SliceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and masks of a batch as they are."""
        return batch.images, batch.masks


@dataclass(frozen=True)
class Arm:
    """One way to train the same network in the same number of steps.

    Attributes:
        title: what it is, for tables.
        stages: one after the other; their shares sum to 1.
        augmentation: of all slices.
    """

    title: str
    stages: tuple[Stage, ...]
    augmentation: Augmentation = field(default_factory=StrongAugmentation)

    @property
    def is_synthetic(self) -> bool:
        """Whether it needs a generator."""
        return any(source.is_synthetic for stage in self.stages for source in stage.sources)

    @property
    def candidates(self) -> int:
        """Generated slices that it looks at, for each real one."""
        return max(source.candidates for stage in self.stages for source in stage.sources)


def _mixed(*sources: SliceSource) -> tuple[Stage, ...]:
    return (Stage(sources),)


BASELINE, PRIMARY = "augmented", "synthetic_1to1"
ARMS = {
    "real": Arm("real", _mixed(Real()), Unchanged()),
    BASELINE: Arm("real + classical augmentation", _mixed(Real())),
    "warped_1to1": Arm("the same + warped copies 1:1", _mixed(Real(), Warped())),
    PRIMARY: Arm("the same + synthetic 1:1", _mixed(Real(), Synthetic())),
    "synthetic_1to3": Arm("the same + synthetic 1:3", _mixed(Real(), Synthetic(3))),
    "filtered_1to1": Arm("the same + synthetic 1:1, filtered", _mixed(Real(), Filtered())),
    "synthetic_alone": Arm("synthetic alone", _mixed(Synthetic())),
    "pretrained": Arm("synthetic, then real", (Stage((Synthetic(),), 0.5), Stage((Real(),), 0.5))),
}


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Mean Dice coefficient of the chambers that either mask has; 0 if neither has any."""
    values = [dice(first == label, second == label) for label in CHAMBER_LABELS]
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0
