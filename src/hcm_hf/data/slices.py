"""Slices of a prepared dataset as tensors in [-1, 1]."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from hcm_hf.data.cohort import STRUCTURES
from hcm_hf.data.identity import Identities, identify
from hcm_hf.data.vocabulary import check_groups
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.pictures import read_picture


Indices = Sequence[int] | np.ndarray | torch.Tensor | slice


def _alone(values: torch.Tensor) -> torch.Tensor:
    return values


@dataclass
class SliceBatch:
    """Slices as tensors; with several processes, one process's part of a batch."""

    images: torch.Tensor  # float32 (B, 1, H, W) in [-1, 1]
    masks: torch.Tensor  # int64 (B, H, W), the indices of `STRUCTURES`; -1 everywhere without a segmentation
    class_labels: torch.Tensor  # int64 (B,), the index among the dataset's groups
    phases: torch.Tensor  # int64 (B,), the index in `PHASES`; -1 for the frames between
    positions: torch.Tensor  # float32 (B,) in [0, 1], from the first to the last slice of the volume
    process_index: int = 0  # this part is every `num_processes`-th slice, from this one on
    num_processes: int = 1  # that share the batch, B slices each
    gather: Callable[[torch.Tensor], torch.Tensor] = _alone  # concatenates the tensors of all processes

    def to(self, device: torch.device | str) -> "SliceBatch":
        """The same batch on `device`."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return SliceBatch(**vars(self) | tensors)

    def draw(self, sample: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """Draw numbers for the whole batch with `sample(n)`; return this part's, whatever `num_processes` is."""
        return sample(len(self) * self.num_processes)[self.process_index :: self.num_processes]

    def whole(self, values: torch.Tensor) -> torch.Tensor:
        """Gather values (n, ...) of these slices from all processes, in the order of the whole batch."""
        gathered = self.gather(values.detach().contiguous())
        return gathered.unflatten(0, (-1, len(values))).transpose(0, 1).flatten(0, 1)

    def __len__(self) -> int:
        return len(self.images)


class Slices:
    """A split decoded once into memory: 8-bit images and labels, from which batches are cut without decoding.

    Args:
        split: one split of the `datasets.DatasetDict`.
        groups: the groups to keep.

    Attributes:
        groups: the names of all groups of the dataset, by their indices in `class_labels`.

    Raises:
        InputError: if the dataset has no such group, or no slice of these groups is there.
    """

    def __init__(self, split: datasets.Dataset, groups: Sequence[str]):
        self.groups = tuple(split.features["group"].names)
        check_groups(groups, self.groups)
        wanted = {self.groups.index(group) for group in groups}
        rows = [index for index, group in enumerate(split["group"]) if group in wanted]
        if not rows:
            raise InputError(f"No slice of groups {' '.join(groups)} is in the split '{split.split}'.")
        split = split.select(rows)
        labels = split.remove_columns(["image", "mask"]).to_dict()
        images = np.stack([np.asarray(image) for image in _decode(split, "image")])
        self.images = torch.from_numpy(images)  # (N, H, W) uint8
        blank = np.full(self.images.shape[1:], -1)
        masks = [blank if mask is None else mask for mask in _decode(split, "mask")]
        if any(mask.max() >= len(STRUCTURES) for mask in masks):
            raise InputError(f"A mask of the dataset has labels above {len(STRUCTURES) - 1}; prepare it again.")
        self.masks = torch.from_numpy(np.stack(masks).astype(np.int8))
        self.patients = labels["patient"]
        self.volumes = labels["volume_sha256"]
        self.class_labels = torch.tensor(labels["group"])
        self.phases = torch.tensor([-1 if phase is None else phase for phase in labels["phase"]])
        last = np.maximum(np.array(labels["num_slices"]) - 1, 1)
        self.positions = torch.tensor(np.array(labels["slice_index"]) / last, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Indices, process_index: int = 0, num_processes: int = 1) -> SliceBatch:
        """The slices at `indices`, in that order; they are one process's part of a batch of several."""
        images, masks = self.images[indices].unsqueeze(1).float() / 127.5 - 1, self.masks[indices].long()
        labels, phases, positions = (one[indices] for one in (self.class_labels, self.phases, self.positions))
        return SliceBatch(images, masks, labels, phases, positions, process_index, num_processes)

    def identities(self) -> Identities:
        """Identify each patient by the SHA-256 of the labelled volumes, whatever the patient's name."""
        labelled = [index for index, phase in enumerate(self.phases.tolist()) if phase >= 0] or range(len(self))
        return identify([self.patients[index] for index in labelled], [self.volumes[index] for index in labelled])

    def fingerprint(self) -> str:
        """SHA-256 over pixels and groups: the identity of the data, wherever it is stored."""
        digest = hashlib.sha256(self.images.numpy().data)
        digest.update(self.class_labels.numpy().data)
        return digest.hexdigest()


def _decode(split: datasets.Dataset, column: str) -> list[np.ndarray | None]:
    """Pixels of a column of pictures, uint8 (H, W) each, or None where there is none."""
    raw = split.cast_column(column, datasets.Image(decode=False))[column]
    return [
        None if one is None else read_picture(one["bytes"], f"The {column} of slice {index} of the dataset")
        for index, one in enumerate(raw)
    ]
