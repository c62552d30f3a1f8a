"""A cohort is a table with one row per volume; readers of layouts yield it, and everything after it is the same.

    patient, group, phase, image, frame, mask, half, height, weight, cohort, mask_values

Only patient, group, phase and image are needed. Paths count from the table's folder. A row without phase and frame
names a 4-D cine: it helps to locate a heart without a mask, and its frames are those between ED and ES.
"""

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained, replacing


PHASES = ("ED", "ES")
LEVELS = ("base", "mid", "apex")  # thirds of a volume's slices
STRUCTURES = ("background", "RV cavity", "myocardium", "LV cavity")  # a mask's values 0 to 3, once they are mapped
# Names of folders of patients or in a table, and the part of the official split that each stands for.
HALVES = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("testing", "test"), "testing"),
}
FREE_SPLIT = "70/10/20 of each group"
COLUMNS = (
    *("patient", "group", "phase", "image", "frame", "mask", "half", "height", "weight", "cohort", "mask_values"),
)
_NEEDED = ("patient", "group", "phase", "image")
_LEAST_CM = 3.0  # heights below are in metres
_MOST_BYTES = 2**26  # of a table; a million rows have less


@dataclass(frozen=True)
class Scan:
    """One row: where a volume lies; nothing has been read."""

    image: str  # file inside the patient's source; 3-D, or 4-D with `frame`
    phase: str | None  # one of `PHASES`, or None for a frame between or a whole cine
    frame: int | None  # from 1; of a 3-D volume it is only noted
    mask: str | None = None  # file inside the source; 3-D, or 4-D of which it is the same frame


@dataclass(frozen=True)
class Patient:
    """One patient's rows; no voxel has been read."""

    name: str
    half: str  # "training", "validation" or "testing" if the cohort is split, else ""
    group: str
    scans: tuple[Scan, ...]  # ED and ES first
    height: float | None = None  # cm
    weight: float | None = None  # kg
    source: str = ""  # the folder or `.zip` that the files lie in
    cohort: str = ""  # its name
    mask_values: tuple[tuple[int, int], ...] = ()  # of a mask's value, and the index in `STRUCTURES`; () for the same
    notes: tuple[str, ...] = ()  # a sentence for each oddity

    @property
    def phases(self) -> dict[str, int | None]:
        """Frame number of each phase, {"ED": 1, "ES": 12}."""
        return {scan.phase: scan.frame for scan in self.scans if scan.phase is not None}


