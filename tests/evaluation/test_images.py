import json

import datasets
import numpy as np
import pytest
from PIL import Image

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.schema import features
from hcm_hf.evaluation.images import count_images, find_levels, fingerprint, read_images, read_pairs, read_split
from hcm_hf.evaluation.report import Source
from hcm_hf.utils.errors import InputError


SIZE = 16


def make_split(patients: dict[str, str], seed: int = 0, rename: str = "", unmasked: int = 1) -> datasets.Dataset:
    """Three ED and two ES slices of each patient, named with his group, and a frame between, which is unlabelled."""
    generator = np.random.default_rng(seed)
    rows = []
    for patient, group in patients.items():
        for phase, index, count in [
            ("ED", 0, 3),
            ("ED", 1, 3),
            ("ED", 2, 3),
            ("ES", 0, 2),
            ("ES", 1, 2),
            (None, 1, 2),
        ]:
            mask = Image.fromarray(generator.integers(0, 4, (SIZE, SIZE)).astype(np.uint8))
            known = phase and not (phase == "ES" and index < unmasked)
            image = Image.fromarray(generator.integers(0, 256, (SIZE, SIZE)).astype(np.uint8))
            row = {"image": image, "mask": mask if known else None, "patient": rename + patient, "group": group}
            row |= {"phase": phase, "frame": 1, "slice_index": index, "num_slices": count, "pixel_spacing": 2.0}
            rows.append(
                row
                | {
                    "slice_thickness": 5.0,
                    "height": 170.0,
                    "weight": 70.0,
                    "volume_sha256": f"{patient} {phase} {seed}",
                    "cohort": "acdc",
                }
            )
    return datasets.Dataset.from_list(rows, features=features(GROUPS))


PATIENTS = {"b": "HCM", "a": "NOR", "c": "HCM"}


@pytest.fixture(scope="module")
def dataset():
    return datasets.DatasetDict(test=make_split(PATIENTS))


# Real slices.


def test_a_split_is_read_without_the_frames_between(dataset):
    real = read_split(dataset, "test")
    assert real.images.shape == real.masks.shape == (15, SIZE, SIZE) and real.images.dtype == np.float32
    assert 0 <= real.images.min() < real.images.max() <= 1
    np.testing.assert_allclose(real.images[1] * 255, np.asarray(dataset["test"][1]["image"]), atol=1e-4)
    assert real.patients.tolist() == ["b"] * 5 + ["a"] * 5 + ["c"] * 5
    assert real.groups[::5].tolist() == ["HCM", "NOR", "HCM"]
    assert real.phases.tolist() == [0, 0, 0, 1, 1] * 3
    np.testing.assert_allclose(real.positions, [0, 0.5, 1, 0, 1] * 3)
    assert real.levels.tolist() == [0, 1, 2, 3, 5] * 3


def test_a_slice_without_a_segmentation_is_all_minus_one(dataset):
    real = read_split(dataset, "test")
    missing = [3, 8, 13]
    assert (real.masks[missing] == -1).all() and np.delete(real.masks, missing, axis=0).min() == 0
    np.testing.assert_array_equal(real.masks[4], np.asarray(dataset["test"][4]["mask"]))


def test_groups_are_chosen_at_reading_or_later(dataset):
    chosen, later = read_split(dataset, "test", ["HCM"]), read_split(dataset, "test").of_groups(["HCM"])
    assert set(chosen.patients) == {"b", "c"} == set(chosen.identities)
    for name, value in vars(chosen).items():
        if name == "identities":
            assert value == later.identities
        else:
            np.testing.assert_array_equal(value, getattr(later, name))


def test_patients_are_known_by_their_volumes_whatever_they_are_called(dataset):
    real = read_split(dataset, "test")
    renamed = read_split(datasets.DatasetDict(test=make_split(PATIENTS, rename="new-")), "test")
    others = read_split(datasets.DatasetDict(test=make_split(PATIENTS, seed=1)), "test")
    assert {f"new-{name}": volumes for name, volumes in real.identities.items()} == renamed.identities
    assert real.identities["b"] == ["b ED 0", "b ES 0"]  # and not the frames between
    assert len({volume for one in (real, others) for own in one.identities.values() for volume in own}) == 12


def test_the_fingerprint_is_that_of_pixels_and_patients(dataset):
    real = read_split(dataset, "test")
    assert fingerprint(real) == fingerprint(read_split(dataset, "test")) and len(fingerprint(real)) == 16
    other = [
        read_split(datasets.DatasetDict(test=make_split(PATIENTS, **change)), "test")
        for change in ({"seed": 1}, {"rename": "x"})
    ]
    assert len({fingerprint(one) for one in (real, *other)}) == 3 and fingerprint(real, real) != fingerprint(real)


