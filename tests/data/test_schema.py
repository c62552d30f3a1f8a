import io
import json
import zlib

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import HfApi
from PIL import Image

from hcm_hf.data.dataset import load_dataset, prepare_dataset, read_preparation
from hcm_hf.data.schema import SPLITS, check_preparation, check_splits, features
from hcm_hf.data.slices import Slices
from hcm_hf.utils.errors import InputError


FEATURES = features(("DCM", "HCM", "MINF", "NOR", "RV"))


def png(size=(16, 16), mode="L", value=0):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, format="PNG")
    return buffer.getvalue()


def huge_png(side=20_000):
    """A picture of 400 megapixels in a few hundred kilobytes."""

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    data = zlib.compress(bytes(side + 1) * 10)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def row(**changes):
    values = {
        "image": {"bytes": png(), "path": None},
        "mask": {"bytes": png(), "path": None},
        "patient": "patient001",
        "group": 1,
        "phase": 0,
        "frame": 1,
        "slice_index": 0,
        "num_slices": 2,
        "pixel_spacing": 8.0,
        "slice_thickness": 10.0,
        "height": None,
        "weight": None,
        "volume_sha256": "0" * 64,
        "cohort": "acdc",
    }
    return values | changes


def picture(data, path=None):
    return {"bytes": data, "path": path}


def make(features=FEATURES, **changes):
    """A dataset whose last test row is changed."""
    stored = datasets.Features(dict(features))
    raw = datasets.Features(
        {
            key: datasets.Image(decode=False) if isinstance(value, datasets.Image) else value
            for key, value in stored.items()
        }
    )

    def split(*rows):
        columns = {key: [one[key] for one in rows] for key in stored}
        return datasets.Dataset.from_dict(columns, features=raw).cast(stored)

    return datasets.DatasetDict(train=split(row()), validation=split(row()), test=split(row(), row(**changes)))


def save(splits, folder):
    """As `save_to_disk`, which would fetch what a path or an address in place of a picture names."""
    make().save_to_disk(folder)
    for name, split in splits.items():
        table = split.data.table
        with pyarrow.ipc.new_stream(str(next((folder / name).glob("*.arrow"))), table.schema) as stream:
            stream.write_table(table)


BAD = {
    "a path": ({"image": picture(None, "/etc/hostname")}, "names a file in place of a picture; such files are not"),
    "an address": ({"mask": picture(None, "http://127.0.0.1:9/x.png")}, "the mask of row 1 in 'test', names a file"),
    "nothing": ({"image": None}, "nothing in column 'image' of row 1 in 'test'"),
    "no patient": ({"patient": None}, "nothing in column 'patient' of row 1"),
    "broken": ({"image": picture(b"not a picture")}, "the image of row 1 in 'test', cannot be read as an image"),
    "another size": ({"image": picture(png((16, 32)))}, "images of 16 x 16, 16 x 32 px; all must be square"),
    "colours": ({"image": picture(png(mode="RGB"))}, "has mode RGB; expected 8-bit grey"),
    "400 megapixels": ({"image": picture(huge_png())}, "too many pixels|20000 x 20000 pixels"),
    "a position": ({"slice_index": -1}, "slice_index below 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_others_wrote_is_refused_at_the_door(tmp_path, kind):
    changes, message = BAD[kind]
    save(make(**changes), tmp_path / "data")
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path / "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", BAD)
def test_and_so_it_is_from_the_hub(hub, tmp_path, kind):
    changes, message = BAD[kind]
    api = HfApi()
    api.create_repo("ada/slices", repo_type="dataset")
    for name, split in make(**changes).items():
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(split.data.table, path)
        api.upload_file(
            path_or_fileobj=path, path_in_repo=f"data/{path.name}", repo_id="ada/slices", repo_type="dataset"
        )
    with pytest.raises(InputError, match=message):
        load_dataset("ada/slices")


@pytest.mark.parametrize(
    ("column", "feature", "values", "message"),
    [
        ("group", datasets.Value("string"), "HCM", "has string in column 'group', not classes of groups"),
        ("phase", datasets.ClassLabel(names=["ES", "ED"]), 0, "has classes ES, ED in column 'phase', not classes ED"),
        ("slice_index", datasets.Value("string"), "0", "has string in column 'slice_index', not int32"),
        ("image", datasets.Value("string"), "x.png", "has string in column 'image', not image"),
    ],
)
def test_columns_are_compared_by_their_types(tmp_path, column, feature, values, message):
    features = datasets.Features(dict(FEATURES) | {column: feature})
    rows = {key: [row(**{column: values})[key]] for key in FEATURES}
    raw = {
        key: datasets.Image(decode=False) if isinstance(value, datasets.Image) else value
        for key, value in features.items()
    }
    split = datasets.Dataset.from_dict(rows, features=datasets.Features(raw)).cast(features)
    datasets.DatasetDict(dict.fromkeys(SPLITS, split)).save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "data")


def test_groups_are_the_datasets_own_and_those_of_all_splits():
    other = make(features(("HCM", "athlete")))
    assert check_splits(other, "x")["test"].features["group"].names == ["HCM", "athlete"]
    mixed = datasets.DatasetDict(dict(make()) | {"test": other["test"]})
    with pytest.raises(InputError, match="'test' has classes HCM, athlete in column 'group', not classes DCM"):
        check_splits(mixed, "x")


def test_a_dataset_from_before_has_the_cohort_that_it_was_made_of(tmp_path):
    before = datasets.DatasetDict({name: split.remove_columns("cohort") for name, split in make().items()})
    before.save_to_disk(tmp_path / "data")
    splits = load_dataset(tmp_path / "data")
    assert all(split.features == FEATURES and set(split["cohort"]) == {"acdc"} for split in splits.values())
    assert Slices(splits["test"], ("HCM",)).fingerprint() == Slices(make()["test"], ("HCM",)).fingerprint()


def test_wider_numbers_are_the_same_columns(tmp_path):
    features = datasets.Features(
        dict(FEATURES) | {"frame": datasets.Value("int64"), "height": datasets.Value("float64")}
    )
    make(features).save_to_disk(tmp_path / "data")
    assert list(load_dataset(tmp_path / "data")) == list(SPLITS)


def test_a_mask_of_other_labels_is_refused_where_it_is_unpacked(tmp_path):
    make(mask=picture(png(value=9))).save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match="A mask of the dataset has labels above 3"):
        Slices(load_dataset(tmp_path / "data")["test"], ("HCM",))


def test_what_a_preparation_says_is_checked_once(cohort, tmp_path):
    prepare_dataset(cohort, tmp_path / "data", 16)
    path = tmp_path / "data/preparation.json"
    (tmp_path / "data/SHA256SUMS").unlink()  # with it any change is refused
    good = json.loads(path.read_text())
    assert check_preparation(good, "x") == good == read_preparation(tmp_path / "data")
    for changes in (
        {"resolution": "16"},
        {"pixel_spacing": float("nan")},
        {"slices": [{"split": "train"}]},
        {"notes": [1]},
        {"source": None},
        {"generator": {"train_patients": {"a": "old"}}},
    ):
        path.write_text(json.dumps(good | changes))
        with pytest.raises(InputError, match="preparation.json"):
            read_preparation(tmp_path / "data")
    for text in ("[]", "{", '"x"'):
        path.write_text(text)
        with pytest.raises(InputError, match="preparation.json"):
            read_preparation(tmp_path / "data")
    np.testing.assert_equal(len(load_dataset(tmp_path / "data")), 3)
