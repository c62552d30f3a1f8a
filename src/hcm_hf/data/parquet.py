"""Datasets as the Hub takes them: a card, and Parquet files such as `data/train-00000-of-00002.parquet`."""

import glob
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import yaml
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import DatasetCard, constants

from hcm_hf.data.schema import SPLITS
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


PATTERN = "data/*.parquet"
_OF_SEVERAL = re.compile(r"(.+)-\d{5}-of-(\d{5})\.parquet")
_ROWS = 1000  # that are in memory at once
_ROWS_OF_FILE = 10_000


def to_table(rows: Sequence[dict], schema: datasets.Features) -> pyarrow.Table:
    """Rows as a dataset stores them, images and masks as PNG bytes; a `datasets.Dataset` would take longer."""
    columns = {key: [row[key] for row in rows] for key in schema}
    for key in ("image", "mask"):
        columns[key] = [png and {"bytes": png, "path": None} for png in columns[key]]
    return pyarrow.Table.from_pydict(schema.encode_batch(columns), schema=schema.arrow_schema)


def write_split(folder: Path, split: str, rows: Iterable[dict], num_rows: int, schema: datasets.Features) -> None:
    """Write the rows of a split into files of 10,000 rows; at most 1,000 rows are in memory.

    `datasets.load_dataset(folder, streaming=True)` reads them, too.
    """
    rows, num_files = iter(rows), max(1, math.ceil(num_rows / _ROWS_OF_FILE))
    (folder / PATTERN).parent.mkdir(exist_ok=True)
    for index in range(num_files):
        path = (folder / PATTERN).with_name(f"{split}-{index:05d}-of-{num_files:05d}.parquet")
        of_file = itertools.islice(rows, _ROWS_OF_FILE)
        with pyarrow.parquet.ParquetWriter(path, schema.arrow_schema) as writer:
            while some := list(itertools.islice(of_file, _ROWS)):
                writer.write_table(to_table(some, schema))


def holds_parquet(folder: Path) -> bool:
    """Whether a folder is a dataset of this kind."""
    return any(folder.glob(PATTERN))


def read_splits(folder: Path, name: str) -> datasets.DatasetDict:
    """Open a folder's Parquet files; each belongs to the split that its name starts with.

    The licence comes from the card. File paths in the card are ignored: they could name any file on this machine.
    Messages call the folder `name`.

    Raises:
        InputError: if there are none, if one is missing, or if the cache of `datasets` cannot be written.
    """
    files: dict[str, list[str]] = {}
    for path in sorted(folder.glob(PATTERN)):
        files.setdefault(re.split(r"[-.]", path.name)[0], []).append(glob.escape(str(path)))
        _check_siblings(path)
    if not files:
        raise InputError(f"dataset {name} holds no {PATTERN}; push one with scripts/push.py.")
    order = (split for split in dict.fromkeys((*SPLITS, *files)) if split in files)
    with explained(datasets.config.HF_DATASETS_CACHE, "write"):  # the rows are unpacked there
        try:
            splits = datasets.load_dataset("parquet", data_files={split: files[split] for split in order})
        except DatasetGenerationError as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None
    card = folder / constants.REPOCARD_NAME
    try:
        license_name = DatasetCard.load(card).data.license if card.is_file() else None
    except (ValueError, yaml.YAMLError):  # a card that cannot be read names no licence
        license_name = None
    for split in splits.values():
        split.info.license = license_name if isinstance(license_name, str) else ""
    return splits


def _check_siblings(path: Path) -> None:
    """Raise an `InputError` if a file names itself as one of several, and another of them is not there."""
    if not (found := _OF_SEVERAL.fullmatch(path.name)):
        return
    for index in range(int(found[2])):
        other = path.with_name(f"{found[1]}-{index:05d}-of-{found[2]}.parquet")
        if not other.is_file():
            raise InputError(f"{other} is missing, and {path.name} is there; copy the dataset again.")