@pytest.mark.parametrize(
    ("split", "groups", "message"),
    [
        ("train", GROUPS, "no split 'train'; choose among test"),
        ("test", ["ABC"], "Unknown group 'ABC'"),
        ("test", ["RV"], "'test' has no slices of RV in ED or ES; name other groups or another split"),
    ],
)
def test_a_split_that_is_not_there_is_named(dataset, split, groups, message):
    with pytest.raises(InputError, match=message):
        read_split(dataset, split, groups)


def test_a_split_can_be_of_one_cohort(dataset):
    own = ["there" if patient == "a" else "here" for patient in dataset["test"]["patient"]]
    features = dataset["test"].features
    two = datasets.DatasetDict(test=dataset["test"].remove_columns("cohort").add_column("cohort", own).cast(features))
    assert set(read_split(two, "test", cohort="here").patients) == {"b", "c"}
    assert set(read_split(two, "test", cohort="there").groups) == {"NOR"}
    with pytest.raises(InputError, match="no slices of the cohort 'else'; its cohorts are here, there"):
        read_split(two, "test", cohort="else")
    nameless = datasets.DatasetDict(test=dataset["test"].remove_columns("cohort"))
    with pytest.raises(InputError, match="no slices of the cohort 'here'; its cohorts are none that is named"):
        read_split(nameless, "test", cohort="here")


def test_a_split_of_frames_between_is_refused(dataset):
    between = datasets.DatasetDict(test=dataset["test"].select([5, 11]))
    with pytest.raises(InputError, match="'test' has no slices of DCM, HCM, MINF, NOR, RV in ED or ES"):
        read_split(between, "test")


def test_levels_are_phase_and_third_and_bounded():
    positions = np.array([0, 0.32, 0.34, 0.66, 0.67, 1, -0.4, 1.7])
    assert find_levels(np.zeros(8, int), positions).tolist() == [0, 0, 1, 1, 2, 2, 0, 2]
    assert find_levels(np.ones(8, int), positions).tolist() == [3, 3, 4, 4, 5, 5, 3, 5]


# Generated images.


def write_images(folder, n=3, size=SIZE, **changes):
    folder.mkdir(exist_ok=True)
    lines = []
    for i in range(n):
        pixels = np.full((size, size), 50 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:06}.png")
        entry = {"file": f"{i:06}.png", "seed": 0, "class": "HCM", "model": "runs/dcgan", "version": "0.1.0"}
        lines.append(json.dumps(entry | (changes if i == n - 1 else {})))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_images_are_read_with_their_manifest(tmp_path):
    images, source = read_images(write_images(tmp_path / "images"))
    assert images.shape == (3, SIZE, SIZE) and images.dtype == np.float32
    np.testing.assert_allclose(images[:, 0, 0], np.array([0, 50, 100]) / 255, rtol=1e-6)
    assert source == Source("runs/dcgan", version="0.1.0", classes=["HCM"])


@pytest.mark.parametrize("manifest", [True, False])
def test_of_very_many_images_the_same_ones_are_read_with_their_masks(tmp_path, monkeypatch, manifest):
    folder = write_pairs(tmp_path / "images")
    if not manifest:
        (folder / "manifest.jsonl").unlink()
    everything, _ = read_images(folder)
    pairs = read_pairs(folder)
    monkeypatch.setattr("hcm_hf.evaluation.images.MOST_IMAGES", 2)
    some, _ = read_images(folder)
    assert count_images(folder) == 3 and len(some) == 2 and np.array_equal(some, read_images(folder)[0])
    places = [next(index for index, one in enumerate(everything) if np.array_equal(one, image)) for image in some]
    assert places == sorted(set(places))
    if manifest:
        np.testing.assert_array_equal(read_pairs(folder).masks, pairs.masks[places])


def test_a_plain_folder_of_images_is_named_after_itself(tmp_path):
    (write_images(tmp_path / "other_model") / "manifest.jsonl").unlink()
    images, source = read_images(tmp_path / "other_model")
    assert len(images) == 3 and source == Source("other_model")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "runs/vae"}, "more than one model"),
        ({"version": "9"}, "more than one version"),
        ({"file": "missing.png"}, "missing.png is named in manifest.jsonl but missing"),
        ({"file": "manifest.jsonl"}, "cannot be read"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_images(write_images(tmp_path / "images", **changes))


@pytest.mark.parametrize("line", ["{", "7", "[]", '{"file": "000000.png"}'])
def test_a_broken_manifest_line_is_named(tmp_path, line):
    folder = write_images(tmp_path / "images")
    with open(folder / "manifest.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 4"):
        read_images(folder)


def test_unusable_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_images(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no images"):
        read_images(tmp_path)
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="mode RGB"):
        read_images(tmp_path)
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "a.png")
    Image.new("L", (SIZE, SIZE + 1)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="b.png differs in size from a.png"):
        read_images(tmp_path)
    Image.effect_noise((SIZE, SIZE), 50).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:150])
    with pytest.raises(InputError, match="b.png cannot be read"):
        read_images(tmp_path)


# Generated segmentations.