@dataclass(frozen=True)
class Cohort:
    """Patients, and what is not used."""

    patients: list[Patient]  # sorted by name
    split_rule: str  # how they are split into training, validation and test, and why
    left_out: list[str]  # a sentence for each folder or patient that was left out
    groups: tuple[str, ...] = ()  # names of all groups, sorted; by default those of the patients
    layout: str = "table"  # what the files lie in, for people

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of all groups, sorted."""
        return self.groups or tuple(sorted({patient.group for patient in self.patients}))


def read_table(path: str | Path, mask_values: Mapping[int, int] | None = None) -> Cohort:
    """Read a cohort from a CSV, as a spreadsheet or `write_table` saves it (comma, semicolon or tab; UTF-8 or UTF-16).

    Args:
        path: the table.
        mask_values: the index in `STRUCTURES` of each value of the masks, for rows that name none themselves.

    Raises:
        InputError: names the file, the line and what to do.
    """
    path = Path(path)
    lines = list(_lines(path))
    if not lines:
        raise InputError(f"{path} has no rows; write one for each volume.")
    default = _checked_values(mask_values, "mask_values") if mask_values else ()
    found: dict[tuple[str, str], Patient] = {}
    volumes: dict[tuple, int] = {}
    for number, values in lines:
        patient = _read_row(values, path, number, default)
        scan, key = patient.scans[0], (patient.cohort, patient.name)
        named = (*key, "volume", scan.image, scan.frame), (*key, "phase", scan.phase)
        for volume in named if scan.phase else named[:1]:
            if (before := volumes.setdefault(volume, number)) != number:
                what = f"phase {scan.phase}" if volume[2] == "phase" else f"{scan.image}"
                raise InputError(
                    f"{path} has two rows for {what} of {patient.name}, lines {before} and {number}; remove one."
                )
        if key in found:
            _check_same(found[key], patient, path, number)
            patient = replace(found[key], scans=found[key].scans + patient.scans)
        found[key] = patient
    patients = [_ordered(found[key], path) for key in sorted(found)]
    return Cohort(patients, split_rule_of(patients), [])


def split_rule_of(patients: Sequence[Patient]) -> str:
    """How patients are split, in words, where the column `half` says it or does not."""
    halves = {patient.half for patient in patients}
    if not halves & {"testing", "validation"}:
        return f"{FREE_SPLIT}, as the column half holds nobody out"
    parts = [f"{split} is {half} in the column half" for split, half in _HELD_OUT if half in halves]
    return ", ".join(parts) + "; the others are drawn from each group"


_HELD_OUT = (("test", "testing"), ("validation", "validation"))


def write_table(cohort: Cohort, path: str | Path) -> None:
    """Write a cohort as a table for `read_table`; paths count from its folder.

    Raises:
        InputError: if the file exists, or the cohort lies in a `.zip`.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"output {path} exists; name a new file.")
    rows = []
    for patient in cohort.patients:
        if not Path(patient.source).is_dir():
            raise InputError(f"output {path} cannot name files inside {patient.source}; unpack it first.")
        mapping = " ".join(f"{value}:{index}" for value, index in patient.mask_values)
        for scan in patient.scans:
            files = [one and _from(path, Path(patient.source, one)) for one in (scan.image, scan.mask)]
            row = (patient.name, patient.group, scan.phase, files[0], scan.frame, files[1], patient.half)
            rows.append((*row, patient.height, patient.weight, patient.cohort, mapping))
    kept = [
        place for place, name in enumerate(COLUMNS) if name != "mask_values" or any(values[place] for values in rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([COLUMNS[place] for place in kept])
    for values in rows:
        writer.writerow(["" if values[place] is None else values[place] for place in kept])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def join_cohorts(cohorts: Sequence[Cohort]) -> Cohort:
    """Put cohorts together; each is split by itself.

    Patients of more than one cohort are called COHORT:NAME, so that equal names of two cohorts stay apart.

    Raises:
        InputError: if two tables hold cohorts of one name.
    """
    names = [sorted({patient.cohort for patient in cohort.patients}) for cohort in cohorts]
    twice = [name for name, count in Counter(sum(names, [])).items() if count > 1]
    if twice:
        raise InputError(f"`cohort` has two that are called '{twice[0]}'; name each in its table's column cohort.")
    patients = sorted((one for cohort in cohorts for one in cohort.patients), key=lambda one: (one.cohort, one.name))
    if len(sum(names, [])) > 1:
        patients = [replace(patient, name=f"{patient.cohort}:{patient.name}") for patient in patients]
    rules = [cohort.split_rule for cohort in cohorts]
    if len(cohorts) > 1:
        rules = [f"{', '.join(name)}: {rule}" for name, rule in zip(names, rules, strict=True)]
    groups = sorted({group for cohort in cohorts for group in cohort.group_names})
    left_out = [sentence for cohort in cohorts for sentence in cohort.left_out]
    return Cohort(patients, "; ".join(rules), left_out, tuple(groups), ", ".join(one.layout for one in cohorts))


def half_of(folder: str) -> str:
    """The half that the nearest folder above a patient's own is called after, else ""; `folder` is with slashes."""
    parts = folder.lower().split("/")[:-1]
    return next((HALVES[part] for part in reversed(parts) if part in HALVES), "")


def read_number(text: str) -> float | None:
    """A height or weight, with a point or a comma; None unless it is a positive number."""
    try:
        size = float(text.replace(",", "."))
    except ValueError:
        return None
    return size if 0 < size < float("inf") else None


def read_height(text: str) -> float | None:
    """A height in cm, also where it is written in metres; None unless it is a positive number."""
    height = read_number(text)
    return 100 * height if height is not None and height < _LEAST_CM else height


def decode(data: bytes) -> str:
    """Text as editors and spreadsheets save it: UTF-8 with or without a mark, UTF-16 with one, or Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line and its values by column; the separator is that of the first line.

    Raises:
        InputError: if the file is missing or huge, a column comes twice, or a line has more values than columns.
    """
    with explained(path):
        if not path.is_file():
            raise InputError(f"{path} does not exist; name a table (.csv).")
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB; it is no table of volumes.")
        text = decode(path.read_bytes())
    head = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        columns = [name.strip() for name in next(reader, [])]
        if twice := [name for name, count in Counter(name.lower() for name in columns if name).items() if count > 1]:
            raise InputError(f"{path} has two columns '{twice[0]}'; remove one.")
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if any(value.strip() for value in values[len(columns) :]):
                raise InputError(f"{path} has more values than columns in line {reader.line_num}; correct it.")
            padded = [value.strip() for value in values] + [""] * len(columns)
            yield reader.line_num, dict(zip(columns, padded, strict=False))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table ({error}); save it as CSV.") from error


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a cohort's table, their columns checked."""
    for number, values in read_csv(path):
        lowered = {name.lower(): value for name, value in values.items() if name or value}
        for name in lowered:
            if name not in COLUMNS:
                raise InputError(f"{path} has an unknown column '{name}'; a cohort has {', '.join(COLUMNS)}.")
        for name in _NEEDED:
            if name not in lowered:
                raise InputError(f"{path} has no column '{name}'; a cohort needs {', '.join(_NEEDED)}.")
        yield number, dict.fromkeys(COLUMNS, "") | lowered


def _read_row(values: Mapping[str, str], path: Path, number: int, default: tuple[tuple[int, int], ...]) -> Patient:
    """One line as a patient with one scan."""
    place = f"{path}, line {number},"
    for name in ("patient", "group", "image"):
        if not values[name]:
            raise InputError(f"{place} has nothing in column '{name}'; fill it in.")
    phase = values["phase"].upper() or None
    if phase not in (*PHASES, None):
        raise InputError(f"{place} has the phase '{values['phase']}'; write ED, ES or nothing for a frame between.")
    frame = None
    if values["frame"]:
        try:
            whole = float(values["frame"].replace(",", "."))
            frame = int(whole)
        except (ValueError, OverflowError):
            whole, frame = 0.5, 0
        if frame < 1 or frame != whole:
            raise InputError(f"{place} has the frame '{values['frame']}'; frames count from 1.")
    if values["half"].lower() not in ("", *HALVES):
        raise InputError(f"{place} has '{values['half']}' in column 'half'; write training, validation or testing.")
    values = {**values, **{name: _with_slashes(path.parent, values[name]) for name in ("image", "mask")}}
    for name in ("image", "mask"):
        file = Path(path.parent, values[name])
        with explained(file):
            if values[name] and not file.is_file():
                raise InputError(f"{place} names the {name} {values[name]}, which is not there; correct the path.")
    image, mask = (values[name] and os.path.normpath(values[name]) for name in ("image", "mask"))
    if mask == image:
        raise InputError(f"{place} names {values['mask']} as image and as mask; correct one.")
    sizes = {"height": read_height(values["height"]), "weight": read_number(values["weight"])}
    notes = tuple(
        f"{values['patient']}: {path.name} has '{values[name]}' as {name}, which is no number; left empty"
        for name, size in sizes.items()
        if size is None and values[name]
    )
    return Patient(
        name=values["patient"],
        half=HALVES.get(values["half"].lower(), ""),
        group=values["group"],
        scans=(Scan(image, phase, frame, mask or None),),
        **sizes,
        source=str(path.parent),
        cohort=values["cohort"] or path.stem,
        mask_values=parse_mask_values(values["mask_values"].split(), place) if values["mask_values"] else default,
        notes=notes,
    )


def parse_mask_values(texts: Sequence[str], what: str = "mask_values") -> tuple[tuple[int, int], ...]:
    """Read "85:1" and so on: a mask's value, and the structure that it stands for.

    Raises:
        InputError: begins with `what`.
    """
    values = {}
    for text in texts:
        value, colon, index = text.partition(":")
        if not colon or not value.isdigit() or not index.isdigit():
            raise InputError(f"{what} has '{text}' where VALUE:STRUCTURE belongs, such as 85:1.")
        if int(value) in values:
            raise InputError(f"{what} names the value {value} twice; leave one.")
        values[int(value)] = int(index)
    return _checked_values(values, what)


def _checked_values(values: Mapping[int, int], what: str) -> tuple[tuple[int, int], ...]:
    for value, index in values.items():
        if not 0 <= index < len(STRUCTURES):
            known = ", ".join(f"{place} {name}" for place, name in enumerate(STRUCTURES))
            raise InputError(f"{what} maps {value} to {index}, which is none of {known}.")
    return tuple(sorted(values.items()))


def _check_same(before: Patient, row: Patient, path: Path, number: int) -> None:
    for name in ("group", "half", "height", "weight", "mask_values"):
        one, other = vars(before)[name], vars(row)[name]
        if one != other:
            raise InputError(
                f"{path}, line {number}, gives {row.name} the {name} '{other}', and another line '{one}'; a patient "
                "has one."
            )


def _ordered(patient: Patient, path: Path) -> Patient:
    """The patient with the volumes of known phase first, ED before ES."""
    if not patient.phases:
        raise InputError(
            f"{path} names no volume of {patient.name} with the phase ED or ES; fill in the column phase."
        )
    order = {phase: place for place, phase in enumerate((*PHASES, None))}
    return replace(patient, scans=tuple(sorted(patient.scans, key=lambda scan: order[scan.phase])))


def _from(table: Path, file: Path) -> str:
    """The path of a file as a table beside it names it; a whole one where there is no way, as between drives."""
    try:
        return Path(os.path.relpath(file.absolute(), table.absolute().parent)).as_posix()
    except ValueError:
        return file.absolute().as_posix()


def _with_slashes(folder: Path, name: str) -> str:
    """A path as this system writes it, where the table comes from Windows."""
    return name if "\\" not in name or os.path.exists(folder / name) else PureWindowsPath(name).as_posix()
