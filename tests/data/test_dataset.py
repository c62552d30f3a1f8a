import json
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import datasets
import nibabel
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from hcm_hf.data import phantom
from hcm_hf.data.acdc import GROUPS, find_cohort
from hcm_hf.data.cohort import Patient
from hcm_hf.data.dataset import build_dataset, load_dataset, prepare_dataset
from hcm_hf.data.schema import SPLITS, features
from hcm_hf.data.slices import Slices
from hcm_hf.data.splits import split_patients
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


def patients(number, groups=GROUPS, half=""):
    return [
        Patient(f"patient{half}{group}{index:03d}", half, group, ()) for group in groups for index in range(number)
    ]


def test_split_is_70_10_20_of_each_group():
    everyone = patients(20)
    splits = split_patients(everyone, seed=0)
    assert sorted(sum(splits.values(), [])) == sorted(patient.name for patient in everyone)
    for group in GROUPS:
        assert [sum(group in name for name in splits[split]) for split in SPLITS] == [14, 2, 4]


def test_split_depends_on_names_and_seed_alone():
    everyone = patients(20)
    splits = split_patients(everyone, seed=0)
    assert split_patients(everyone[::-1], seed=0) == splits
    assert split_patients(everyone, seed=1) != splits
    only = split_patients([patient for patient in everyone if patient.group == "HCM"], seed=0)
    assert only == {split: [name for name in names if "HCM" in name] for split, names in splits.items()}


def test_official_halves_are_kept():
    everyone = patients(20, half="training") + patients(10, half="testing")
    splits = split_patients(everyone, seed=0)
    assert splits["test"] == sorted(patient.name for patient in everyone if patient.half == "testing")
    assert len(splits["validation"]) == 10 and len(splits["train"]) == 90


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_stand_in_one_split(seed):
    everyone = patients(10)
    names = {"patientHCM003", "patientHCM007"}
    splits = split_patients(everyone, seed, [names])
    assert sum(bool(names & set(members)) for members in splits.values()) == 1
    assert sorted(sum(splits.values(), [])) == sorted(patient.name for patient in everyone)


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_under_two_groups_stand_in_one_split(seed):
    names = {"patientHCM003", "patientNOR007", "patientNOR001"}
    splits = split_patients(patients(10), seed, [names])
    assert sum(bool(names & set(members)) for members in splits.values()) == 1


@pytest.mark.parametrize("number", [3, 4, 5, 7])
def test_small_groups_reach_every_split(number):
    assert all(split_patients(patients(number), seed=0).values())


def test_dataset_holds_what_the_files_hold(cohort, splits):
    everyone = {patient.name: patient for patient in find_cohort(cohort).patients}
    assert splits["train"].features == features(GROUPS)
    seen = []
    for split in splits.values():
        for row in split:
            patient = everyone[row["patient"]]
            assert GROUPS[row["group"]] == patient.group and row["height"] == pytest.approx(patient.height)
            assert row["frame"] == patient.phases[["ED", "ES"][row["phase"]]]
            assert row["image"].size == row["mask"].size == (16, 16) and row["pixel_spacing"] == 8
            assert set(np.unique(row["mask"])) <= {0, 1, 2, 3}
            seen.append((row["patient"], row["frame"], row["slice_index"]))
    expected = [
        (patient.name, volume.frame, index)
        for patient in everyone.values()
        for volume in read_volumes(patient)
        for index in range(volume.image.shape[2])
    ]
    assert sorted(seen) == sorted(expected)
    names = [set(split["patient"]) for split in splits.values()]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_several_processes_give_the_same(cohort, splits):
    again, _ = build_dataset(cohort, resolution=16, num_proc=2)
    for split in SPLITS:
        assert again[split].data.equals(splits[split].data)


def test_report_counts_and_says_what_is_left_out(cohort, tmp_path):
    output_dir = tmp_path / "data" / "hcm"
    report = prepare_dataset(cohort, output_dir, resolution=16, groups=["HCM"])
    opened = datasets.load_from_disk(output_dir)
    assert {split: row["slices"] for row in report.slices for split in [row["split"]]} == opened.num_rows
    assert report.left_out == ["4 patients of group NOR, not asked for"]
    assert report.source == "synthetic" and "4 patients of group NOR" in str(report)
    assert json.loads((output_dir / "preparation.json").read_text())["patients"] == report.patients
    assert [path.name for path in output_dir.parent.iterdir()] == ["hcm"]


