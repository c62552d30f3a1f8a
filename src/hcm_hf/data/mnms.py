"""Read the layout of M&Ms: cines with masks of ED and ES, six centres, four vendors.

Campello et al., "Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation: The M&Ms Challenge", IEEE TMI
40(12), 2021, https://doi.org/10.1109/TMI.2021.3090082.

    *information*.csv                             External code, Pathology, ED and ES (frames from 0), Height, Weight
    Training/Labeled/CODE/CODE_sa.nii.gz          the cine, 4-D; so in Training/Unlabeled, Validation and Testing
    Training/Labeled/CODE/CODE_sa_gt.nii.gz       its masks, 4-D; only ED and ES are marked
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hcm_hf.data.cohort import FREE_SPLIT, PHASES, Cohort, Patient, Scan, half_of, read_csv, read_height, read_number
from hcm_hf.data.nifti import find_nifti
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


MASK_VALUES = ((1, 3), (2, 2), (3, 1))  # 1 is the left cavity, 3 the right one
COHORT = "mnms"
_NEEDED = ("external code", "pathology", "ed", "es")


def find_mnms(source: str | Path) -> Cohort:
    """Find the patients of a folder of M&Ms, without reading voxels.

    Raises:
        InputError: if the challenge's table is missing, or two folders are of one patient.
    """
    source = Path(source)
    folders = patient_folders(source, "*_sa.nii*")
    path, rows = find_information(source, _NEEDED)
    known = by_code(rows, lambda row: row["external code"].upper(), path)
    patients, left_out = [], []
    for code, folder in folders.items():
        row = known.pop(code.upper(), None)
        if row is None:
            left_out.append(f"{code}: {path.name} has no row for it")
            continue
        found = _read_patient(folder, row, source)
        if isinstance(found, str):
            left_out.append(f"{code}: {found}")
        else:
            patients.append(found)
    left_out += [f"{code}: in {path.name}, but no folder holds {code}_sa.nii.gz" for code in sorted(known)]
    return with_halves(patients, left_out, "M&Ms")


def _read_patient(folder: Path, row: Mapping[str, str], source: Path) -> Patient | str:
    """One patient, or why he is left out."""
    code = folder.name
    frames = {}
    for phase in PHASES:
        try:
            number = float(row[phase.lower()])
        except ValueError:
            return f"its {phase} is '{row[phase.lower()]}', which is no frame"
        if number < 0 or not number.is_integer():  # which infinity and "nan" are not either
            return f"its {phase} is '{row[phase.lower()]}', which is no frame"
        frames[phase] = int(number) + 1
    if frames["ED"] == frames["ES"]:
        return f"its ED and ES are both frame {frames['ED'] - 1}"
    if not row["pathology"]:
        return "its pathology is not given"
    if (files := find_pair(folder, f"{code}_sa", source)) is None:
        return f"{code}_sa.nii.gz is not there"
    scans = tuple(Scan(files[0], phase, frame, files[1]) for phase, frame in frames.items())
    height, weight = read_height(row.get("height", "")), read_number(row.get("weight", ""))
    half = half_of(folder.relative_to(source).as_posix())
    return Patient(code, half, row["pathology"], scans, height, weight, str(source), COHORT, MASK_VALUES)


def by_code(
    rows: Sequence[Mapping[str, str]], code_of: Callable[[Mapping[str, str]], str], path: Path
) -> dict[str, Mapping[str, str]]:
    """The rows of a challenge's table by patient.

    Raises:
        InputError: if two rows that differ are of one patient.
    """
    known: dict[str, Mapping[str, str]] = {}
    for row in rows:
        if known.setdefault(code_of(row), row) != row:
            raise InputError(f"{path} has two rows for {code_of(row)} that differ; remove one.")
    return known


def find_pair(folder: Path, stem: str, source: Path) -> tuple[str, str | None] | None:
    """A volume and its mask, if it has one, as paths inside the source; None without the volume."""
    paths = (find_nifti(folder, name) for name in (stem, f"{stem}_gt"))
    image, mask = (
        path.relative_to(source).as_posix() if isinstance(path, Path) and path.exists() else None for path in paths
    )
    return None if image is None else (image, mask)


def patient_folders(source: Path, pattern: str) -> dict[str, Path]:
    """The folders that hold a file of a pattern, by their names, sorted.

    Raises:
        InputError: if two have one name.
    """
    folders: dict[str, Path] = {}
    with explained(source):
        for path in _visible(source, pattern):
            known = folders.setdefault(path.parent.name, path.parent)
            if known != path.parent:
                raise InputError(
                    f"{source} holds {path.parent.name} twice ({known} and {path.parent}); name the folder of one "
                    "copy."
                )
    return dict(sorted(folders.items()))


def _visible(source: Path, pattern: str) -> list[Path]:
    """The files of a pattern, sorted, without what an archive program or a system leaves (`._name`, `__MACOSX`)."""
    found = sorted(source.rglob(pattern))
    return [path for path in found if not any(part.startswith((".", "__")) for part in path.relative_to(source).parts)]


def find_information(source: Path, needed: tuple[str, ...]) -> tuple[Path, list[dict[str, str]]]:
    """The table of a challenge inside its folder or beside it, and its rows by column in lower case.

    Raises:
        InputError: if none is there, or a column is missing.
    """
    tables = _visible(source, "*nformation*.csv") or sorted(source.absolute().parent.glob("[!.]*nformation*.csv"))
    if not tables:
        raise InputError(f"{source} lacks the challenge's table *information*.csv; copy it there.")
    rows = [{name.lower(): value for name, value in row.items()} for _, row in read_csv(tables[0])]
    if missing := [name for name in needed if not rows or name not in rows[0]]:
        raise InputError(f"{tables[0]} has no column '{missing[0]}'; copy the challenge's own table.")
    return tables[0], rows


def with_halves(patients: list[Patient], left_out: list[str], layout: str) -> Cohort:
    """A cohort whose patients may lie in folders of halves; testing/ without others beside it holds nobody out."""
    halves = {patient.half for patient in patients}
    if "testing" not in halves or halves == {"testing"}:
        rule = f"{FREE_SPLIT}, as no folder testing/ or test/ beside others holds patients out"
        return Cohort([replace(patient, half="") for patient in patients], rule, left_out, layout=layout)
    validation = "the folder validation/" if "validation" in halves else "10 % of each group of the others"
    rule = f"test is the folder testing/ or test/ of the source, validation is {validation}"
    return Cohort(patients, rule, left_out, layout=layout)
