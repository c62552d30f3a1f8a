import gzip
import os
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hcm_hf.data.acdc import GROUPS, find_cohort
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


ACDC = Path(os.environ.get("HCM_ACDC", Path(__file__).parents[3] / "shared" / "acdc"))


@pytest.fixture
def broken(cohort, tmp_path):
    """A copy of one patient to damage."""
    source = sorted(cohort.rglob("patient*"))[0]
    folder = tmp_path / "acdc" / "training" / source.name
    shutil.copytree(source, folder)
    return folder


def images(folder):
    return sorted(path for path in folder.glob("*frame*.nii.gz") if "_gt" not in path.name)


def read_all(folder):
    return [list(read_volumes(patient)) for patient in find_cohort(folder.parents[1]).patients]


def save(array, path):
    """Write voxels with the header of the file that is there, if any, as who edits a volume does."""
    if path.exists():
        before = nibabel.load(path)
        before.header.set_data_dtype(array.dtype)
        image = nibabel.Nifti1Image(array, before.affine, before.header)
    else:
        image = nibabel.Nifti1Image(array, np.diag([-1.5, -1.5, 10, 1]))
    nibabel.save(image, path)


def test_volumes_are_what_the_files_hold(cohort):
    for patient in find_cohort(cohort).patients:
        folder = (cohort / patient.scans[0].image).parent
        volumes = list(read_volumes(patient))
        assert [volume.phase for volume in volumes] == ["ED", "ES"]
        for volume in volumes:
            stem = folder / f"{patient.name}_frame{volume.frame:02d}"
            image, mask = nibabel.load(f"{stem}.nii.gz"), nibabel.load(f"{stem}_gt.nii.gz")
            np.testing.assert_array_equal(volume.image, np.asarray(image.dataobj))
            np.testing.assert_array_equal(volume.mask, np.asarray(mask.dataobj))
            np.testing.assert_allclose(volume.spacing, image.header.get_zooms())


def test_zip_folder_and_flat_tree_give_the_same(cohort, tmp_path):
    with zipfile.ZipFile(tmp_path / "acdc.zip", "w") as archive:
        for path in cohort.rglob("*"):
            archive.write(path, Path("ACDC/database") / path.relative_to(cohort))
        archive.writestr("__MACOSX/ACDC/database/training/patient001/._Info.cfg", "")
    trees = [cohort, tmp_path / "acdc.zip", cohort / "training"]
    first, *others = (
        [(p.name, p.group, p.phases, p.height, p.half) for p in find_cohort(tree).patients] for tree in trees
    )
    assert all(other == first for other in others)
    volumes = [next(read_volumes(find_cohort(tree).patients[0])) for tree in trees]
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume.image, volumes[0].image)


def test_halves_are_told_apart_where_both_are_there(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "acdc")
    patient = sorted((tmp_path / "acdc/training").glob("patient*"))[-1]
    (tmp_path / "acdc/testing").mkdir()
    patient.rename(tmp_path / "acdc/testing" / patient.name)
    halves = {one.name: one.half for one in find_cohort(tmp_path / "acdc").patients}
    assert halves.pop(patient.name) == "testing"
    assert set(halves.values()) == {"training"}


def tree(cohort, target, **folders):
    """Patients of the cohort in folders: by folder, how many."""
    sources = iter(sorted(cohort.rglob("patient*/")))
    for folder, count in folders.items():
        for source in [next(sources) for _ in range(count)]:
            shutil.copytree(source, target / folder.replace("__", "/") / source.name)
    return target


@pytest.mark.parametrize(
    "names", [("training", "testing"), ("train", "test"), ("Train", "TEST"), ("train", "test__HCM")]
)
def test_halves_are_known_by_their_usual_names(cohort, tmp_path, names):
    found = find_cohort(tree(cohort, tmp_path / "acdc", **dict.fromkeys(names, 2)))
    assert [one.half for one in found.patients] == ["training"] * 2 + ["testing"] * 2
    assert found.left_out == [] and found.split_rule.startswith("test is the folder testing/ or test/ of the source")