def copy_patient(source, name, target):
    shutil.copytree(source, target / name)
    for path in (target / name).glob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace(source.name, name)))


def test_duplicates_are_found_by_content(cohort, tmp_path):
    tree = tmp_path / "acdc"
    shutil.copytree(cohort, tree)
    source = sorted((tree / "training").iterdir())[0]
    copy_patient(source, "patient201", tree / "training")
    splits, report = build_dataset(tree, resolution=16, groups=["HCM"])
    assert f"{source.name} and patient201 hold the same volumes" in "\n".join(report.notes)
    assert sum({source.name, "patient201"} <= set(split["patient"]) for split in splits.values()) == 1

    # The same pair across the halves: the training copy is left out.
    copy_patient(source, "patient301", tree / "testing")
    splits, report = build_dataset(tree, resolution=16, groups=["HCM"])
    assert set(splits["test"]["patient"]) == {"patient301"}
    everyone = set().union(*(split["patient"] for split in splits.values()))
    assert not {source.name, "patient201"} & everyone
    assert f"{source.name}: the same volumes as patient301 of the testing half" in report.left_out


def rescale(folder, change):
    for path in folder.glob("*frame??.nii.gz"):
        image = nibabel.load(path)
        voxels = change(np.asarray(image.dataobj).astype(np.float64))
        image.header.set_data_dtype(voxels.dtype)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine, image.header), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda voxels: (voxels * 1.23).astype(np.float32),
        lambda voxels: np.rint(voxels / voxels.max() * 250).astype(np.uint8),
    ],
)
def test_copies_with_other_grey_values_stand_in_one_split(cohort, tmp_path, change):
    tree = tmp_path / "acdc"
    shutil.copytree(cohort, tree)
    source = sorted((tree / "training").iterdir())[0]
    copies = {source.name, "patient201", "patient202"}
    for name in copies - {source.name}:
        copy_patient(source, name, tree / "training")
        rescale(tree / "training" / name, change)
    splits, report = build_dataset(tree, resolution=16, groups=["HCM"])
    assert f"{' and '.join(sorted(copies))} hold the same volumes" in "\n".join(report.notes)
    assert sum(bool(copies & set(split["patient"])) for split in splits.values()) == 1


def test_drawn_patients_among_real_ones_make_no_synthetic_dataset(cohort, tmp_path):
    """One patient whose files do not say that they are drawn counts as real, and the whole with him."""
    tree = tmp_path / "acdc"
    shutil.copytree(cohort, tree)
    for path in (tree / "training/patient001").glob("*.nii.gz"):
        image = nibabel.load(path)
        image.header["descrip"] = "MR of a hospital"
        nibabel.save(image, path)
    splits, report = build_dataset(tree, resolution=16, groups=["HCM"])
    assert report.source == "acdc" and splits["train"].info.license == "cc-by-nc-sa-4.0"
    assert any("of the synthetic cohort; the dataset counts as one of real patients" in note for note in report.notes)


