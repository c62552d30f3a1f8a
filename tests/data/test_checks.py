from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.checks import examine
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


@pytest.fixture(scope="module")
def volumes(cohort):
    return list(read_volumes(find_cohort(cohort).patients[0]))


def notes(volumes):
    return examine("patient001", volumes)[1]


def turned(volumes, turn, **changes):
    return [replace(one, image=turn(one.image), mask=turn(one.mask), **changes) for one in volumes]


def test_acdcs_layout_has_nothing_odd(cohort):
    for patient in find_cohort(cohort).patients:
        stored = list(read_volumes(patient))
        turn, odd = examine(patient.name, stored)
        assert odd == [] and all(turn(one) is one for one in stored)


def test_a_lost_voxel_size_is_refused(volumes):
    for spacing, message in [
        ((1.0, 1.0, 1.0), "gives the voxel size 1 x 1 x 1 mm, so the true one was lost"),
        ((0.0015, 0.0015, 0.01), "expected 0.3 to 5 mm, so write it in millimetres"),
        ((1.5, 1.5, 1500.0), "1500 mm between slices; expected 0.5 to 25 mm"),
    ]:
        with pytest.raises(InputError, match=message):
            examine("patient001", [replace(one, spacing=spacing) for one in volumes])
    with pytest.raises(InputError, match="gives two voxel sizes, .* mm in pixdim and 3 x 3 x 10 mm in its affine"):
        examine("patient001", [replace(one, affine=np.diag([-3.0, -3, 10, 1])) for one in volumes])


def test_suspicious_sizes_are_noted(volumes):
    gap = volumes[0].spacing[2]
    assert any("exactly 1 x 1 mm" in note for note in notes([replace(one, spacing=(1, 1, gap)) for one in volumes]))
    thin = [replace(one, spacing=(*one.spacing[:2], 1.0)) for one in volumes]
    assert any("mm long; check the distance of slices" in note for note in notes(thin))
    wide = [replace(one, spacing=(4.9, 4.9, gap)) for one in volumes]
    assert any("mm wide; check the voxel size" in note for note in notes(wide))


@pytest.mark.parametrize("labels", [(0, 3, 2, 1), (0, 1, 3, 2), (0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 1, 2)])
def test_every_other_order_of_labels_is_refused(volumes, labels):
    changed = [replace(one, mask=np.array(labels, np.uint8)[one.mask]) for one in volumes]
    with pytest.raises(InputError, match="label 3 outside the ring of label 2.* 1 RV cavity, 2 myocardium, 3 LV"):
        examine("patient001", changed)


def test_a_nearly_empty_left_cavity_is_no_other_order_of_labels(volumes):
    """At end systole a thick heart squeezes its cavity to a few pixels, while the right one borders on much wall."""

    def squeeze(mask):
        cavity = np.where(mask == 3, np.uint8(2), mask)
        for index in range(mask.shape[2]):
            inside = np.argwhere(mask[..., index] == 3)
            if len(inside):
                x, y = inside.mean(0).round().astype(int)
                cavity[x : x + 2, y : y + 2, index] = 3
        return cavity

    examine("patient001", [replace(one, mask=squeeze(one.mask)) for one in volumes])


def test_slices_from_apex_to_base_are_turned(volumes):
    turn, odd = examine("patient001", turned(volumes, lambda array: array[..., ::-1]))
    assert odd == ["patient001: slices go from apex to base; turned"]
    back = turn(replace(volumes[0], image=volumes[0].image[..., ::-1], mask=volumes[0].mask[..., ::-1]))
    np.testing.assert_array_equal(back.image, volumes[0].image)
    np.testing.assert_array_equal(back.mask, volumes[0].mask)


@pytest.mark.parametrize("turn", [lambda array: array[::-1], lambda array: array[::-1, ::-1]])
def test_a_mirrored_or_turned_heart_is_noted(volumes, turn):
    assert any("the volume is mirrored or turned" in note for note in notes(turned(volumes, turn)))


def test_volumes_that_nibabel_has_reoriented_come_back(volumes):
    """as_closest_canonical flips x and y of ACDC's and says so in the affine."""
    affine = np.diag([-1.0, -1, 1, 1])
    canonical = [nibabel.as_closest_canonical(nibabel.Nifti1Image(one.image, affine)) for one in volumes]
    masks = [nibabel.as_closest_canonical(nibabel.Nifti1Image(one.mask, affine)) for one in volumes]
    changed = [
        replace(one, image=np.asarray(image.dataobj), mask=np.asarray(mask.dataobj), affine=image.affine)
        for one, image, mask in zip(volumes, canonical, masks, strict=True)
    ]
    turn, odd = examine("patient001", changed)
    assert odd == ["patient001: stored with R A S axes by its affine; turned to ACDC's L P S"]
    for one, before in zip(changed, volumes, strict=True):
        np.testing.assert_array_equal(turn(one).image, before.image)
        np.testing.assert_array_equal(turn(one).mask, before.mask)


def test_an_affine_that_contradicts_the_anatomy_turns_nothing(volumes):
    """Voxels in ACDC's order, saved with an affine that says R A S."""
    spacing = volumes[0].spacing
    changed = [replace(one, affine=np.diag([*spacing, 1])) for one in volumes]
    assert notes(changed) == [] and examine("", changed)[0](changed[0]) is changed[0]


def test_phases_that_are_the_same_or_exchanged_are_found(volumes):
    ed, es = volumes
    with pytest.raises(InputError, match="hold the same voxels as ED and ES"):
        examine("patient001", [ed, replace(ed, phase="ES")])
    exchanged = [replace(es, phase="ED"), replace(ed, phase="ES")]
    assert notes(exchanged) == [
        "patient001: the left cavity is larger at ES than at ED; check that they are not exchanged"
    ]


def test_a_mask_of_another_image_is_noted(volumes):
    inverted = [replace(one, image=one.image.max() - one.image) for one in volumes]
    shifted = [replace(one, mask=np.roll(one.mask, int(20 / one.spacing[0]), 0)) for one in volumes]
    mirrored = [replace(one, image=one.image[:, ::-1]) for one in volumes]
    for changed in (inverted, shifted, mirrored):
        assert sum("check that the mask belongs to the image" in note for note in notes(changed)) == 2


def test_a_mask_without_a_right_ventricle_is_noted(volumes):
    changed = [replace(one, mask=np.where(one.mask == 1, 0, one.mask)) for one in volumes]
    assert any("marks no RV cavity" in note for note in notes(changed))


ACDC = Path(__file__).parents[3] / "shared" / "acdc"


@pytest.mark.skipif(not ACDC.is_dir(), reason="the real ACDC is not here")
def test_real_patients_pass():
    for patient in find_cohort(ACDC).patients[::9]:
        assert notes(list(read_volumes(patient))) == []
