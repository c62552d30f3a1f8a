"""Rows of slices: made of arrays, of a generator's dataset, and written as a dataset to train on."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from hcm_hf.data.schema import SPLITS
from hcm_hf.data.slices import Slices
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import replacing


_PICTURES = ("image", "mask")


def make_rows(columns: Mapping[str, Sequence], like: datasets.Dataset) -> datasets.Dataset:
    """Rows of given columns, with the features and the licence of other rows; a column that is missing is empty."""
    count = len(columns["image"])
    complete = {name: columns[name] if name in columns else [None] * count for name in like.features}
    return datasets.Dataset.from_dict(complete, info=like.info.copy(), split=like.split)


def encode(pictures: np.ndarray) -> list[dict]:
    """Pictures, uint8 (N, H, W), as a column of PNG files."""
    column = []
    for pixels in pictures:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        column.append({"bytes": buffer.getvalue(), "path": None})
    return column


def decode(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, H, W), and masks, (N, H, W), of rows."""
    slices = Slices(rows, rows.features["group"].names)
    return slices.images.numpy(), slices.masks.numpy()


def adopt(generated: datasets.DatasetDict, real: datasets.Dataset, made_by: str) -> datasets.Dataset:
    """The slices of a generated dataset as rows beside real ones.

    Args:
        generated: all of its splits.
        real: the real slices, whose columns and groups the rows get.
        made_by: the generator, for messages.

    Raises:
        InputError: if the size differs, or the groups are not those of the real slices.
    """
    rows = datasets.concatenate_datasets([generated[split] for split in generated])
    rows = rows.select(np.argsort(list(rows["patient"]), kind="stable"))
    for name in _PICTURES:
        rows = rows.cast_column(name, datasets.Image(decode=False))
    own, size = decode(rows.select([0]))[0].shape[-1], decode(real.select([0]))[0].shape[-1]
    if own != size:
        raise InputError(f"{made_by} makes slices of {own} px, and the dataset's have {size}; name another.")
    names, known = rows.features["group"].names, real.features["group"].names
    shown = {names[label] for label in set(rows["group"])}
    wanted = {known[label] for label in set(real["group"])}
    if missing := sorted(wanted - shown):
        raise InputError(
            f"{made_by} has made no slice of {missing[0]}, so that a network would learn to tell real from synthetic; "
            "name one that makes all groups."
        )
    if foreign := sorted(shown - set(known)):
        raise InputError(f"{made_by} makes slices of {foreign[0]}, a group that the dataset lacks; name another.")
    columns = {name: list(rows[name]) for name in real.features if name in rows.features}
    columns["group"] = [known.index(names[label]) for label in rows["group"]]
    return make_rows(columns, real)


def write_training_set(rows: datasets.Dataset, folder: Path, least: int) -> None:
    """Write rows as a dataset for `train`, repeated as a whole until there are `least` or more.

    The other splits, which nothing is chosen by, hold some of the same rows: no other patient lies in the folder.
    """
    repeats = -(-least // len(rows))
    some = rows.select(np.unique(np.linspace(0, len(rows) - 1, 32).astype(int)))
    held = {split: some for split in SPLITS if split != "train"}
    with replacing(folder) as temporary:
        splits = {"train": datasets.concatenate_datasets([rows] * repeats)} | held
        datasets.DatasetDict(splits).save_to_disk(temporary)
