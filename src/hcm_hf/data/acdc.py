"""Read patients, volumes, masks and spacing in the ACDC layout, from a folder or a `.zip`.

Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the
Problem Solved?", IEEE TMI 37(11), 2018, https://doi.org/10.1109/TMI.2018.2837502.

    [training|testing]/patientXXX/Info.cfg                      Group, ED, ES, Height (cm), Weight (kg), NbFrame
    [training|testing]/patientXXX/patientXXX_frameNN.nii.gz     ED and ES volumes; NN counts from 1
    [training|testing]/patientXXX/patientXXX_frameNN_gt.nii.gz  their masks
    [training|testing]/patientXXX/patientXXX_4d.nii.gz          the whole cine, optional
"""

import re
import zipfile
from pathlib import Path

from hcm_hf.data.cohort import FREE_SPLIT, PHASES, Cohort, Patient, Scan, decode, half_of, read_number
from hcm_hf.data.nifti import AnyPath, find_nifti
from hcm_hf.data.volumes import open_source
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


COHORT = "acdc"  # its name in a dataset
GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")

_PATIENT = re.compile(r"patient\d+")
_MOST_INFO_BYTES = 2**16
_SEARCH_DEPTH = 4  # an official archive is ACDC/database/training/patientXXX


def find_cohort(source: str | Path) -> Cohort:
    """Find and check the patients in a folder or a `.zip` in the ACDC layout, without reading voxels.

    Patients in a folder `testing` or `test` are held out if there are others. Patients in neither of the official
    folders are then left out.

    Raises:
        InputError: if the source is missing or not ACDC, an `Info.cfg` is incomplete, or a file is missing.
    """
    source = str(Path(source))
    folders, left_out = _search(open_source(source), source)
    if not folders:
        raise InputError(f"{source} holds no ACDC patients: it should contain training/patient001/Info.cfg and so on.")
    folders.sort(key=lambda folder: folder.name)
    for before, after in zip(folders, folders[1:], strict=False):
        if before.name == after.name:
            raise InputError(f"{source} holds {after.name} twice ({before} and {after}); name the folder of one copy.")
    halves = {folder: half_of(_inside(folder, source)) for folder in folders}
    found = set(halves.values())
    if "testing" not in found or found == {"testing"}:
        rule = f"{FREE_SPLIT}, as no folder testing/ or test/ beside others holds patients out"
        return Cohort([_read_info(folder, "", source) for folder in folders], rule, left_out, GROUPS, "ACDC")
    others = "" if found & {"training", "validation"} else "training"  # the half of patients in no official folder
    halves = {folder: half or others for folder, half in halves.items()}
    left_out += [
        f"{_inside(folder, source)}: neither in training/ nor in testing/"
        for folder, half in halves.items()
        if not half
    ]
    validation = "the folder validation/" if "validation" in found else "10 % of each group of the others"
    rule = f"test is the folder testing/ or test/ of the source, validation is {validation}"
    patients = [_read_info(folder, half, source) for folder, half in halves.items() if half]
    return Cohort(patients, rule, left_out, GROUPS, "ACDC")


def _inside(folder: AnyPath, source: str) -> str:
    """Return the folder's path inside the source, with slashes; "" for the source itself."""
    inside = folder.at if isinstance(folder, zipfile.Path) else folder.relative_to(source).as_posix()
    return "" if inside == "." else inside.strip("/")


def _search(folder: AnyPath, source: str, depth: int = 0) -> tuple[list[AnyPath], list[str]]:
    """Return the patient folders at or below `folder`, and a sentence for each folder without any."""
    here = f"folder {_inside(folder, source)}"
    if _PATIENT.fullmatch(folder.name):
        return [folder], []
    if folder.name.startswith((".", "__")) and depth:
        return [], [f"{here}: its name begins as those of system folders do"]
    if depth > _SEARCH_DEPTH:
        return [], [f"{here}: more than {_SEARCH_DEPTH} folders deep"]
    found, left_out = [], []
    try:
        children = sorted((child for child in folder.iterdir() if child.is_dir()), key=lambda child: child.name)
    except OSError as error:
        return [], [f"{here}: it cannot be read ({error.strerror})"]
    for child in children:
        patients, passed_over = _search(child, source, depth + 1)
        found += patients
        left_out += passed_over
    if found or not depth:
        return found, left_out
    unread = [sentence for sentence in left_out if "cannot be read" in sentence]
    return [], unread or [f"{here}: it is not called patient001 or the like, and holds no folder that is"]


def _read_info(folder: AnyPath, half: str, source: str) -> Patient:
    path = folder.joinpath("Info.cfg")
    with explained(path):
        if not path.exists():
            raise InputError(f"{path} is missing; copy it from the original ACDC.")
        with path.open("rb") as stream:
            data = stream.read(_MOST_INFO_BYTES + 1)
    if len(data) > _MOST_INFO_BYTES:
        raise InputError(f"{path} is larger than {_MOST_INFO_BYTES // 2**10} KiB; it is no Info.cfg of ACDC.")
    pairs = (line.split(":", 1) for line in decode(data).splitlines() if ":" in line)
    info = {key.strip().lower(): value.strip() for key, value in pairs}
    for key in ("Group", *PHASES):
        if key.lower() not in info:
            raise InputError(f"{path} has no line '{key}:'; add it as in the original ACDC file.")
    group = info["group"].upper()
    if group not in GROUPS:
        raise InputError(f"{path} has the group '{info['group']}', which is not one of {', '.join(GROUPS)}.")
    frames = {}
    for phase in PHASES:
        frame = info[phase.lower()]
        try:
            frames[phase] = int(frame)
        except ValueError as error:
            raise InputError(f"{path} has '{phase}: {frame}', which is not a whole number.") from error
    if frames["ED"] == frames["ES"]:
        raise InputError(f"{path} gives frame {frames['ED']} for both ED and ES; correct it.")
    scans = []
    for phase, number in frames.items():
        files = []
        for suffix, what in (("", "image"), ("_gt", "mask")):
            with explained(folder):
                file = find_nifti(folder, f"{folder.name}_frame{number:02d}{suffix}")
                there = file.exists()
            if not there:
                raise InputError(f"{path} says {phase}: {number}, but its {what} {file.name} is not there.")
            files.append(_inside(file, source))
        scans.append(Scan(files[0], phase, number, files[1]))
    cine = find_nifti(folder, f"{folder.name}_4d")
    if cine.exists():
        scans.append(Scan(_inside(cine, source), None, None))
    sizes = {key: read_number(info.get(key, "")) for key in ("height", "weight")}
    notes = [
        f"{folder.name}: Info.cfg has '{key.capitalize()}: {info[key]}', which is no number; left empty"
        for key, size in sizes.items()
        if size is None and info.get(key)
    ]
    height, weight = sizes.values()
    return Patient(folder.name, half, group, tuple(scans), height, weight, source, COHORT, notes=tuple(notes))
