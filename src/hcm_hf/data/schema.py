"""The columns of a prepared dataset, and the check of a dataset that is opened."""

import re
from collections.abc import Mapping

import datasets
import numpy as np

from hcm_hf.data.acdc import GROUPS, PHASES
from hcm_hf.data.identity import read_identities
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.pictures import picture_size


SPLITS = ("train", "validation", "test")

FEATURES = datasets.Features(
    {
        "image": datasets.Image(mode="L"),
        "mask": datasets.Image(
            mode="L"
        ),  # 0 background, 1 RV cavity, 2 myocardium, 3 LV cavity; null where unlabelled
        "patient": datasets.Value("string"),
        "group": datasets.ClassLabel(names=list(GROUPS)),
        "phase": datasets.ClassLabel(names=list(PHASES)),  # null for the frames between
        "frame": datasets.Value("int32"),  # from 1
        "slice_index": datasets.Value("int32"),  # from 0 at the base
        "num_slices": datasets.Value("int32"),
        "pixel_spacing": datasets.Value("float32"),  # mm of the written image
        "slice_thickness": datasets.Value("float32"),  # mm
        "height": datasets.Value("float32"),  # cm
        "weight": datasets.Value("float32"),  # kg
        "volume_sha256": datasets.Value("string"),  # of the voxels as stored; identifies the patient
    }
)
_PICTURES = ("image", "mask")
_NEEDED = ("image", "patient", "group", "slice_index", "num_slices", "volume_sha256")  # never null
_BATCH = 1000  # rows checked together


def check_splits(splits: object, name: str) -> datasets.DatasetDict:
    """Check the columns of a dataset, their types, and the sizes of its pictures without unpacking them.

    Pictures must lie in the rows, as bytes; a path or an address in their place is never followed.

    Args:
        splits: the opened dataset.
        name: the user's name for it, as the beginning of a sentence.

    Returns:
        The splits; train, validation and test come first.

    Raises:
        InputError: names the split and the column.
    """
    if not isinstance(splits, datasets.DatasetDict):
        raise InputError(f"{name} has no slices in a split '{SPLITS[0]}'; prepare it again.")
    sizes = set()
    for split in SPLITS:
        if split not in splits or not len(splits[split]):
            raise InputError(f"{name} has no slices in a split '{split}'; prepare it again.")
        _check_types(splits[split], f"{name} in '{split}'", name, split)
        sizes |= _check_rows(splits[split], name, split)
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        found = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise InputError(f"{name} has images of {found} px; all must be square and of one size, so prepare it again.")
    others = {split: splits[split] for split in splits if split not in SPLITS}
    return datasets.DatasetDict({split: splits[split] for split in SPLITS} | others)


def _check_types(split: datasets.Dataset, place: str, name: str, split_name: str) -> None:
    if missing := [key for key in FEATURES if key not in split.features]:
        raise InputError(f"{name} has no column '{missing[0]}' in '{split_name}'; prepare it again.")
    for key, wanted in FEATURES.items():
        found = split.features[key]
        fits = isinstance(found, type(wanted))
        if fits and isinstance(wanted, datasets.ClassLabel):
            fits = found.names == wanted.names
        elif fits and isinstance(wanted, datasets.Value):
            fits = _kind(found.dtype) == _kind(wanted.dtype)
        if not fits:
            raise InputError(f"{place} has {_shown(found)} in column '{key}', not {_shown(wanted)}; prepare it again.")


def _kind(dtype: str) -> str:
    """Return the kind of a type without its width: int, float or string."""
    return re.sub(r"large_|\d+", "", dtype)


def _shown(feature: object) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return f"classes {', '.join(feature.names)}"
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__.lower()


def _check_rows(split: datasets.Dataset, name: str, split_name: str) -> set[tuple[int, int]]:
    """Check that required values are there and pictures are valid; return the sizes of the pictures."""
    raw, sizes, first = split, set(), 0
    for key in _PICTURES:
        raw = raw.cast_column(key, datasets.Image(decode=False))
    for batch in raw.select_columns(list(FEATURES)).iter(batch_size=_BATCH):
        for key in _NEEDED:
            if None in batch[key]:
                row = first + batch[key].index(None)
                raise InputError(
                    f"{name} has nothing in column '{key}' of row {row} in '{split_name}'; prepare it again."
                )
        for key in ("group", "phase"):
            classes = len(split.features[key].names)
            for place, label in enumerate(batch[key]):
                if label is not None and not 0 <= label < classes:
                    raise InputError(
                        f"{name} has class {label} in column '{key}' of row {first + place} in '{split_name}'."
                    )
        for place, pictures in enumerate(zip(*(batch[key] for key in _PICTURES), strict=True)):
            for key, picture in zip(_PICTURES, pictures, strict=True):
                if picture is None:
                    continue
                what = f"{name}, the {key} of row {first + place} in '{split_name}',"
                if not picture["bytes"]:
                    raise InputError(f"{what} names a file in place of a picture; such files are not opened.")
                sizes.add(picture_size(picture["bytes"], what))
        counts = np.array([batch["slice_index"], batch["num_slices"]])
        if (counts[0] < 0).any() or (counts[1] < 1).any():
            raise InputError(
                f"{name} has a slice_index below 0 or num_slices below 1 in '{split_name}'; prepare it again."
            )
        first += len(batch["patient"])
    return sizes


def check_preparation(value: object, name: str) -> dict:
    """Check the entries of `preparation.json` that other modules read.

    Args:
        value: content of the file.
        name: name of the file, as the beginning of a sentence.

    Raises:
        InputError: if it is damaged.
    """
    found: Mapping = value if isinstance(value, Mapping) else {}

    def fits(key: str, kind: type | tuple[type, ...]) -> bool:
        return isinstance(found.get(key), kind) and not isinstance(found.get(key), bool)

    good = (
        fits("source", str)
        and all(fits(key, (int, float)) and 0 < found[key] < 10_000 for key in ("resolution", "pixel_spacing"))
        and all(fits(key, list) and all(isinstance(one, str) for one in found[key]) for key in ("left_out", "notes"))
        and fits("slices", list)
        and all(
            isinstance(row, Mapping)
            and all(isinstance(row.get(key), str) for key in ("split", "group"))
            and all(isinstance(row.get(key), int) for key in ("patients", "slices", *PHASES, "other"))
            for row in found["slices"]
        )
        and isinstance(found.get("generator"), (Mapping, type(None)))
    )
    if not good:
        raise InputError(f"{name} is damaged; prepare the dataset again.")
    if found.get("generator") is not None:
        read_identities(found["generator"].get("train_patients"), f"The generator in {name}")
    return dict(found)
