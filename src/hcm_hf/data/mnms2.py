"""Read the layout of M&Ms-2: volumes of ED and ES with masks, and the cine.

Martin-Isla et al., "Deep Learning Segmentation of the Right Ventricle in Cardiac MRI: The M&Ms Challenge", IEEE JBHI
27(7), 2023, https://doi.org/10.1109/JBHI.2023.3267857.

    dataset_information.csv              SUBJECT_CODE, DISEASE, VENDOR, SCANNER, FIELD
    [dataset/]NNN/NNN_SA_ED.nii.gz       and NNN_SA_ES; long-axis views (LA) are not used
    [dataset/]NNN/NNN_SA_ED_gt.nii.gz    their masks
    [dataset/]NNN/NNN_SA_CINE.nii.gz     the cine, optional
"""

from pathlib import Path

from hcm_hf.data.cohort import PHASES, Cohort, Patient, Scan, half_of
from hcm_hf.data.mnms import MASK_VALUES, by_code, find_information, find_pair, patient_folders, with_halves


COHORT = "mnms2"
_NEEDED = ("subject_code", "disease")


def find_mnms2(source: str | Path) -> Cohort:
    """Find the patients of a folder of M&Ms-2, without reading voxels.

    Raises:
        InputError: if the challenge's table is missing, or two folders are of one patient.
    """
    source = Path(source)
    folders = patient_folders(source, "*_SA_E[DS].nii*")
    path, rows = find_information(source, _NEEDED)
    known = by_code(rows, lambda row: _number(row["subject_code"]), path)
    diseases = {code: row["disease"] for code, row in known.items()}
    patients, left_out = [], []
    for code, folder in folders.items():
        disease = diseases.pop(_number(code), None)
        scans = _scans(folder, source)
        missing = [phase for phase in PHASES if phase not in {scan.phase for scan in scans}]
        if not disease:
            left_out.append(f"{code}: {path.name} gives no disease for it")
        elif missing:
            left_out.append(f"{code}: {code}_SA_{missing[0]}.nii.gz is not there")
        else:
            half = half_of(folder.relative_to(source).as_posix())
            patients.append(
                Patient(code, half, disease, scans, source=str(source), cohort=COHORT, mask_values=MASK_VALUES)
            )
    left_out += [f"{code}: in {path.name}, but no folder holds its volumes" for code in sorted(diseases)]
    return with_halves(patients, left_out, "M&Ms-2")


def _scans(folder: Path, source: Path) -> tuple[Scan, ...]:
    scans = []
    for phase in (*PHASES, None):
        files = find_pair(folder, f"{folder.name}_SA_{phase or 'CINE'}", source)
        if files is not None:
            scans.append(Scan(files[0], phase, None, files[1]))
    return tuple(scans)


def _number(code: str) -> str:
    """A patient's number without leading zeros, which spreadsheets drop."""
    return code.lstrip("0") or code
