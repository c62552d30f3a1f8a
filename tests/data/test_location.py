import io

import numpy as np
import pytest
from hearts import SHAPE, SPACING, heart, save, write_cohort, write_table
from PIL import Image

from hcm_hf.data.cohort import read_table
from hcm_hf.data.cropping import mask_centre, prepare_volume
from hcm_hf.data.dataset import build_dataset
from hcm_hf.data.location import image_centre, motion_centre, segmented_centre
from hcm_hf.data.preprocessing import prepare_patient
from hcm_hf.data.volumes import Volume
from hcm_hf.utils.errors import InputError


MIDDLE = (92.0, 38.0)  # mm; far from the image's


def moved(seed=1, phase="ED"):
    return heart(seed, phase, middle=MIDDLE)


def by_brightness(images):
    """A segmenter of drawn hearts: by grey value, as a network would by what it has learnt."""
    blood, wall = images > 200, (images > 50) & (images < 130)
    return np.where(blood, 3, np.where(wall, 2, 0)).astype(np.uint8)


def distance(found, true):
    return float(np.hypot(*((np.array(found) - true) * SPACING[:2])))


def test_what_moves_is_the_heart():
    (ed, mask), (es, _) = moved(), moved(phase="ES")
    cine = np.stack([ed, es, ed, es], -1)
    assert distance(motion_centre(cine, SPACING), mask_centre(mask)) < 20
    assert distance(image_centre(ed), mask_centre(mask)) > 20
    still = np.stack([np.full(SHAPE, 7)] * 3, -1)
    assert motion_centre(still, SPACING) == image_centre(still) == ((SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2)


def test_a_segmenter_finds_it_or_says_that_it_does_not():
    image, mask = moved()
    volume = Volume(image, None, SPACING, None, "ED", "", "ED.nii")
    found = segmented_centre(volume, image_centre(image), by_brightness)
    assert distance(found, mask_centre(mask)) < 6
    assert segmented_centre(volume, image_centre(image), lambda images: np.zeros_like(images)) is None


@pytest.fixture
def table(tmp_path):
    """Patients with masks, without, without but with a cine, and with a mask of ED alone."""
    rows = write_cohort(tmp_path, groups=("HCM",), number=6)
    (ed, _), (es, _) = moved(), moved(phase="ES")
    save(tmp_path / "cine.nii.gz", np.stack([ed, es, ed], -1))
    for row in rows:
        if row["patient"] in ("p2", "p3") or (row["patient"], row["phase"]) == ("p4", "ES"):
            row["mask"] = ""
    rows.append({"patient": "p3", "group": "HCM", "image": "cine.nii.gz"})
    return write_table(tmp_path / "t.csv", rows)


def test_the_report_says_what_located_each_heart(table):
    splits, report = build_dataset(read_table(table), 16)
    assert "the heart was located by mask in 4 patients, cine in 1 patients, image in 1 patients" in report.notes
    unlabelled = {(row["patient"], row["phase"]) for split in splits.values() for row in split if row["mask"] is None}
    assert unlabelled == {("p2", 0), ("p2", 1), ("p3", 0), ("p3", 1), ("p4", 1)}
    _, report = build_dataset(read_table(table), 16, segmenter=by_brightness)
    assert "the heart was located by mask in 4 patients, segmenter in 2 patients" in report.notes


def test_a_volume_without_a_mask_is_cut_as_the_patients_other_one(table):
    patient = read_table(table).patients[3]
    prepared = prepare_patient(patient, 32)
    image, mask = heart(4, "ED")
    es = Volume(heart(4, "ES")[0], None, SPACING, None, "ES", "", "")
    expected, _ = prepare_volume(es, mask_centre(mask), 32)
    rows = [row for row in prepared.rows if row["phase"] == "ES"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows[2]["image"]))), expected[2])
    assert prepared.located_by == "mask" and prepared.cropped == 0


def test_a_place_is_carried_to_a_finer_grid_of_the_same_field_and_no_other(tmp_path):
    """A volume without a mask is cropped where the patient's other one shows the heart."""
    rows = write_cohort(tmp_path, groups=("HCM",), number=1)
    fine = (SPACING[0] / 2, SPACING[1] / 2, SPACING[2])
    image, mask = moved()
    save(tmp_path / rows[0]["image"], image)
    save(tmp_path / rows[0]["mask"], mask)
    later = moved(phase="ES")[0]
    rows[1]["mask"] = ""

    def crop(voxels, spacing):
        save(tmp_path / rows[1]["image"], voxels, spacing)
        (patient,) = read_table(write_table(tmp_path / "t.csv", rows)).patients
        prepared = prepare_patient(patient, 32)
        pictures = [Image.open(io.BytesIO(row["image"])) for row in prepared.rows if row["phase"] == "ES"]
        return np.stack([np.asarray(picture, float) for picture in pictures])

    same = crop(later, SPACING)
    finer = crop(later.repeat(2, axis=0).repeat(2, axis=1), fine)
    assert np.abs(same - finer).mean() < 4 < np.abs(same - np.roll(same, 3, axis=2)).mean()
    with pytest.raises(InputError, match="has no mask and another field of view than .*give it a mask, or resample"):
        crop(later.repeat(2, axis=0).repeat(2, axis=1), SPACING)
