import csv

import numpy as np
import pytest

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.layouts import read_cohort
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.phantom.layouts import LAYOUTS, Drawn
from hcm_hf.data.preprocessing import prepare_patient
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


@pytest.fixture(scope="module")
def sources(cohort, tmp_path_factory):
    """Three of the drawn patients in the layouts of M&Ms and M&Ms-2."""
    folder = tmp_path_factory.mktemp("layouts")
    patients = find_cohort(cohort).patients[:3]
    for layout in ("mnms", "mnms2"):
        rows = []
        for number, patient in enumerate(patients, 1):
            ed, es = read_volumes(patient)
            images, masks = (np.stack(pair, -1) for pair in ((ed.image, es.image), (ed.mask, es.mask)))
            frames = (ed.frame, es.frame)
            drawn = Drawn(
                *(number, patient.group, patient.height, patient.weight, 30, frames, images, masks),
                drawn=frames,
                zooms=ed.spacing,
                description=ed.description,
            )
            LAYOUTS[layout].write(folder / layout, drawn)
            size = {"number": number, "group": patient.group, "height": patient.height, "weight": patient.weight}
            rows.append(size | {"ed": 0, "es": 1})
        LAYOUTS[layout].finish(folder / layout, rows)
    return folder


@pytest.mark.parametrize(("layout", "name"), [("mnms", "M&Ms"), ("mnms2", "M&Ms-2")])
def test_a_patient_gives_the_same_rows_in_each_layout(cohort, sources, layout, name):
    """Other labels, other axes, from apex to base, and in M&Ms a file of several frames."""
    found = read_cohort(sources / layout)
    assert found.layout == name and len(found.patients) == 3 and found.left_out == []
    before, after = find_cohort(cohort).patients[1], found.patients[1]
    assert after.group == before.group and after.cohort == layout
    first, second = (prepare_patient(patient, 32) for patient in (before, after))
    for one, other in zip(first.rows, second.rows, strict=True):
        for key in ("image", "mask", "group", "phase", "slice_index", "num_slices", "volume_sha256"):
            assert one[key] == other[key]
        assert one["slice_thickness"] == pytest.approx(other["slice_thickness"])
    assert second.oriented_by == "the affine" and first.oriented_by == "the masks alone"
    assert f"{after.name}: slices go from apex to base; turned" in second.notes


@pytest.mark.parametrize("layout", ["mnms", "mnms2"])
def test_the_synthetic_cohort_comes_in_each_layout(tmp_path, layout):
    write_cohort(tmp_path / "drawn", 1, groups=("NOR",), num_proc=1, layout=layout)
    (patient,) = read_cohort(tmp_path / "drawn").patients
    assert patient.group == "NOR" and [volume.phase for volume in read_volumes(patient)] == ["ED", "ES"]
    with pytest.raises(InputError, match="Unknown layout 'dicom'; choose among acdc, mnms, mnms2"):
        write_cohort(tmp_path / "other", layout="dicom")


def rewrite(path, change):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def table(sources):
    """The challenge's table, which stays as it was."""
    path = next((sources / "mnms").glob("*.csv"))
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def test_frames_count_from_0_in_the_table_and_sizes_come_from_it(sources, table):
    (patient, *_) = read_cohort(sources / "mnms").patients
    assert patient.phases == {"ED": 1, "ES": 2} and patient.height > 100
    rewrite(table, lambda row: row.update(Height=1.75, Weight="n/a"))
    (patient, *_) = read_cohort(sources / "mnms").patients
    assert (patient.height, patient.weight) == (175, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ES": "x"}, "P00002: its ES is 'x', which is no frame"),
        ({"ES": "nan"}, "P00002: its ES is 'nan', which is no frame"),
        ({"ES": "0"}, "P00002: its ED and ES are both frame 0"),
        ({"Pathology": ""}, "P00002: its pathology is not given"),
        ({"External code": "Z"}, "P00002: 211230_M&Ms_Dataset_information_diagnosis_opendataset.csv has no row for"),
    ],
)
def test_patients_whom_the_table_does_not_describe_are_left_out_by_name(sources, table, change, message):
    rewrite(table, lambda row: row.update(change if row["External code"] == "P00002" else {}))
    found = read_cohort(sources / "mnms")
    assert [patient.name for patient in found.patients] == ["P00001", "P00003"]
    assert any(sentence.startswith(message) for sentence in found.left_out)


def test_a_patient_with_two_rows_that_differ_is_refused(sources, table):
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[2]]))
    assert len(read_cohort(sources / "mnms").patients) == 3
    table.write_text("\n".join([*lines, lines[2].replace("P00002", "p00002")]))
    with pytest.raises(InputError, match="has two rows for P00002 that differ; remove one"):
        read_cohort(sources / "mnms")


def test_without_the_challenges_table_a_sentence_says_so(sources, table):
    rewrite(table, lambda row: row.pop("Pathology"))
    with pytest.raises(InputError, match="has no column 'pathology'; copy the challenge's own table"):
        read_cohort(sources / "mnms")
    table.rename(table.with_name("other.txt"))
    with pytest.raises(InputError, match=r"lacks the challenge's table \*information\*.csv"):
        read_cohort(sources / "mnms")
    table.with_name("other.txt").rename(table)


def test_a_mask_without_its_volume_is_not_taken_for_it(sources):
    root = sources / "mnms2"
    patient = read_cohort(root).patients[1]
    volume = root / patient.scans[0].image
    volume.rename(root / "away")
    try:
        found = read_cohort(root)
        assert len(found.patients) == 2 and found.left_out == [f"{patient.name}: {volume.name} is not there"]
    finally:
        (root / "away").rename(volume)


def test_halves_and_missing_masks_are_known_by_the_folders(sources, table):
    root = sources / "mnms"
    moved, unlabelled = root / "Testing", root / "Training/Unlabeled"
    for folder in (moved, unlabelled):
        folder.mkdir()
    (root / "Training/Labeled/P00003").rename(moved / "P00003")
    (root / "Training/Labeled/P00002").rename(unlabelled / "P00002")
    mask = unlabelled / "P00002/P00002_sa_gt.nii.gz"
    mask.rename(root / "mask")
    try:
        found = read_cohort(root)
        assert [patient.half for patient in found.patients] == ["training", "training", "testing"]
        assert [patient.scans[0].mask is None for patient in found.patients] == [False, True, False]
        assert found.split_rule.startswith("test is the folder testing/")
    finally:
        (root / "mask").rename(mask)
        for folder, name in ((moved, "P00003"), (unlabelled, "P00002")):
            (folder / name).rename(root / "Training/Labeled" / name)
            folder.rmdir()
