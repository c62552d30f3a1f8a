"""The columns of a prepared dataset, and the check of a dataset that is opened."""

import re
from collections.abc import Mapping, Sequence

import datasets

from hcm_hf.data.cohort import PHASES
from hcm_hf.data.identity import read_identities
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.pictures import picture_size


SPLITS = ("train", "validation", "test")

_PICTURES = ("image", "mask")
_NEEDED = ("image", "patient", "group", "slice_index", "num_slices", "volume_sha256")  # never null
_BATCH = 1000  # rows checked together
_FIRST_COHORT = "acdc"  # of datasets that were prepared before they had a column `cohort`


def features(groups: Sequence[str]) -> datasets.Features:
    """The columns of a dataset whose patients are of these groups; the classes are their names, sorted."""
    return datasets.Features(
        {
            "image": datasets.Image(mode="L"),
            "mask": datasets.Image(mode="L"),  # the index in `STRUCTURES`; null where unlabelled
            "patient": datasets.Value("string"),
            "group": datasets.ClassLabel(names=sorted(groups)),
            "phase": datasets.ClassLabel(names=list(PHASES)),  # null for the frames between
            "frame": datasets.Value("int32"),  # from 1
            "slice_index": datasets.Value("int32"),  # from 0 at the base
            "num_slices": datasets.Value("int32"),
            "pixel_spacing": datasets.Value("float32"),  # mm of the written image
            "slice_thickness": datasets.Value("float32"),  # mm
            "height": datasets.Value("float32"),  # cm
            "weight": datasets.Value("float32"),  # kg
            "volume_sha256": datasets.Value("string"),  # of the voxels as stored; identifies the patient
            "cohort": datasets.Value("string"),  # the patient's; a dataset may hold several
        }
    )


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
    given = dict(splits) if isinstance(splits, datasets.DatasetDict) else {}
    sizes = set()
    for split in SPLITS:
        if split not in given or not len(given[split]):
            raise InputError(f"{name} has no slices in a split '{split}'; prepare it again.")
        if "cohort" not in given[split].features:
            given[split] = given[split].add_column("cohort", [_FIRST_COHORT] * len(given[split]))
        _check_types(given[split], name, split, given["train"].features)
        sizes |= _check_rows(given[split], name, split)
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        found = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise InputError(f"{name} has images of {found} px; all must be square and of one size, so prepare it again.")
    return datasets.DatasetDict({split: given[split] for split in dict.fromkeys((*SPLITS, *given))})


def _check_types(split: datasets.Dataset, name: str, split_name: str, first: datasets.Features) -> None:
    """Compare a split's columns with those that a dataset has, and its groups with those of the `first` split."""
    groups = first.get("group")
    columns = features(groups.names if isinstance(groups, datasets.ClassLabel) else ["of groups"])
    if missing := [key for key in columns if key not in split.features]:
        raise InputError(f"{name} has no column '{missing[0]}' in '{split_name}'; prepare it again.")
    for key, wanted in columns.items():
        found = split.features[key]
        if _kind(found) != _kind(wanted):
            what = f"{_shown(found)} in column '{key}', not {_shown(wanted)}"
            raise InputError(f"{name} in '{split_name}' has {what}; prepare it again.")


def _kind(feature: object) -> str:
    """Return what must be equal: a type without its width, or the names of classes."""
    return _shown(feature) if isinstance(feature, datasets.ClassLabel) else re.sub(r"large_|\d+", "", _shown(feature))


def _shown(feature: object) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return f"classes {', '.join(feature.names)}"
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__.lower()


def _check_rows(split: datasets.Dataset, name: str, split_name: str) -> set[tuple[int, int]]:
    """Check that required values are there and pictures are valid; return the sizes of the pictures."""
    raw, sizes = split, set()
    for key in _PICTURES:
        raw = raw.cast_column(key, datasets.Image(decode=False))
    columns = list(features(()))
    classes = {key: len(split.features[key].names) for key in ("group", "phase")}
    batches = raw.select_columns(columns).iter(_BATCH)
    rows = (values for batch in batches for values in zip(*(batch[key] for key in columns), strict=True))
    for index, values in enumerate(rows):
        row = dict(zip(columns, values, strict=True))
        place = f"row {index} in '{split_name}'"
        for key in _NEEDED:
            if row[key] is None:
                raise InputError(f"{name} has nothing in column '{key}' of {place}; prepare it again.")
        for key, count in classes.items():
            if row[key] is not None and not 0 <= row[key] < count:
                raise InputError(f"{name} has class {row[key]} in column '{key}' of {place}.")
        if row["slice_index"] < 0 or row["num_slices"] < 1:
            raise InputError(f"{name} has a slice_index below 0 or num_slices below 1 in {place}; prepare it again.")
        for key in _PICTURES:
            if row[key] is not None:
                what = f"{name}, the {key} of {place},"
                if not row[key]["bytes"]:
                    raise InputError(f"{what} names a file in place of a picture; such files are not opened.")
                sizes.add(picture_size(row[key]["bytes"], what))
    return sizes


def check_preparation(value: object, name: str) -> dict:
    """Return the content of `preparation.json`, or raise an `InputError` that begins with `name` if it is damaged."""
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
