import numpy as np
import pytest

from hcm_hf.data import identity
from hcm_hf.data.identity import (
    count_patients,
    find_copies,
    hash_voxels,
    identify,
    read_identities,
    shared_patients,
    take_texture,
)
from hcm_hf.utils.errors import InputError


def test_a_volume_is_known_by_its_values_not_by_their_type_or_order():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    others = [voxels.astype(np.float64), np.asfortranarray(voxels), voxels.astype(">i2")]
    assert {hash_voxels(other) for other in others} == {hash_voxels(voxels)} != {hash_voxels(voxels + 1)}
    assert len(hash_voxels(voxels)) == 64


def test_patients_share_a_volume_whatever_they_are_called():
    known = identify(["a", "a", "a", "b"], ["1", "2", "1", "3"])
    assert known == {"a": ["1", "2"], "b": ["3"]}
    assert shared_patients(known, {"somebody": ["9", "2"]}) == ["a"]
    assert shared_patients(known, {"a": ["9"]}) == []
    assert count_patients(known | {"teacher:a": ["1", "2"]}) == 2


@pytest.mark.parametrize("value", [None, {"a": "0123456789abcdef"}, {"a": [1]}, ["a"]])
def test_notes_of_older_versions_or_damaged_ones_are_refused(value):
    with pytest.raises(InputError, match="runs/x does not say which .*; train it again"):
        read_identities(value, "runs/x")
    assert read_identities({"a": ["1"]}, "runs/x") == {"a": ["1"]}


def hearts(number, seed):
    """Slices that differ in their noise alone, as phantoms of one geometry do."""
    generator = np.random.default_rng(seed)
    x, y = np.mgrid[-1:1:64j, -1:1:64j]
    shape = 200.0 * (np.hypot(x, y) < 0.5)
    return shape + generator.normal(0, 10, (number, 64, 64))


CHANGES = {
    "scaled": lambda images: images * 3.7 + 11,
    "8 bit": lambda images: np.rint((images - images.min()) / np.ptp(images) * 240),
    "gamma": lambda images: (images - images.min()) ** 0.8,
    "clipped": lambda images: np.clip(images, *np.percentile(images, (2, 98))),
    "reversed": lambda images: images[::-1],
    "without its ends": lambda images: images[2:-2],
    "mirrored": lambda images: images[:, ::-1] * 2.0,
    "turned by a quarter": lambda images: np.rot90(images, axes=(1, 2)) + 5,
    "transposed": lambda images: images.transpose(0, 2, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_whatever_their_grey_values(change):
    """Also where all hearts have one shape."""
    images = {f"p{seed}": hearts(10, seed) for seed in range(4)}
    images["copy"] = CHANGES[change](images["p2"])
    textures = {name: take_texture(one)[None] for name, one in images.items()}
    volumes = {name: [name] for name in images}
    assert find_copies(volumes, textures) == [{"p2", "copy"}]


def test_copies_are_found_however_few_are_in_memory_together(monkeypatch):
    images = {f"p{seed}": hearts(4, seed) for seed in range(5)}
    images |= {"copy": images["p0"] * 2, "other": images["p4"] + 9}
    textures = {name: take_texture(one)[None] for name, one in images.items()}
    volumes = {name: [name] for name in images}
    found = find_copies(volumes, textures)
    monkeypatch.setattr(identity, "_BLOCK", 2)
    assert find_copies(volumes, textures) == found == [{"p0", "copy"}, {"p4", "other"}]


def test_copies_of_copies_stand_in_one_set():
    textures = {name: take_texture(hearts(4, seed))[None] for seed, name in enumerate("abcd")}
    assert find_copies({"a": ["1"], "b": ["1", "2"], "c": ["3"], "d": ["3", "2"]}, textures) == [set("abcd")]
    assert find_copies({name: [name] for name in "abcd"}, textures) == []
    assert find_copies({}, {}) == []


def test_slices_without_structure_are_nobodys_copies():
    blank = take_texture(np.full((5, 64, 64), 7))
    assert not blank.any() and find_copies({"a": ["1"], "b": ["2"]}, {"a": blank[None], "b": blank[None]}) == []
