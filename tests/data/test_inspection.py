import nibabel
import numpy as np
import pytest
from hearts import write_cohort, write_table

from hcm_hf.data.cohort import read_table
from hcm_hf.data.inspection import inspect
from hcm_hf.utils.errors import InputError


def test_a_folder_is_described_and_its_table_written(cohort, tmp_path):
    said = inspect(cohort, tmp_path / "acdc.csv")
    text = str(said)
    assert text.startswith("layout: ACDC, 8 patients, 16 rows") and text.count("\npatient001 ") == 2
    assert "HCM    -     4         4   4   8      0" in text and "problem: none" in text
    again = read_table(tmp_path / "acdc.csv").patients
    assert [(one.name, one.group, one.phases, one.height) for one in again] == [
        (one.name, one.group, one.phases, one.height) for one in said.cohort.patients
    ]
    with pytest.raises(InputError, match="output .*acdc.csv exists; name a new file"):
        inspect(cohort, tmp_path / "acdc.csv")


def test_each_problem_is_said_by_name_and_stops_nothing(tmp_path):
    rows = write_cohort(tmp_path, number=2)
    for name, size in (("p1", (1, 1, 1)), ("p3", (3.5, 3.5, 10))):
        for path in tmp_path.glob(f"{name}_*"):
            image = nibabel.load(path)
            image.header.set_zooms(size)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    said = inspect(write_table(tmp_path / "t.csv", rows))
    (problem,) = said.problems
    assert problem.startswith("p1: ") and "gives the voxel size 1 x 1 x 1 mm" in problem
    assert any(note.startswith("p3: its pixels of 3.5 to 3.5 mm are not those of") for note in said.notes)
    for row in rows:
        row["group"] = "old scar" if row["patient"] == "p4" else "HCM"
    problems = inspect(write_table(tmp_path / "lone.csv", rows)).problems
    assert any("group 'old scar' is no single word" in problem for problem in problems)
    assert any("Group old scar has one patient, p4" in problem for problem in problems)


def test_a_folder_of_nothing_known_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is in no layout that is known \(ACDC, M&Ms, M&Ms-2\); write a table"):
        inspect(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist; name a cohort's table or folder"):
        inspect(tmp_path / "nowhere")
