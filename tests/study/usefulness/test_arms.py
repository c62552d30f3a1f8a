from dataclasses import dataclass
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from hcm_hf.study.usefulness.arms import ARMS, BASELINE, Filtered, Real, Synthetic, Warped
from hcm_hf.study.usefulness.rows import adopt, decode, encode, make_rows, write_training_set
from hcm_hf.utils.errors import InputError


@dataclass
class Material:
    """Real slices that a generator returns in another order, and a segmenter that is right about some."""

    real: datasets.Dataset
    seed: int = 0
    right: int = 0

    def generated(self, count):
        return datasets.concatenate_datasets([self.real] * 9).select(range(count))

    def segmenter(self):
        def predict(images):
            masks = decode(self.generated(len(images)))[1].copy()
            masks[self.right :] = 0
            return SimpleNamespace(masks=masks)

        return SimpleNamespace(predict=predict)


@pytest.fixture
def real(splits):
    return splits["validation"]


def test_every_arm_takes_all_of_its_steps():
    for arm in ARMS.values():
        assert sum(stage.share for stage in arm.stages) == 1
    assert len({arm.title for arm in ARMS.values()}) == len(ARMS)
    assert ARMS["real"].stages == ARMS[BASELINE].stages and ARMS["real"].augmentation != ARMS[BASELINE].augmentation
    assert all(arm.augmentation == ARMS[BASELINE].augmentation for name, arm in ARMS.items() if name != "real")


@pytest.mark.parametrize(("source", "share"), [(Real(), 1), (Warped(), 1), (Synthetic(), 1), (Synthetic(3), 3)])
def test_as_many_slices_as_an_arm_is_named_for(real, source, share):
    assert len(source.slices(Material(real))) == share * len(real)


def test_warped_copies_differ_in_their_pixels_alone(real):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    warped = Warped().slices(Material(real))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert warped.features == real.features
    for name in ("group", "phase", "slice_index", "volume_sha256"):
        assert list(warped[name]) == list(real[name])
    (images, masks), (copies, copied_masks) = decode(real), decode(warped)
    assert all((copy != image).any() for copy, image in zip(copies, images, strict=True))
    assert (copied_masks != masks).any() and set(np.unique(copied_masks)) == set(np.unique(masks))
    again, other = (Warped().slices(Material(real, seed)) for seed in (0, 1))
    assert (decode(again)[0] == copies).all() and (decode(other)[0] != copies).any()


def test_filtered_keeps_masks_that_the_segmenter_agrees_with(real):
    masked = (decode(real)[1] > 0).any((1, 2))
    right = len(real) // 2
    kept = Filtered().slices(Material(real, right=right))
    assert list(kept["slice_index"]) == [
        index for index, known in zip(real["slice_index"][:right], masked, strict=False) if known
    ]
    everything = Filtered().slices(Material(real, right=2 * len(real)))
    assert len(everything) == len(real)  # there are twice as many candidates


def generated_like(real, **changes):
    columns = {name: list(real[name]) for name in real.features if name not in ("image", "mask")}
    images, masks = decode(real)
    columns |= {"image": encode(images), "mask": encode(masks.astype(np.uint8))} | changes
    return datasets.DatasetDict({"train": make_rows(columns, real)})


def test_generated_slices_are_taken_in_their_order(real):
    names = [f"synthetic-{index:03d}" for index in range(len(real))][::-1]
    rows = adopt(generated_like(real, patient=names), real, "closed a/b")
    assert list(rows["patient"]) == sorted(names) and rows.features == real.features
    assert list(rows["slice_index"]) == list(real["slice_index"])[::-1]


def test_generated_slices_must_show_all_groups_in_the_same_size(real):
    groups = real.features["group"]
    only = [groups.str2int("HCM")] * len(real)
    with pytest.raises(InputError, match="closed a/b has made no slice of NOR, so that a network would learn"):
        adopt(generated_like(real, group=only), real, "closed a/b")
    foreign = datasets.ClassLabel(names=["X" if name == "DCM" else name for name in groups.names])
    some = generated_like(real, group=[groups.str2int("DCM"), *list(real["group"])[1:]])
    with pytest.raises(InputError, match="makes slices of DCM, a group that the dataset lacks"):
        adopt(some, real.cast_column("group", foreign), "closed a/b")
    small = np.zeros((len(real), 8, 8), np.uint8)
    with pytest.raises(InputError, match="makes slices of 8 px, and the dataset's have 16"):
        adopt(generated_like(real, image=encode(small), mask=encode(small)), real, "closed a/b")


def test_a_training_set_is_repeated_as_a_whole_and_holds_nobody_else(real, tmp_path):
    write_training_set(real, tmp_path / "set", least=2 * len(real) + 1)
    written = datasets.load_from_disk(tmp_path / "set")
    assert list(written["train"]["volume_sha256"]) == 3 * list(real["volume_sha256"])
    everyone = {name for split in written.values() for name in split["patient"]}
    assert everyone == set(real["patient"])