def test_a_third_folder_beside_the_halves_is_left_out_by_name(cohort, tmp_path):
    found = find_cohort(tree(cohort, tmp_path / "acdc", training=2, testing=2, excluded=1))
    assert [one.half for one in found.patients] == ["training"] * 2 + ["testing"] * 2
    assert found.left_out == ["excluded/patient005: neither in training/ nor in testing/"]


def test_a_validation_folder_is_the_validation_split(cohort, tmp_path):
    found = find_cohort(tree(cohort, tmp_path / "acdc", train=2, val=1, test=2))
    assert [one.half for one in found.patients] == ["training"] * 2 + ["validation"] + ["testing"] * 2
    assert "validation is the folder validation/" in found.split_rule


def test_patients_beside_a_test_folder_are_its_training_half(cohort, tmp_path):
    found = find_cohort(tree(cohort, tmp_path / "acdc", mine=2, test=2))
    assert [one.half for one in found.patients] == ["training"] * 2 + ["testing"] * 2


@pytest.mark.parametrize("names", [("training",), ("testing",), ("train", "val"), ("test/one", "test/two")])
def test_without_a_held_out_half_the_rule_says_so(cohort, tmp_path, names):
    folders = {name.replace("/", "__"): 2 for name in names}
    source = tmp_path / "test" / "acdc"  # the name of what lies above the source says nothing
    found = find_cohort(tree(cohort, source, **folders))
    assert {one.half for one in found.patients} == {""} and found.split_rule.startswith(
        "70/10/20 of each group, as no"
    )


def test_every_folder_that_is_passed_over_is_named(cohort, tmp_path, monkeypatch):
    source = tree(cohort, tmp_path / "acdc", training=2)
    for name in ("patient_003", "Patient004", "patient005 (1)", "patient006_copy", ".hidden", "__MACOSX", "empty"):
        (source / "training" / name / "inside").mkdir(parents=True)
    (source / "a/b/c/d/e/patient007").mkdir(parents=True)
    (source / ".cache").mkdir()
    monkeypatch.chdir(source)
    for found in (find_cohort(source), find_cohort(".")):
        assert (
            len(found.patients) == 2
            and len(found.left_out) == 9
            and any(one.startswith("folder .cache: ") for one in found.left_out)
        )
        for name in ("patient_003", "Patient004", "patient005 (1)", "patient006_copy", ".hidden", "__MACOSX", "empty"):
            assert sum(sentence.startswith(f"folder training/{name}: ") for sentence in found.left_out) == 1
    assert next(read_volumes(find_cohort(".").patients[0])).image.any()


def test_a_folder_that_may_not_be_read_is_named_and_a_file_refused(cohort, tmp_path, monkeypatch):
    """As `lost+found` at the root of a disk, or somebody else's file."""
    source = tree(cohort, tmp_path / "acdc", training=2)
    (source / "lost+found").mkdir()
    iterdir, open_ = Path.iterdir, Path.open

    def closed(name, call):
        def checked(path, *arguments, **options):
            if path.name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **options)

        return checked

    monkeypatch.setattr(Path, "iterdir", closed("lost+found", iterdir))
    found = find_cohort(source)
    assert len(found.patients) == 2 and "lost+found: it cannot be read (Permission denied)" in found.left_out[0]
    for name in ("Info.cfg", "patient001_frame01.nii.gz"):
        monkeypatch.setattr(Path, "open", closed(name, open_))
        with pytest.raises(InputError, match=rf"Cannot read .*{name} \(Permission denied\); change its rights"):
            [list(read_volumes(patient)) for patient in find_cohort(source).patients]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_info_is_read_as_editors_of_windows_save_it(broken, encoding):
    path, mark = broken / "Info.cfg", "\ufeff" if encoding == "utf-16-le" else ""
    before = find_cohort(broken.parents[1]).patients
    path.write_bytes((mark + path.read_text()).encode(encoding))
    assert find_cohort(broken.parents[1]).patients == before


def test_what_only_describes_a_patient_stops_nothing(broken):
    info = broken / "Info.cfg"
    lines = [line for line in info.read_text().splitlines() if not line.startswith(("Height", "Weight", "Group"))]
    info.write_text("\n".join([*lines, "group: hcm", "HEIGHT: 170,5", "Weight: N/A"]))
    (patient,) = find_cohort(broken.parents[1]).patients
    assert (patient.group, patient.height, patient.weight) == ("HCM", 170.5, None)
    assert patient.notes == ("patient001: Info.cfg has 'Weight: N/A', which is no number; left empty",)