def test_the_preparation_says_how_it_split_and_what_it_met(cohort, dataset_dir, tmp_path):
    tree = tmp_path / "acdc"
    shutil.copytree(cohort, tree)
    for path in (tree / "training/patient002").glob("*.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., ::-1], image.affine, image.header), path)
    turned = prepare_dataset(tree, tmp_path / "turned", 16)
    straight, written = (
        json.loads((folder / "preparation.json").read_text()) for folder in (dataset_dir, tmp_path / "turned")
    )
    assert "split: 70/10/20 of each group" in str(turned) and written["split_rule"] == turned.split_rule
    assert "patient002: slices go from apex to base; turned" in written["notes"]
    assert any("pixels of 1." in note and "(patient" in note for note in written["notes"])
    assert not any("patient002: " in note for note in straight["notes"])
    first, second = (
        {
            (row["patient"], row["phase"], row["slice_index"]): np.asarray(row["mask"]).tolist()
            for split in load_dataset(folder).values()
            for row in split
        }
        for folder in (dataset_dir, tmp_path / "turned")
    )
    assert first == second


def test_a_patient_is_the_same_at_every_resolution(cohort, splits):
    larger, _ = build_dataset(cohort, resolution=32, groups=["HCM"])
    for split in SPLITS:
        small, large = (Slices(one[split], ("HCM",)).identities() for one in (splits, larger))
        assert small == large and all(len(volumes) == 2 for volumes in small.values())


def test_bad_arguments_leave_nothing_behind(cohort, tmp_path):
    for arguments, message in [
        ({"groups": ["ABC"]}, "Unknown group 'ABC' in groups"),
        ({"groups": ["DCM"]}, "No patient is left in the train split"),
        ({"resolution": 4}, "resolution is 4; it must be at least 16"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare_dataset(cohort, tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        prepare_dataset(cohort, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_full_disk_leaves_nothing_behind(cohort, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match=f"Cannot write .*{tmp_path / 'out'}"):
            prepare_dataset(cohort, tmp_path / "out", resolution=64, groups=["HCM"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_load_dataset_names_what_is_wrong(dataset_dir, tmp_path):
    assert load_dataset(dataset_dir)["train"].num_rows
    with pytest.raises(InputError, match="images of 16 px, not 64; leave resolution out"):
        load_dataset(dataset_dir, resolution=64)
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a dataset"):
        load_dataset(tmp_path)
    datasets.DatasetDict(train=datasets.Dataset.from_dict({"image": [1]})).save_to_disk(tmp_path / "other")
    with pytest.raises(InputError, match="no column 'mask' in 'train'"):
        load_dataset(tmp_path / "other")
    splits = datasets.load_from_disk(dataset_dir)
    del splits["validation"]
    splits.save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match="no slices in a split 'validation'"):
        load_dataset(tmp_path / "two")
    shutil.copytree(dataset_dir, tmp_path / "cut")
    arrow = next((tmp_path / "cut" / "test").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:500])
    with pytest.raises(InputError, match=f"{arrow} has changed since it was written .* copy it again"):
        load_dataset(tmp_path / "cut")
    (tmp_path / "cut" / "SHA256SUMS").unlink()  # as earlier versions left it
    with pytest.raises(InputError, match="cut is not a dataset"):
        load_dataset(tmp_path / "cut")


def test_batches_hold_the_pixels_in_the_documented_range(splits):
    slices = Slices(splits["train"], ("HCM",))
    batch = slices.batch([2, 0])
    row = next(row for row in splits["train"] if GROUPS[row["group"]] == "HCM")
    np.testing.assert_allclose(batch.images[1, 0], np.asarray(row["image"]) / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(batch.masks[1], np.asarray(row["mask"]))
    assert batch.images.dtype == torch.float32 and batch.images.shape == (2, 1, 16, 16)
    assert batch.images.min() >= -1 and batch.images.max() <= 1
    assert batch.class_labels.tolist() == [GROUPS.index("HCM")] * 2
    assert batch.positions[1] == 0 and slices.batch(slice(None)).positions.max() == 1
    assert set(slices.patients) == {row["patient"] for row in splits["train"] if GROUPS[row["group"]] == "HCM"}
    with pytest.raises(InputError, match="No slice of groups DCM"):
        Slices(splits["train"], ("DCM",))


def test_fingerprint_follows_the_content(splits):
    slices = Slices(splits["train"], ("HCM", "NOR"))
    assert slices.fingerprint() == Slices(splits["train"], ("HCM", "NOR")).fingerprint()
    assert slices.fingerprint() != Slices(splits["train"], ("HCM",)).fingerprint()


def test_jobs_that_need_the_synthetic_cohort_at_once_draw_it_once(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    write, drawn = phantom.write_cohort, []

    def slowly(folder, num_proc):
        drawn.append(folder)
        write(folder, 3, groups=("HCM",), num_proc=num_proc)
        time.sleep(0.5)

    monkeypatch.setattr(phantom, "write_cohort", slowly)
    with ThreadPoolExecutor(3) as pool:
        opened = [len(splits["train"]) for splits in pool.map(lambda _: load_dataset(None, 16), range(3))]
    assert len(drawn) == 1 and len(set(opened)) == 1 and opened[0] > 0


def test_without_a_cache_for_the_synthetic_cohort_a_sentence_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"cannot be kept in .*hcm_hf \(Not a directory\); set HF_HOME to a folder"):
        load_dataset(None, 16)
    monkeypatch.setattr(constants, "HF_HOME", "~nobody-of-this-name/cache")
    with pytest.raises(InputError, match=r"\(there is no home\); set HF_HOME"):
        load_dataset(None, 16)
