import io

import numpy as np
import pytest
from PIL import Image
from skimage.measure import block_reduce

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.cropping import FIELD_OF_VIEW, mask_centre, prepare_volume, share_outside
from hcm_hf.data.preprocessing import prepare_patient
from hcm_hf.data.volumes import Volume
from hcm_hf.utils.errors import InputError


def volume(image, mask, spacing=(1.0, 1.0, 10.0)):
    return Volume(image, mask, spacing, frame=1, phase="ED", description="", file="ED.nii.gz")


def disc(shape, centre, radius):
    x, y = np.ogrid[: shape[0], : shape[1]]
    return (np.hypot(x - centre[0], y - centre[1]) <= radius)[:, :, None]


def test_unit_spacing_is_a_plain_crop_with_rows_along_y():
    image = np.random.default_rng(0).integers(0, 1000, (200, 180, 1)).astype(np.float32)
    mask = np.zeros(image.shape, np.uint8)
    mask[70:130, 60:121] = 3  # the box's centre: 99.5 and 90
    pixels, labels = prepare_volume(volume(image, mask), (99.5, 89.5), 128)
    low, high = np.percentile(image, (0.5, 99.5))
    crop = image[36:164, 26:154, 0].T
    np.testing.assert_array_equal(pixels[0], np.rint(255 * np.clip((crop - low) / (high - low), 0, 1)))
    np.testing.assert_array_equal(labels[0], mask[36:164, 26:154, 0].T)


def test_shrinking_does_not_alias():
    image = np.random.default_rng(0).random((256, 256, 1)).astype(np.float32)
    checkers = np.indices(image.shape).sum(0) % 2 + 0.01 * image
    mask = np.full(image.shape, 3, np.uint8)
    pixels, _ = prepare_volume(volume(checkers.astype(np.float32), mask), (127.5, 127.5), 64)
    inner = pixels[0, 4:-4, 4:-4] / 255
    assert np.ptp(inner) < 0.1  # the finest pattern there is becomes grey, not stripes
    smooth = block_reduce(checkers[64:192, 64:192, 0].T, 2, np.mean)
    low, high = np.percentile(checkers, (0.5, 99.5))
    assert abs(inner - ((smooth - low) / (high - low))[4:-4, 4:-4]).max() < 0.02


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 10.0), (1.37, 1.37, 10.0), (1.95, 1.6, 5.0)])
@pytest.mark.parametrize("resolution", [64, 128])
def test_millimetres_keep_their_meaning(spacing, resolution):
    shape = tuple(round(300 / size) for size in spacing[:2])
    x, y = np.meshgrid(*(np.arange(n) * size for n, size in zip(shape, spacing, strict=False)), indexing="ij")
    mask = (np.hypot(x - 140, y - 150) <= 30)[:, :, None].astype(np.uint8) * 3
    one = volume(mask.astype(np.float32) + np.random.default_rng(0).random(mask.shape) * 0.01, mask, spacing)
    centre = mask_centre(mask)
    pixels, labels = prepare_volume(one, centre, resolution)
    millimetres = FIELD_OF_VIEW / resolution
    assert np.count_nonzero(labels) * millimetres**2 == pytest.approx(np.pi * 30**2, rel=0.02)
    rows, columns = np.nonzero(labels[0])
    assert (rows.mean(), columns.mean()) == pytest.approx(((resolution - 1) / 2,) * 2, abs=1.5 / millimetres)
    assert np.count_nonzero(pixels > 127) == pytest.approx(np.count_nonzero(labels), rel=0.03)


def test_a_heart_at_the_edge_is_padded_with_the_darkest_value():
    mask = disc((100, 100), (9.5, 49.5), 8).astype(np.uint8)
    image = np.linspace(5, 50, 10000, dtype=np.float32).reshape(100, 100, 1)
    pixels, labels = prepare_volume(volume(image, mask), mask_centre(mask), 128)
    assert pixels.shape == labels.shape == (1, 128, 128)
    assert (pixels[0, :, :50] == 0).all() and (labels[0, :, :50] == 0).all()
    assert np.count_nonzero(labels) == np.count_nonzero(mask)


def test_centre_and_share_outside():
    mask = np.zeros((300, 300, 2), np.uint8)
    mask[100, 50, 0] = mask[180, 90, 1] = 1
    assert mask_centre(mask) == (140.0, 70.0)
    assert share_outside(mask, (140.0, 70.0), (1.0, 1.0, 10.0)) == 0
    assert share_outside(mask, (140.0, 70.0), (1.7, 1.0, 10.0)) == 1
    assert share_outside(mask, (110.0, 70.0), (1.0, 1.0, 10.0)) == 0.5


def test_nearly_constant_volume_is_refused():
    image = np.zeros((50, 50, 4), np.float32)
    image[0, 0, 0] = 1
    with pytest.raises(InputError, match="ED.nii.gz is constant but for under 1 %"):
        prepare_volume(volume(image, np.ones(image.shape, np.uint8)), (25, 25), 64)


def test_rows_of_a_patient(cohort):
    patient = find_cohort(cohort).patients[0]
    prepared = prepare_patient(patient, resolution=32)
    assert {row["phase"] for row in prepared.rows} == {"ED", "ES"}
    assert len(prepared.volumes) == 2 and not prepared.has_cine and 0 <= prepared.cropped < 0.05
    row = prepared.rows[0]
    assert (row["pixel_spacing"], row["patient"], row["group"]) == (4.0, patient.name, patient.group)
    assert row["num_slices"] * 2 == len(prepared.rows)
    decoded = [Image.open(io.BytesIO(row[key])) for key in ("image", "mask")]
    assert all(picture.mode == "L" and picture.size == (32, 32) for picture in decoded)
