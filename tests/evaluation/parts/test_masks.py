"""Segmentations that are known: what the part of a report on masks must say of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.evaluation.comparison import Comparison, Reference
from hcm_hf.evaluation.encoder import Encoder, Instrument
from hcm_hf.evaluation.images import GeneratedImages, GeneratedPairs, RealSlices, read_split
from hcm_hf.evaluation.parts.masks import check_pairs, mask_rows
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.metrics import bootstrap
from hcm_hf.metrics.anatomy import LEFT, MYOCARDIUM, RIGHT, exceeds_threshold, wall_thickness
from hcm_hf.models import SliceEncoder
from hcm_hf.utils.errors import InputError


SPACING = 2.0  # mm
HCM, NOR = "HCM", "NOR"
WALLS = np.array([4.0, 5.0, 6.5, 8.0, 5.5, 7.0])  # of the patients, pixels


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)


def draw(walls, size: int = 64) -> np.ndarray:
    """Rings with a right ventricle beside them, of walls as thick as said in pixels."""
    down, right = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(down, right)
    masks = np.zeros((len(walls), size, size), np.uint8)
    masks[:, 8:14, 28:36] = RIGHT
    for mask, wall in zip(masks, walls, strict=True):
        mask[distance < 8 + wall] = MYOCARDIUM
        mask[distance < 8] = LEFT
    return masks


def real_slices(walls=WALLS, group: str = HCM, name: str = "test") -> RealSlices:
    """An ED and an ES slice of every patient; walls are 2 pixels thicker in ES."""
    masks = np.concatenate([draw(walls), draw(walls + 2)])
    patients = np.array([f"{name}{index}" for index in range(len(walls))] * 2)
    return RealSlices(
        images=(masks / 3).astype(np.float32),
        masks=masks.astype(np.int8),
        patients=patients,
        groups=np.full(len(masks), group),
        phases=np.repeat([0, 1], len(walls)),
        positions=np.full(len(masks), 0.5, np.float32),
        identities={name: [name] for name in patients.tolist()},
    )


def as_pairs(slices: RealSlices) -> GeneratedPairs:
    """Real slices offered as generated ones that were asked for as they are."""
    return GeneratedPairs(slices.masks.astype(np.uint8), slices.groups, slices.phases, slices.levels % 3)


def encoder_of(size: int, slices: RealSlices) -> Encoder:
    """Real networks that have learnt nothing."""
    torch.manual_seed(0)
    features, segmenter = (
        Instrument(SliceEncoder(STRUCTURES, GROUPS, PHASES, size, (4, 8)).eval(), "1", digit * 16, slices.identities)
        for digit in "12"
    )
    return Encoder(features, segmenter, "tiny")


def compare(pairs: GeneratedPairs, images=None, encoder=None, heldout=None, training=None) -> Comparison:
    heldout, training = heldout or real_slices(), training or real_slices(WALLS + 1, name="train")
    images = (pairs.masks / 3).astype(np.float32) if images is None else images
    return Comparison(GeneratedImages(images, pairs=pairs), Reference(training, heldout), encoder)


def values(row: dict) -> dict[str, float]:
    return {name: number.value for name, number in row.items()}


def test_true_masks_offered_as_generated_score_as_the_real_ones_do():
    heldout = real_slices()
    rows = mask_rows(compare(as_pairs(heldout), heldout.images, encoder_of(64, heldout), heldout))
    generated, real = values(rows["generated"]), values(rows["real"])
    assert list(generated) == list(real)
    for name in generated:
        if "distance" not in name:
            assert generated[name] == real[name]
    assert generated["mask_wall_distance_hcm_ed"] == generated["mask_wall_distance_hcm_es"] == 0
    assert generated["mask_valid_topology"] == 1 and generated["mask_empty"] == 0


@pytest.mark.parametrize("thicker", [0, 1, 2, 4])
def test_walls_that_are_moved_are_as_far_away(thicker):
    rows = mask_rows(compare(as_pairs(real_slices(WALLS + thicker))))
    generated, real = values(rows["generated"]), values(rows["real"])
    for phase in ("ed", "es"):
        distance = generated[f"mask_wall_distance_hcm_{phase}"]
        moved = generated[f"mask_wall_thickness_hcm_{phase}"] - real[f"mask_wall_thickness_hcm_{phase}"]
        assert distance == pytest.approx(moved)  # all in one direction
        assert distance == pytest.approx(thicker * SPACING, abs=0.4 * bool(thicker))
        assert real[f"mask_wall_distance_hcm_{phase}"] == pytest.approx(SPACING, abs=0.4)  # of the training slices


def test_a_segmentation_that_the_encoder_sees_too_has_a_dice_of_one():
    heldout = real_slices()
    encoder = encoder_of(64, heldout)
    seen = encoder.segmenter.predict(heldout.images).masks
    assert set(np.unique(seen)) - {0}  # it sees something
    rows = mask_rows(compare(replace(as_pairs(heldout), masks=seen), heldout.images, encoder, heldout))
    for label, name in enumerate(("rv", "myocardium", "lv"), 1):
        number = rows["generated"][f"mask_dice_{name}"]
        if (seen == label).any():
            assert number.value == number.low == number.high == 1
        else:
            assert number.value is None
        both, either = ((heldout.masks == label) & (seen == label)).sum(), (heldout.masks == label).sum()
        either += (seen == label).sum()
        assert rows["real"][f"mask_dice_{name}"].value == pytest.approx(2 * both / either)


def test_what_the_encoder_sees_is_sorted_by_what_was_asked_for():
    heldout = real_slices()
    encoder = encoder_of(64, heldout)
    predicted = encoder.segmenter.predict(heldout.images)
    rows = mask_rows(compare(as_pairs(heldout), heldout.images, encoder, heldout))
    walls = wall_thickness(predicted.masks, SPACING)
    for row in (values(rows["generated"]), values(rows["real"])):
        likeliest = predicted.group_log_probabilities.argmax(1)
        assert row["asked_group_share_hcm"] == (likeliest == GROUPS.index(HCM)).mean()
        for phase, name in enumerate(("ed", "es")):
            shown = walls[(heldout.phases == phase) & np.isfinite(walls)]
            share = exceeds_threshold(shown).mean() if len(shown) else np.nan
            assert row[f"seen_thick_share_hcm_{name}"] == pytest.approx(share if np.isfinite(share) else None)


def test_phases_and_groups_are_never_pooled():
    everyone = [real_slices(), real_slices(WALLS - 2, NOR, "healthy")]
    merged = RealSlices(
        **{
            name: np.concatenate([vars(one)[name] for one in everyone])
            for name in vars(everyone[0])
            if name != "identities"
        },
        identities={},
    )
    rows = mask_rows(compare(as_pairs(merged), heldout=merged, training=merged))
    assert {name for name in rows["generated"] if "distance" in name} == {
        f"mask_wall_distance_{group}_{phase}" for group in ("hcm", "nor") for phase in ("ed", "es")
    }
    shares = values(rows["generated"])
    assert shares["mask_thick_share_nor_ed"] < shares["mask_thick_share_hcm_ed"] < shares["mask_thick_share_hcm_es"]
    swapped = replace(as_pairs(merged), groups=np.where(merged.groups == HCM, NOR, HCM))
    distances = values(mask_rows(compare(swapped, heldout=merged, training=merged))["generated"])
    assert distances["mask_wall_distance_hcm_ed"] == pytest.approx(2 * SPACING, abs=0.4)
    assert values(rows["real"])["mask_wall_distance_hcm_ed"] == 0


def test_real_slices_are_those_that_were_asked_for():
    heldout = real_slices()
    ed = as_pairs(heldout)
    kept = ed.phases == 0
    pairs = GeneratedPairs(*(array[kept] for array in vars(ed).values()))
    rows = mask_rows(compare(pairs))
    assert rows["real"]["mask_empty"].n_real == len(WALLS)
    assert rows["real"]["mask_thick_share_hcm_es"].value is None
    elsewhere = replace(pairs, thirds=np.zeros(len(WALLS), int))
    with pytest.raises(InputError, match=r"Split 'test' has no segmented slices like those .* \(HCM\)"):
        check(elsewhere)


def check(pairs: GeneratedPairs) -> None:
    check_pairs(GeneratedImages(pairs.masks / 3, pairs=pairs), {"test": real_slices()})


def test_what_is_not_known_is_left_out():
    pairs = as_pairs(real_slices())
    unknown = np.full(len(pairs.masks), ""), *[np.full(len(pairs.masks), -1)] * 2
    rows = mask_rows(compare(GeneratedPairs(pairs.masks, *unknown)))
    assert list(rows["generated"]) == list(rows["real"]) == ["mask_valid_topology", "mask_empty"]
    check(GeneratedPairs(pairs.masks, *unknown))


def test_a_segmenter_of_other_groups_leaves_out_what_it_takes_slices_for():
    heldout, training = real_slices(group="amyloid"), real_slices(WALLS + 1, "amyloid", "train")
    pairs, encoder = as_pairs(heldout), encoder_of(64, heldout)
    comparison = compare(pairs, heldout.images, encoder, heldout, training)
    rows = mask_rows(replace(comparison, reference=Reference(training, heldout, ("amyloid",))))
    assert "asked_group_share_amyloid" not in rows["generated"]
    assert {"mask_dice_lv", "seen_thick_share_amyloid_ed", "mask_wall_distance_amyloid_es"} <= set(rows["generated"])


def test_the_order_of_the_images_does_not_matter():
    pairs, encoder = as_pairs(real_slices(WALLS + 1)), encoder_of(64, real_slices())
    order = np.random.default_rng(0).permutation(len(pairs.masks))
    shuffled = GeneratedPairs(*(array[order] for array in vars(pairs).values()))
    one, other = (values(mask_rows(compare(each, encoder=encoder))["generated"]) for each in (pairs, shuffled))
    assert one == pytest.approx(other, nan_ok=True)


def test_broken_and_empty_segmentations_are_counted():
    masks = draw([5.0] * 4)
    masks[0] = 0
    masks[1, 31:33] = 0  # cut through
    pairs = GeneratedPairs(masks, *(np.full(4, index) for index in (HCM, 0, 1)))
    row = values(mask_rows(compare(pairs))["generated"])
    assert row["mask_valid_topology"] == 0.5 and row["mask_empty"] == 0.25
    assert mask_rows(compare(pairs))["generated"]["mask_wall_thickness_hcm_ed"].n_generated == 3


def test_intervals_are_over_patients_and_over_images():
    rows = mask_rows(compare(as_pairs(real_slices(np.repeat(WALLS, 5)))))
    number = rows["generated"]["mask_thick_share_hcm_ed"]
    assert (number.n_generated, number.n_real, number.n_patients) == (30, 0, 0)
    number = rows["real"]["mask_thick_share_hcm_ed"]
    assert (number.n_generated, number.n_real, number.n_patients) == (6, 6, 6)
    number = rows["generated"]["mask_wall_distance_hcm_ed"]
    assert (number.n_generated, number.n_real, number.n_patients) == (30, 6, 6)
    assert number.low < number.high


def test_masks_of_another_number_or_size_and_groups_of_nobody_are_refused():
    pairs, splits = as_pairs(real_slices()), {"train": real_slices(), "test": real_slices()}
    with pytest.raises(InputError, match=r"masks have shape \(12, 64, 64\) and images \(11, 64, 64\)"):
        check_pairs(GeneratedImages(pairs.masks[1:] / 3, pairs=pairs), splits)
    with pytest.raises(InputError, match=r"Split 'train' has no segmented slices like those .* \(NOR\)"):
        check_pairs(
            GeneratedImages(pairs.masks / 3, pairs=replace(pairs, groups=np.full(len(pairs.masks), NOR))), splits
        )


# In a report.


def evaluate(slices: RealSlices, splits, **options):
    """Score real slices with their segmentations as generated ones."""
    generated = GeneratedImages(slices.images, pairs=as_pairs(slices))
    return evaluate_images(generated, Reference.read(splits), **options)


def test_a_report_has_the_part_its_definitions_and_figures(splits, tmp_path):
    copies = read_split(splits, "train")
    encoder = encoder_of(16, copies)
    report = evaluate(copies, splits, encoder=encoder, output_dir=tmp_path)
    text = report.to_markdown()
    names = report.parts["masks"]
    assert report.asked_groups == ["HCM", "NOR"] and "groups (HCM, NOR), phases" in text
    assert "**Warning: images of class HCM, NOR are compared with slices of HCM.**" in text
    for name in names:
        assert f"| {name} |" in text and any(name.startswith(key) for key in report.definitions)
    assert names[0] == "mask_dice_rv" and "seen_thick_share_nor_es" in names and "asked_group_share_hcm" in names
    assert {path.name for path in tmp_path.glob("mask_*.png")} == {f"mask_thickness_{x}.png" for x in ("hcm", "nor")}
    for numbers in (report.rows[row] for row in ("generated", "real")):
        for name in names:
            of_encoder = "dice" in name or "seen" in name or "asked_group" in name
            assert numbers[name].encoder == ("2" * 16 if of_encoder else None)


def head(slices: RealSlices, count: int) -> RealSlices:
    return replace(slices, **{name: array[:count] for name, array in vars(slices).items() if name != "identities"})


def test_without_an_encoder_the_walls_are_still_measured_and_levels_are_those_asked_for(splits):
    heldout = head(read_split(splits, "test"), 20)
    report = evaluate(heldout, splits)
    assert "mask_wall_distance_hcm_ed" in report.rows["generated"]
    assert not any("dice" in name for name in report.rows["generated"])
    assert {"ssim_matched", "cc_matched"} <= report.rows["real"].keys()


def test_images_without_segmentations_leave_the_part_out(splits):
    images = read_split(splits, "test").images[:20]
    report = evaluate_images(GeneratedImages(images), Reference.read(splits))
    assert "masks" not in report.parts and report.asked_groups is None
    assert "mask_" not in report.to_markdown().split("## Definitions")[0]
