import nibabel
import numpy as np
import pytest
from hearts import SHAPE, heart, oblique, save, write_cohort, write_table

from hcm_hf.data.acdc import GROUPS, find_cohort
from hcm_hf.data.cohort import Scan, join_cohorts, read_table
from hcm_hf.data.cohort import write_table as write_cohort_table
from hcm_hf.data.dataset import build_dataset, load_dataset, prepare_dataset
from hcm_hf.data.schema import SPLITS
from hcm_hf.data.slices import Slices
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Six patients of two groups, and their rows."""
    folder = tmp_path_factory.mktemp("patients")
    return folder, write_cohort(folder)


def table(files, path, **columns):
    """A table of these files elsewhere, with columns of one value."""
    folder, rows = files
    absolute = [{name: f"{folder}/{row[name]}" for name in ("image", "mask")} for row in rows]
    return write_table(path, [row | paths | columns for row, paths in zip(rows, absolute, strict=True)])


def rows_of(splits):
    """What a dataset says of each slice, by patient, phase and place."""
    return {
        (row["patient"], row["phase"], row["slice_index"]): (
            np.asarray(row["image"]).tolist(),
            row["mask"] and np.asarray(row["mask"]).tolist(),
            row["volume_sha256"],
        )
        for split in splits.values()
        for row in split
    }


def test_a_table_becomes_a_dataset_with_its_own_groups(files, tmp_path):
    path = table(files, tmp_path / "clinic.csv", height="171,5", weight="n/a")
    report = prepare_dataset(None, tmp_path / "data", 16, cohort=(path,))
    splits = load_dataset(tmp_path / "data")
    assert splits["train"].features["group"].names == ["HCM", "athlete"]
    assert {name: len(members) for name, members in report.patients.items()} == dict.fromkeys(SPLITS, 2)
    rows = [row for split in splits.values() for row in split]
    assert len(rows) == 6 * 2 * SHAPE[2]
    assert {row["cohort"] for row in rows} == {"clinic"} and {row["height"] for row in rows} == {171.5}
    assert {row["weight"] for row in rows} == {None}
    assert report.source == "other" and splits["train"].info.license is None
    assert any("has 'n/a' as weight, which is no number; left empty" in note for note in report.notes)
    assert "the heart was located by mask in 6 patients" in report.notes


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("semicolons", lambda text: text.replace(",", ";").encode()),
        ("tabs", lambda text: text.replace(",", "\t").encode()),
        ("UTF-16", lambda text: text.encode("utf-16")),
        ("a mark", lambda text: text.encode("utf-8-sig")),
        ("Windows", lambda text: text.replace("\n", "\r\n").encode()),
        ("paths of Windows", lambda text: text.replace("p1_ED.nii.gz", ".\\p1_ED.nii.gz").encode()),
        ("empty lines", lambda text: (text + "\n,,,,\n\n").encode()),
        ("capitals", lambda text: text.replace("patient,", "Patient ,").replace(",ED,", ", ed ,").encode()),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(files, text, change):
    folder, rows = files
    path = write_table(folder / "plain.csv", rows)
    plain = read_table(path).patients
    path.write_bytes(change(path.read_text()))
    assert read_table(path).patients == plain and len(plain) == 6
    path.unlink()


def test_acdc_through_its_table_is_the_same_dataset(cohort, splits, tmp_path):
    write_cohort_table(find_cohort(cohort), tmp_path / "acdc.csv")
    again, report = build_dataset(read_table(tmp_path / "acdc.csv"), resolution=16)
    assert report.source == "synthetic" and set(again["train"].features["group"].names) < set(GROUPS)
    assert rows_of(again) == rows_of(splits)
    for split in SPLITS:
        assert again[split]["patient"] == splits[split]["patient"]
        assert set(again[split]["cohort"]) == {"acdc"}
        assert Slices(again[split], ("HCM",)).volumes == Slices(splits[split], ("HCM",)).volumes
    with pytest.raises(InputError, match="output .*acdc.csv exists; name a new file"):
        write_cohort_table(find_cohort(cohort), tmp_path / "acdc.csv")


def test_a_table_on_another_drive_names_whole_paths(cohort, tmp_path, monkeypatch):
    def on_another_drive(*_):
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr("os.path.relpath", on_another_drive)
    found = find_cohort(cohort)
    write_cohort_table(found, tmp_path / "acdc.csv")
    scans = [scan for patient in read_table(tmp_path / "acdc.csv").patients for scan in patient.scans]
    assert scans and all(scan.image.startswith(str(cohort)) for scan in scans)


def test_frames_of_a_cine_are_named_by_number(tmp_path):
    images, masks = zip(*(heart(1, phase) for phase in ("ED", "ES")), strict=True)
    cine = np.stack([images[0], images[0] + 1, images[1], images[1] + 1], -1)
    labels = np.stack([masks[0], 0 * masks[0], masks[1], 0 * masks[1]], -1)
    save(tmp_path / "cine.nii.gz", cine)
    save(tmp_path / "labels.nii.gz", labels)
    row = {"patient": "a", "group": "HCM", "image": "cine.nii.gz", "mask": "labels.nii.gz"}
    rows = [row | {"phase": "ED", "frame": 1}, row | {"phase": "ES", "frame": "3.0"}]
    (patient,) = read_table(write_table(tmp_path / "t.csv", rows)).patients
    volumes = list(read_volumes(patient, all_frames=True))
    assert [(one.frame, one.phase, one.mask is None) for one in volumes] == [
        *((1, "ED", False), (3, "ES", False), (2, None, True), (4, None, True))
    ]
    np.testing.assert_array_equal(volumes[1].image, images[1])
    np.testing.assert_array_equal(volumes[1].mask, masks[1])
    beyond = write_table(tmp_path / "t.csv", [rows[0], rows[1] | {"frame": 5}])
    with pytest.raises(InputError, match="cine.nii.gz has 4 frames, and the cohort names frame 5"):
        list(read_volumes(read_table(beyond).patients[0]))
    unnamed = write_table(tmp_path / "t.csv", [row | {"phase": "ED"}])
    with pytest.raises(InputError, match="cine.nii.gz has 4 frames; say which one is meant in the column frame"):
        list(read_volumes(read_table(unnamed).patients[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [row | {"colour": 1} for row in rows],
            "t.csv has an unknown column 'colour'; a cohort has",
        ),
        (lambda rows: [{k: v for k, v in row.items() if k != "group"} for row in rows], "has no column 'group'"),
        (lambda rows: [row | {"Phase": "ES"} for row in rows], "t.csv has two columns 'phase'; remove one"),
        (lambda rows: [rows[0] | {"image": "no.nii.gz"}], "line 2, names the image no.nii.gz, which is not there"),
        (lambda rows: [rows[0] | {"mask": "no.nii.gz"}], "line 2, names the mask no.nii.gz, which is not there"),
        (lambda rows: [*rows, rows[1]], "has two rows for p1_ES.nii.gz of p1, lines 3 and 14; remove one"),
        (
            lambda rows: [*rows, rows[1] | {"image": f"./{rows[1]['image']}", "phase": ""}],
            "has two rows for p1_ES.nii.gz of p1, lines 3 and 14; remove one",
        ),
        (lambda rows: [rows[0], rows[1] | {"phase": "ED"}], "has two rows for phase ED of p1, lines 2 and 3"),
        (lambda rows: [rows[0] | {"phase": "systole"}], "has the phase 'systole'; write ED, ES or nothing"),
        (lambda rows: [rows[0] | {"frame": "0"}], "has the frame '0'; frames count from 1"),
        (lambda rows: [rows[0] | {"frame": "1.5"}], "has the frame '1.5'; frames count from 1"),
        (lambda rows: [rows[0] | {"half": "left"}], "has 'left' in column 'half'; write training, validation or"),
        (
            lambda rows: [rows[0], rows[1] | {"group": "NOR"}],
            "line 3, gives p1 the group 'NOR', and another line",
        ),
        (lambda rows: [rows[0] | {"group": ""}], "line 2, has nothing in column 'group'"),
        (lambda rows: [rows[0] | {"phase": "", "frame": 3}], "names no volume of p1 with the phase ED or ES"),
        (lambda rows: [rows[0] | {"mask": rows[0]["image"]}], "as image and as mask; correct one"),
        (lambda rows: [rows[0] | {"mask_values": "4"}], "has '4' where VALUE:STRUCTURE belongs, such as 85:1"),
        (lambda rows: [rows[0] | {"mask_values": "4:7"}], "maps 4 to 7, which is none of 0 background, 1 RV cavity"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(files, change, message):
    folder, rows = files
    path = write_table(folder / "t.csv", change(rows))
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_bad_arguments_leave_nothing_behind(files, tmp_path):
    folder, rows = files
    (tmp_path / "empty.csv").write_text("")
    path = write_table(folder / "one.csv", rows[:8])
    good = write_table(folder / "good.csv", rows)
    output = tmp_path / "deep/data"
    for arguments, message in [
        ({"cohort": (tmp_path / "no.csv",)}, "no.csv does not exist; name a cohort's table or folder"),
        ({"cohort": (tmp_path / "empty.csv",)}, "empty.csv has no rows"),
        ({"cohort": (path,)}, "Group athlete has one patient, p4, who cannot be in training and in test"),
        ({"cohort": (good,), "groups": ["NOR"]}, "Unknown group 'NOR' in groups; choose among HCM, athlete"),
        ({"cohort": (good, good)}, "has two that are called 'good'; name each in its table's column cohort"),
        ({}, "Give `acdc` or `cohort`"),
        ({"mask_values": ["85:1"]}, "mask_values 85:1 is for `cohort`"),
        ({"cohort": (tmp_path,)}, "is in no layout that is known"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare_dataset(None, output, 16, **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.csv"]


def test_two_cohorts_keep_equal_names_apart(files, tmp_path):
    folder, rows = files
    alone = write_table(folder / "alone.csv", rows)
    (tmp_path / "other").mkdir()
    others = write_cohort(tmp_path / "other", number=2, masks=False)
    for row in others:
        image, _ = heart(50 + int(row["patient"][1:]), row["phase"])
        save(tmp_path / "other" / row["image"], image)
    other = write_table(tmp_path / "other/hospital.csv", [row | {"half": "test"} for row in others])
    report = prepare_dataset(None, tmp_path / "both", 16, cohort=(alone, other))
    splits = load_dataset(tmp_path / "both")
    assert {row["cohort"] for split in splits.values() for row in split} == {"alone", "hospital"}
    first = prepare_dataset(None, tmp_path / "first", 16, cohort=(alone,))
    for split in SPLITS:
        names = [name.removeprefix("alone:") for name in report.patients[split] if name.startswith("alone:")]
        assert names == first.patients[split]
    assert set(report.patients["test"]) >= {f"hospital:p{number}" for number in range(1, 5)}
    assert (
        "alone: 70/10/20" in report.split_rule and "hospital: test is testing in the column half" in report.split_rule
    )
    assert "the heart was located by mask in 6 patients, image in 4 patients" in report.notes


def test_a_copy_in_another_cohort_is_known_without_masks_turned_and_with_other_greys(files, tmp_path):
    """Or one patient would be in training and in test."""
    folder, rows = files
    alone = write_table(folder / "whole.csv", rows)
    (tmp_path / "other").mkdir()
    copied = [row | {"patient": "x9", "group": "HCM", "mask": "", "half": "test"} for row in rows[:2]]
    for row in copied:
        voxels = nibabel.load(folder / row["image"]).get_fdata()
        save(tmp_path / "other" / row["image"], voxels[::-1].transpose(1, 0, 2)[:, :, ::-1] * 0.31 + 4)
    others = write_cohort(tmp_path / "other", number=3, masks=False)[4:]
    for row in others:
        save(tmp_path / "other" / row["image"], heart(60 + int(row["patient"][1:]), row["phase"])[0])
    hospital = write_table(tmp_path / "other/clinic.csv", copied + others)
    report = prepare_dataset(None, tmp_path / "data", 16, cohort=(alone, hospital))
    assert "whole:p1: the same volumes as clinic:x9 of the testing half" in report.left_out
    assert len([sentence for sentence in report.left_out if "the same volumes" in sentence]) == 1


def test_a_mask_on_another_grid_is_resampled_by_the_affines_or_refused(tmp_path):
    rows = write_cohort(tmp_path, number=3, groups=("HCM",), affine=oblique())
    _, mask = heart(1, "ED")
    fine = oblique() @ np.diag([0.5, 0.5, 1, 1])
    fine[:3, 3] -= oblique()[:3, :2].sum(1) / 4  # the first of two voxels in the place of one
    save(tmp_path / rows[0]["mask"], mask.repeat(2, 0).repeat(2, 1), affine=fine)
    path = write_table(tmp_path / "t.csv", rows)
    report = prepare_dataset(None, tmp_path / "fine", 16, cohort=(path,))
    assert (
        "p1: its mask lies on another grid; resampled onto the image by the affines (nearest neighbour)"
        in report.notes
    )
    save(tmp_path / rows[0]["mask"], mask, affine=oblique())
    prepare_dataset(None, tmp_path / "same", 16, cohort=(path,))
    assert rows_of(load_dataset(tmp_path / "fine")) == rows_of(load_dataset(tmp_path / "same"))
    save(tmp_path / rows[0]["mask"], mask.repeat(2, 0), spacing=(1, 2, 10))
    with pytest.raises(InputError, match=r"p1_ED_mask.nii.gz has shape \(128, 60, 5\) and its image"):
        prepare_dataset(None, tmp_path / "refused", 16, cohort=(path,))


def test_values_of_masks_are_mapped(tmp_path):
    rows = write_cohort(tmp_path, number=3, groups=("HCM",))
    straight, _ = build_dataset(read_table(write_table(tmp_path / "t.csv", rows)), 16)
    for row in rows:
        _, mask = heart(int(row["patient"][1:]), row["phase"])
        save(tmp_path / row["mask"], mask * np.uint8(85))
    mapping = {85: 1, 170: 2, 255: 3}
    assert rows_of(build_dataset(read_table(tmp_path / "t.csv", mapping), 16)[0]) == rows_of(straight)
    with pytest.raises(InputError, match="holds values that mask_values 85:1 170:2 does not name"):
        build_dataset(read_table(tmp_path / "t.csv", {85: 1, 170: 2}), 16)
    write_table(tmp_path / "own.csv", [row | {"mask_values": "85:1 170:2 255:3"} for row in rows])
    assert rows_of(build_dataset(read_table(tmp_path / "own.csv"), 16)[0]) == rows_of(straight)


def test_cohorts_are_joined_with_all_their_groups(cohort, files):
    folder, rows = files
    joined = join_cohorts([find_cohort(cohort), read_table(write_table(folder / "joined.csv", rows))])
    assert joined.group_names == tuple(sorted((*GROUPS, "athlete")))
    assert joined.patients[0].name == "acdc:patient001" and joined.patients[-1].name == "joined:p6"
    assert joined.patients[-1].scans[0] == Scan("p6_ED.nii.gz", "ED", None, "p6_ED_mask.nii.gz")
