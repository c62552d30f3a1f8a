from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from hcm_hf.data import phantom
from hcm_hf.data.acdc import GROUPS, find_cohort
from hcm_hf.data.phantom import layouts
from hcm_hf.data.volumes import read_volumes
from hcm_hf.utils.errors import InputError


PER_GROUP = 3
RV, MYOCARDIUM, LV = 1, 2, 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    phantom.write_cohort(folder, PER_GROUP, num_proc=1)
    return folder


@pytest.fixture(scope="module")
def volumes(cohort) -> dict[str, list[dict]]:
    """{group: [{"ED": Volume, "ES": Volume}]}, read as any ACDC."""
    found = {group: [] for group in GROUPS}
    for patient in find_cohort(cohort).patients:
        found[patient.group].append({volume.phase: volume for volume in read_volumes(patient)})
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def wall_thickness(mask: np.ndarray, spacing: float) -> np.ndarray | None:
    """Radial thickness in mm along 72 rays from the cavity's centroid, averaged over 30 degrees."""
    if (mask == LV).sum() * spacing**2 < 50 or not (mask == MYOCARDIUM).any():
        return None
    centre = np.argwhere(mask == LV).mean(axis=0)
    steps = np.arange(0, 90, 0.25)
    rays = np.arange(72) * 2 * np.pi / 72
    x, y = (
        np.rint(middle + np.outer(turn(rays), steps) / spacing).astype(int)
        for middle, turn in zip(centre, (np.cos, np.sin), strict=True)
    )
    inside = (x >= 0) & (x < mask.shape[0]) & (y >= 0) & (y < mask.shape[1])
    wall = (mask[np.where(inside, x, 0), np.where(inside, y, 0)] == MYOCARDIUM) & inside
    thickness = wall.sum(axis=1) * 0.25
    return np.mean([np.roll(thickness, shift) for shift in range(-3, 4)], axis=0)


def thickest(volume) -> float:
    """The criterion of hypertrophy: the greatest thickness over the slices of a volume."""
    slices = (wall_thickness(volume.mask[..., k], volume.spacing[0]) for k in range(volume.mask.shape[2]))
    return max(thickness.max() for thickness in slices if thickness is not None)


def millilitres(volume, label: int) -> float:
    return float((volume.mask == label).sum() * np.prod(volume.spacing) / 1000)


def ejection(patient: dict, label: int) -> float:
    return 1 - millilitres(patient["ES"], label) / millilitres(patient["ED"], label)


# ---- layout -------------------------------------------------------------------------------------------------------


