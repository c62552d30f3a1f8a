from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hearts import SPACING, heart, oblique

from hcm_hf.data.checks import examine, orientation_of
from hcm_hf.data.orientation import Turn, goes_to_the_apex, in_plane
from hcm_hf.data.volumes import Volume


def volumes(affine, masks=True, spacing=SPACING):
    pairs = [(phase, *heart(1, phase)) for phase in ("ED", "ES")]
    return [
        Volume(image, mask if masks else None, spacing, None, phase, "", f"{phase}.nii", affine)
        for phase, image, mask in pairs
    ]


def stored(volume, orientation):
    """The volume as another program stores it: axes permuted and flipped, the affine with them."""
    turned = [
        None if one is None else nibabel.Nifti1Image(one, volume.affine).as_reoriented(orientation)
        for one in (volume.image, volume.mask)
    ]
    mask = None if turned[1] is None else np.asarray(turned[1].dataobj)
    spacing = tuple(float(size) for size in turned[0].header.get_zooms())
    return replace(volume, image=np.asarray(turned[0].dataobj), mask=mask, spacing=spacing, affine=turned[0].affine)


WAYS = {
    "as it is": [[0, 1], [1, 1], [2, 1]],
    "mirrored": [[0, -1], [1, 1], [2, 1]],
    "upside down": [[0, 1], [1, -1], [2, 1]],
    "transposed": [[1, 1], [0, 1], [2, 1]],
    "a quarter turn": [[1, -1], [0, 1], [2, 1]],
    "from apex to base": [[0, 1], [1, 1], [2, -1]],
    "all of it": [[1, -1], [0, -1], [2, -1]],
    "slices first": [[2, 1], [1, 1], [0, 1]],
    "slices in the middle, reversed": [[0, 1], [2, 1], [1, -1]],
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_stored_the_affine_brings_it_back(way, masks):
    before = volumes(oblique(), masks)
    given = [stored(volume, WAYS[way]) for volume in before]
    turn, notes = examine("p", given)
    for one, other in zip(map(turn, given), before, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.mask is None or (one.mask == other.mask).all()
        assert one.spacing == pytest.approx(SPACING)
        np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    assert bool(notes) == (way != "as it is")


def test_without_masks_and_a_true_affine_it_stays_as_stored():
    for affine in (None, np.diag([-1.0, -1, 1, 1])):  # none, and as ACDC's are
        assert examine("p", volumes(affine, masks=False)) == (Turn(), [])
    straight = volumes(np.diag([-2.0, -2, 10, 1]), masks=False)[0]  # no short axis lies along an axis of the scanner
    assert in_plane(straight) == Turn() and goes_to_the_apex(straight) is None
    turn, notes = examine("p", volumes(np.diag([*SPACING, 1]), masks=False))  # as a program without a scanner saves
    assert turn == Turn() and notes == [
        "p: its affine of R A S axes lies along the scanner's, as no short axis does; kept as stored"
    ]


def test_ed_and_es_that_lie_differently_stay_as_stored():
    ed, es = volumes(oblique(), masks=False)
    turn, notes = examine("p", [ed, stored(es, WAYS["mirrored"])])
    assert turn == Turn() and any("ED and ES lie differently by their affines" in note for note in notes)


def test_where_masks_and_affine_disagree_the_masks_are_followed():
    given = [
        replace(volume, image=volume.image[..., ::-1], mask=volume.mask[..., ::-1]) for volume in volumes(oblique())
    ]
    turn, notes = examine("p", given)
    assert turn.flipped == (2,) and any("disagree on which end is the base" in note for note in notes)
    assert orientation_of([turn(volume) for volume in given]) == "the masks alone"
    assert orientation_of(volumes(oblique())) == "the affine"


def test_where_masks_hardly_thin_out_the_affine_is_followed():
    """A few slices of the middle, whose marked area happens to grow by some pixels."""
    given = []
    for volume in volumes(oblique()):
        count = volume.mask.shape[2]
        mask = np.zeros_like(volume.mask)
        mask[..., count // 2 - 1 : count // 2 + 2] = volume.mask[..., [count // 2]]
        x, y = (places[0] for places in np.nonzero(mask[..., count // 2] == 2))
        mask[x, y, count // 2 - 1] = 0
        given.append(replace(volume, mask=mask))
    turn, notes = examine("p", given)
    assert 2 not in turn.flipped and any("the affine is followed" in note for note in notes)


@pytest.mark.parametrize(("size", "noted"), [(0.45, True), (0.5, False), (3.0, False), (3.2, True)])
def test_pixels_that_are_not_those_of_cardiac_slices_are_questioned(size, noted):
    spacing = (size, size, 10.0)
    _, notes = examine("p", volumes(None, masks=False, spacing=spacing))
    assert any("not those of cardiac slices" in note for note in notes) == noted