@pytest.mark.parametrize("change", [lambda mask: mask * (3 / 255) * 85.00001, lambda mask: mask + 4e-4 * (mask > 0)])
def test_masks_that_are_off_by_rounding_are_read(broken, change):
    before = np.asarray(nibabel.load(mask_of(broken)).dataobj)
    save(change(before).astype(np.float32), mask_of(broken))
    np.testing.assert_array_equal(read_all(broken)[0][0].mask, before)


def test_a_mask_in_another_frame_is_refused(broken):
    path = mask_of(broken)
    for change in ("zooms", "affine"):
        image = nibabel.load(path)
        header, affine = image.header.copy(), image.affine.copy()
        if change == "zooms":
            header.set_zooms([2 * size for size in header.get_zooms()])
        else:
            affine[0, 3] = 30
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine, header), path)
        with pytest.raises(InputError, match="_gt.nii.gz lies in another frame than its image"):
            read_all(broken)
        nibabel.save(image, path)
        header.set_zooms(image.header.get_zooms())


def test_cine_yields_the_frames_between(tmp_path, broken):
    stored = np.asarray(nibabel.load(images(broken)[0]).dataobj)
    save(np.stack([stored + i for i in range(4)], axis=-1), broken / f"{broken.name}_4d.nii.gz")
    info = broken / "Info.cfg"
    lines = [line for line in info.read_text().splitlines() if not line.startswith(("ED", "ES"))]
    info.write_text("\n".join(["ED: 1", "ES: 3", *lines]))
    es = images(broken)[1]
    for suffix in ("", "_gt"):
        es.with_name(es.name.replace(".nii.gz", f"{suffix}.nii.gz")).rename(
            broken / f"{broken.name}_frame03{suffix}.nii.gz"
        )
    (patient,) = find_cohort(tmp_path).patients
    volumes = list(read_volumes(patient, all_frames=True))
    assert [(volume.frame, volume.phase) for volume in volumes] == [(1, "ED"), (3, "ES"), (2, None), (4, None)]
    assert volumes[2].mask is None
    np.testing.assert_array_equal(volumes[3].image, stored + 3)


def test_plain_nifti_is_read_like_compressed(broken):
    (before,) = read_all(broken)
    for path in broken.glob("*.nii.gz"):
        nibabel.save(nibabel.load(path), path.with_suffix(""))
        path.unlink()
    (after,) = read_all(broken)
    np.testing.assert_array_equal(before[0].image, after[0].image)


def edit_info(folder, old, new):
    path = folder / "Info.cfg"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def es_frame(folder):
    return next(line for line in (folder / "Info.cfg").read_text().splitlines() if line.startswith("ES")).split()[1]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def reshape(path):
    save(np.ones((3, 3, 3), np.uint8), path)


def mask_of(folder, index=0):
    path = images(folder)[index]
    return path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz"))