def test_files_and_info_are_those_of_acdc(cohort):
    folders = sorted((cohort / "training").iterdir())
    assert [folder.name for folder in folders] == [f"patient{n:03d}" for n in range(1, PER_GROUP * len(GROUPS) + 1)]
    for number, folder in enumerate(folders):
        info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
        assert list(info) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
        assert info["Group"] == GROUPS[number // PER_GROUP]
        assert info["ED"] == "1" and 8 <= int(info["ES"]) <= 14 < int(info["NbFrame"])
        assert 140 <= float(info["Height"]) <= 200 and 30 <= float(info["Weight"]) <= 160
        frames = [f"{folder.name}_frame{int(info[phase]):02d}" for phase in ("ED", "ES")]
        names = {f"{frame}{suffix}.nii.gz" for frame in frames for suffix in ("", "_gt")}
        assert {path.name for path in folder.iterdir()} == {"Info.cfg"} | names


def test_headers_are_those_of_acdc_and_say_what_it_is(cohort):
    for path in sorted(cohort.rglob("*.nii.gz"))[:8]:
        file = nibabel.load(path)
        np.testing.assert_array_equal(file.affine, np.diag([-1, -1, 1, 1]))
        assert (int(file.header["qform_code"]), int(file.header["sform_code"])) == (0, 2)
        assert file.header["descrip"].item().decode() == phantom.DESCRIPTION
    assert str(phantom.PHANTOM_VERSION) in phantom.DESCRIPTION


def test_images_and_masks_fit(volumes):
    for patient in sum(volumes.values(), []):
        for volume in patient.values():
            assert volume.image.shape == volume.mask.shape
            assert 6 <= volume.image.shape[2] <= 18
            assert set(np.unique(volume.mask)) == {0, RV, MYOCARDIUM, LV}
            assert volume.image.min() >= 0 and 178 <= volume.image.max() <= 4031
            assert 0.7 <= volume.spacing[0] == volume.spacing[1] <= 1.95
        assert patient["ED"].image.shape == patient["ES"].image.shape


def test_patients_differ_as_scanners_do(volumes):
    images = [patient["ED"] for patient in sum(volumes.values(), [])]
    assert len({volume.image.shape for volume in images}) > 5
    assert len({volume.spacing for volume in images}) > 5
    assert len({volume.image.dtype for volume in images}) > 1
    assert len({int(volume.image.max()) for volume in images}) > 3


# ---- determinism --------------------------------------------------------------------------------------------------


def test_processes_change_nothing(tmp_path):
    for num_proc in (1, 2):
        phantom.write_cohort(tmp_path / str(num_proc), 1, groups=("HCM", "NOR"), num_proc=num_proc)
    first, second = (contents(tmp_path / name) for name in ("1", "2"))
    assert first == second and len(first) == 10


def test_a_patient_does_not_depend_on_the_rest_of_the_cohort(cohort, tmp_path):
    phantom.write_cohort(tmp_path / "few", 1, groups=("HCM",), num_proc=1)
    few, many = tmp_path / "few/training/patient001", cohort / "training" / f"patient{PER_GROUP + 1:03d}"
    for path in few.glob("*.nii.gz"):
        other = many / path.name.replace(few.name, many.name)
        np.testing.assert_array_equal(voxels(path), voxels(other))


def test_another_seed_is_another_cohort(cohort, tmp_path):
    phantom.write_cohort(tmp_path / "other", 1, seed=1, groups=("DCM",), num_proc=1)
    ours, theirs = (voxels(next(folder.rglob("patient001_frame01.nii.gz"))) for folder in (cohort, tmp_path))
    assert ours.shape != theirs.shape or not np.array_equal(ours, theirs)


def test_cine_holds_the_frames_and_a_smooth_beat(cohort, tmp_path):
    phantom.write_cohort(tmp_path / "cine", 1, groups=("HCM",), cine=True, num_proc=1)
    folder = tmp_path / "cine/training/patient001"
    cine, (patient,) = voxels(folder / "patient001_4d.nii.gz"), find_cohort(tmp_path / "cine").patients
    info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
    assert cine.shape[3] == int(info["NbFrame"])
    for phase, frame in patient.phases.items():
        still = f"patient001_frame{frame:02d}.nii.gz"
        np.testing.assert_array_equal(cine[..., frame - 1], voxels(folder / still), err_msg=phase)
        same = (
            cohort / "training" / f"patient{PER_GROUP + 1:03d}" / f"patient{PER_GROUP + 1:03d}_frame{frame:02d}.nii.gz"
        )
        np.testing.assert_array_equal(cine[..., frame - 1], voxels(same), err_msg=phase)
    sampled = phantom.sample_patient(0, "HCM", 0)
    beat = [phantom.contraction(frame, sampled) for frame in range(1, sampled.num_frames + 1)]
    assert beat[0] == 0 and np.argmax(beat) == sampled.es_frame - 1 and max(beat) == 1
    assert np.abs(np.diff(beat)).max() < 0.3 and beat[-1] < 0.2


# ---- disease ------------------------------------------------------------------------------------------------------


def test_thickness_separates_hypertrophy(volumes):
    walls = {group: [thickest(patient["ED"]) for patient in patients] for group, patients in volumes.items()}
    assert all(15 <= wall <= 26 for wall in walls["HCM"])
    assert all(7 <= wall <= 12 for wall in walls["NOR"] + walls["RV"])
    assert all(wall < 12 for wall in walls["DCM"])
    assert all(wall < 15 for wall in walls["MINF"])


def test_hypertrophy_is_asymmetric(volumes):
    for patient in volumes["HCM"]:
        volume = patient["ED"]
        walls = [wall_thickness(volume.mask[..., k], volume.spacing[0]) for k in range(volume.mask.shape[2])]
        wall = max((wall for wall in walls if wall is not None), key=np.max)
        assert wall.max() > 1.3 * np.median(wall)


def test_ejection_fractions_are_those_of_the_groups(volumes):
    left = {group: [ejection(patient, LV) for patient in patients] for group, patients in volumes.items()}
    assert max(left["DCM"]) < 0.40 and max(left["MINF"]) < 0.45
    assert all(0.50 < value < 0.70 for value in left["NOR"]) and all(0.42 < value < 0.70 for value in left["RV"])
    assert all(0.60 < value < 0.85 for value in left["HCM"])
    assert np.mean(left["DCM"]) < np.mean(left["MINF"]) < np.mean(left["NOR"]) < np.mean(left["HCM"])


def test_volumes_are_those_of_the_groups(volumes):
    def mean(group, label):
        return np.mean([millilitres(patient["ED"], label) for patient in volumes[group]])

    assert mean("DCM", LV) > 1.5 * mean("NOR", LV)
    assert mean("RV", RV) > 1.3 * mean("NOR", RV)
    assert mean("HCM", LV) < 1.2 * mean("NOR", LV)
    right = {group: np.mean([ejection(patient, RV) for patient in volumes[group]]) for group in ("RV", "NOR")}
    assert right["RV"] < 0.45 < right["NOR"]


def test_the_wall_thickens_and_keeps_its_volume(volumes):
    for patient in sum(volumes.values(), []):
        assert 0.85 < millilitres(patient["ES"], MYOCARDIUM) / millilitres(patient["ED"], MYOCARDIUM) < 1.4
    for patient in volumes["NOR"]:
        assert thickest(patient["ES"]) > 1.2 * thickest(patient["ED"])


def test_an_infarct_is_thin_and_does_not_thicken(volumes):
    for patient in volumes["MINF"]:
        thin = []
        for volume in patient.values():
            slices = [wall_thickness(volume.mask[..., k], volume.spacing[0]) for k in range(volume.mask.shape[2])]
            thin.append(min(wall.min() for wall in slices if wall is not None))
        assert thin[0] < 6 and thin[1] < 7


# ---- anatomy ------------------------------------------------------------------------------------------------------


def test_the_myocardium_is_one_closed_ring(volumes):
    for patient in sum(volumes.values(), []):
        for volume in patient.values():
            for k in range(2, volume.mask.shape[2] - 2):
                mask = volume.mask[..., k]
                assert ndimage.label(mask == LV)[1] == ndimage.label(mask == MYOCARDIUM)[1] == 1
                filled = ndimage.binary_fill_holes(mask == MYOCARDIUM)
                np.testing.assert_array_equal(filled, (mask == MYOCARDIUM) | (mask == LV))


def test_the_heart_tapers_from_base_to_apex(volumes):
    for patient in sum(volumes.values(), []):
        area = (patient["ED"].mask == LV).sum(axis=(0, 1))
        assert area[: len(area) // 2].max() == area.max() > 2 * area[area > 0][-1]


def test_the_right_ventricle_lies_where_acdc_has_it(volumes):
    """Towards the chest: at smaller x in the wide pictures, at smaller y in the tall ones."""
    for patient in sum(volumes.values(), []):
        mask = patient["ED"].mask
        side = np.argwhere(mask == RV).mean(axis=0) - np.argwhere(mask == LV).mean(axis=0)
        assert side[int(mask.shape[0] > mask.shape[1])] < -4


def test_blood_is_brighter_than_muscle_and_muscle_than_lung(volumes):
    for patient in sum(volumes.values(), []):
        image, mask = patient["ED"].image.astype(float), patient["ED"].mask
        blood, muscle = np.median(image[mask == LV]), np.median(image[mask == MYOCARDIUM])
        assert 0.2 < muscle / blood < 0.7
        assert np.median(image[mask == 0]) < muscle
        assert 0.5 < np.median(image[mask == RV]) / blood < 1.2


def test_phases_share_the_chest(volumes):
    for patient in sum(volumes.values(), []):
        chest = (patient["ED"].mask == 0) & (patient["ES"].mask == 0)
        assert np.corrcoef(*(patient[phase].image[chest].astype(float) for phase in ("ED", "ES")))[0, 1] > 0.9


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="'ABC'.*groups"):
        phantom.write_cohort(tmp_path / "cohort", groups=("HCM", "ABC"))
    with pytest.raises(InputError, match="num_patients_per_group is 0"):
        phantom.write_cohort(tmp_path / "cohort", num_patients_per_group=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="output_dir"):
        phantom.write_cohort(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    written = []

    def fail_at_the_third(*arguments):
        written.append(arguments)
        if len(written) == 3:
            raise RuntimeError("power cut")
        save(*arguments)

    save = layouts._save_as_acdc
    monkeypatch.setattr(layouts, "_save_as_acdc", fail_at_the_third)
    with pytest.raises(RuntimeError, match="power cut"):
        phantom.write_cohort(tmp_path / "cohort", 1, groups=("NOR",), num_proc=1)
    assert not list(tmp_path.iterdir())