SHOWN = (
    {"group": "HCM", "phase": "ED", "level": "mid"},
    {"group": None, "phase": "ES", "level": "apex"},
    {"group": "x"},
)


def write_pairs(folder, **changes):
    """Images of which each has a mask that is one label all over."""
    write_images(folder)
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for index, (entry, shown) in enumerate(zip(entries, SHOWN, strict=True)):
        entry |= {"mask": f"{index:06}_mask.png"} | shown
        Image.fromarray(np.full((SIZE, SIZE), index + 1, np.uint8)).save(folder / entry["mask"])
    entries[-1] |= changes
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_masks_are_read_with_what_was_asked_for(tmp_path):
    folder = write_pairs(tmp_path / "images")
    pairs = read_pairs(folder)
    assert pairs.masks.dtype == np.uint8 and pairs.masks.shape == (3, SIZE, SIZE)
    assert [np.unique(mask).tolist() for mask in pairs.masks] == [[1], [2], [3]]
    assert pairs.groups.tolist() == ["HCM", "", "x"]  # by name, whatever the dataset will know
    assert pairs.phases.tolist() == [0, 1, -1] and pairs.thirds.tolist() == [1, 2, -1]
    images, source = read_images(folder)
    assert len(images) == 3 and source.scheduler is None and source.guidance_scale is None


@pytest.mark.parametrize("group", [3, "../x", "two words", None])
def test_what_is_no_name_of_a_group_is_not_known(tmp_path, group):
    assert read_pairs(write_pairs(tmp_path / "images", group=group)).groups.tolist() == ["HCM", "", ""]


def test_images_whose_generation_did_not_end_are_not_taken_for_those_of_somebody_else(tmp_path):
    folder = write_images(tmp_path / "images")
    (folder / "generation.json").write_text("{}")
    (folder / "manifest.jsonl").unlink()
    with pytest.raises(InputError, match=f"{folder} lacks its manifest.jsonl; generate its images to the end"):
        read_images(folder)


def test_masks_are_no_images(tmp_path):
    folder = write_pairs(tmp_path / "images")
    (folder / "manifest.jsonl").unlink()
    images, _ = read_images(folder)
    np.testing.assert_allclose(images[:, 0, 0], np.array([0, 50, 100]) / 255, rtol=1e-6)
    assert read_pairs(folder) is None and read_pairs(write_images(tmp_path / "unmasked")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../secret.png"}, "line 1, names the file ../secret.png, which is no file of this folder"),
        ({"file": "/etc/hostname"}, "line 1, names the file /etc/hostname"),
        ({"mask": "a/b.png"}, "line 1, names the mask a/b.png"),
        ({"file": 7}, "line 1, names the file 7"),
        ({"model": {"a": 1}}, "line 1, is not a JSON object"),
        ({"seed": float("nan")}, "line 1, is not a JSON object"),
    ],
)
def test_a_manifest_names_files_of_its_own_folder_and_plain_values(tmp_path, change, message):
    folder = write_pairs(tmp_path / "images")
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | change)
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    for read in (read_images, read_pairs):
        with pytest.raises(InputError, match=message):
            read(folder)


@pytest.mark.parametrize("line", ['"file seed class model version"', "[]", "7", "{", "\xff"])
def test_odd_lines_of_a_manifest_are_named(tmp_path, line):
    folder = write_pairs(tmp_path / "images")
    (folder / "manifest.jsonl").write_bytes(line.encode("latin-1"))
    with pytest.raises(InputError, match="manifest.jsonl"):
        read_images(folder)


def test_damaged_masks_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (SIZE, SIZE), 4).save(tmp_path / "images/shades.png")
    Image.new("L", (SIZE, SIZE + 1)).save(tmp_path / "images/tall.png")
    for file, message in [
        ("missing.png", "missing.png is named in manifest.jsonl but missing"),
        ("manifest.jsonl", "manifest.jsonl cannot be read as an image"),
        ("shades.png", r"shades.png is no mask of 000002.png \(its size, with labels from 0 to 3\)"),
        ("tall.png", "tall.png is no mask of 000002.png"),
    ]:
        with pytest.raises(InputError, match=message):
            read_pairs(write_pairs(tmp_path / "images", mask=file))
    folder = write_pairs(tmp_path / "images")
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    unmasked = {key: value for key, value in json.loads(lines[1]).items() if key != "mask"}
    (folder / "manifest.jsonl").write_text("\n".join([lines[0], json.dumps(unmasked), lines[2]]))
    with pytest.raises(InputError, match="line 2, has no key 'mask' as others have"):
        read_pairs(folder)


def test_images_of_two_guidance_scales_are_scored_apart(tmp_path):
    folder = write_pairs(tmp_path / "images", guidance_scale=2.0)
    assert read_images(folder)[1].guidance_scale == 2
    entries = [
        json.loads(line) | {"guidance_scale": index} for index, line in enumerate(open(folder / "manifest.jsonl"))
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(InputError, match="more than one guidance_scale"):
        read_images(folder)