def with_nan(path):
    array = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
    array[0, 0, 0] = np.nan
    save(array, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: truncate(images(f)[0]), r"Cannot read .*frame01.nii.gz .*it is damaged or cut short"),
        (lambda f: images(f)[0].write_bytes(b"not a NIfTI"), r"frame01.nii.gz cannot be read as NIfTI"),
        (
            lambda f: mask_of(f).unlink(),
            r"Info.cfg says ED: 1, but its mask patient\d+_frame01_gt.nii.gz is not there",
        ),
        (lambda f: reshape(mask_of(f)), r"_gt.nii.gz has shape \(3, 3, 3\) and its image"),
        (lambda f: save(np.zeros_like(np.asarray(nibabel.load(mask_of(f)).dataobj)), mask_of(f)), "marks no voxel"),
        (lambda f: save(np.full(nibabel.load(mask_of(f)).shape, 7, np.uint8), mask_of(f)), "other than 0, 1, 2 and 3"),
        (
            lambda f: save(np.ones(nibabel.load(images(f)[0]).shape, np.uint8), images(f)[0]),
            "frame01.nii.gz is constant",
        ),
        (lambda f: with_nan(images(f)[0]), r"frame01.nii.gz holds values that are not finite"),
        (lambda f: save(np.ones((4, 4), np.uint8), images(f)[0]), r"has shape \(4, 4\); 3 dimensions"),
        (lambda f: (f / "Info.cfg").unlink(), r"Info.cfg is missing"),
        (lambda f: edit_info(f, "Group", "Gruppe"), r"Info.cfg has no line 'Group:'"),
        (lambda f: edit_info(f, "ED:", "EE:"), r"Info.cfg has no line 'ED:'"),
        (lambda f: edit_info(f, "Group: HCM", "Group: ABC"), r"the group 'ABC', which is not one of DCM, HCM"),
        (lambda f: edit_info(f, "ED: 1", "ED: one"), r"'ED: one', which is not a whole number"),
        (lambda f: edit_info(f, "ED: 1", "ED: 1.5"), "'ED: 1.5', which is not a whole number"),
        (lambda f: (f / "Info.cfg").write_bytes(bytes(2**20)), r"Info.cfg is larger than 64 KiB"),
        (lambda f: (f / "Info.cfg").write_bytes(b"Group: \xe9\nED: 1\nES: 2"), "which is not one of DCM, HCM"),
        (lambda f: images(f)[0].write_bytes(gzip.compress(b"x" * 400)), "frame01.nii.gz cannot be read as NIfTI"),
        (lambda f: images(f)[0].write_bytes(gzip.compress(b"x" * 40)), "frame01.nii.gz cannot be read as NIfTI"),
        (lambda f: edit_info(f, "ED: 1", f"ED: {es_frame(f)}"), r"Info.cfg gives frame \d+ for both ED and ES"),
        (lambda f: edit_info(f, "ED: 1", "ED: 99"), r"says ED: 99, but its image patient\d+_frame99.nii.gz is not"),
    ],
)
def test_damaged_files_are_named_in_one_sentence(broken, damage, message):
    damage(broken)
    with pytest.raises(InputError, match=message) as caught:
        read_all(broken)
    assert "\n" not in str(caught.value)


def test_a_path_may_be_written_in_any_way(cohort, monkeypatch):
    monkeypatch.chdir(cohort.parent)
    for source in ("./acdc", "acdc/", "acdc/../acdc/./training"):
        assert next(read_volumes(find_cohort(source).patients[0])).image.any()


def test_a_damaged_member_of_a_zip_is_named(cohort, tmp_path):
    with zipfile.ZipFile(tmp_path / "acdc.zip", "w") as archive:
        for path in cohort.rglob("*"):
            archive.write(path, path.relative_to(cohort))
        member = archive.getinfo(str(images(sorted(cohort.rglob("patient*"))[0])[0].relative_to(cohort)))
    data = bytearray((tmp_path / "acdc.zip").read_bytes())
    data[member.header_offset + 200] ^= 255
    (tmp_path / "acdc.zip").write_bytes(data)
    with pytest.raises(InputError, match="frame01.nii.gz .*it is damaged or cut short"):
        [list(read_volumes(patient)) for patient in find_cohort(tmp_path / "acdc.zip").patients]


def test_what_is_not_acdc_is_refused(tmp_path, cohort):
    with pytest.raises(InputError, match="does not exist"):
        find_cohort(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no ACDC patients"):
        find_cohort(tmp_path)
    archive = tmp_path / "acdc.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(next(cohort.rglob("Info.cfg")), "a/Info.cfg")
    with pytest.raises(InputError, match="holds no ACDC patients"):
        find_cohort(archive)
    truncate(archive)
    with pytest.raises(InputError, match="neither a folder nor a complete .zip"):
        find_cohort(archive)
    for copy in ("one", "two"):
        shutil.copytree(cohort, tmp_path / "twice" / copy)
    with pytest.raises(InputError, match="twice"):
        find_cohort(tmp_path / "twice")


@pytest.mark.skipif(not ACDC.is_dir(), reason="the real ACDC is not here; name it in HCM_ACDC")
def test_real_acdc_is_read():
    patients = find_cohort(ACDC).patients
    assert len(patients) >= 100
    assert {patient.group for patient in patients} == set(GROUPS)
    volumes = [next(read_volumes(patient)) for patient in patients[::25]]
    assert all(0.7 < volume.spacing[0] < 2 for volume in volumes)
