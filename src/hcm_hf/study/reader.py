"""A reader's test: can a doctor tell generated slices from real ones?

A sheet shows as many held-out slices as generated ones, in random order, on numbered tiles. Both kinds come from 8-bit
grey values and are enlarged in the same way, and no file that the reader gets says which is which: the key lies
outside the reader's folder. Slices of one patient are alike, which a reader may see of real ones, so a place in the
heart is shown in both phases only where there are too few others.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.stats import binomtest

from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.comparison import Reference
from hcm_hf.evaluation.images import fingerprint, read_images, read_pairs
from hcm_hf.evaluation.parts.masks import asked_groups
from hcm_hf.evaluation.scoring import refuse_seen_patients
from hcm_hf.evaluation.tables import markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained, replacing, require_empty, write_text
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.utils.pictures import save_png
from hcm_hf.version import __version__


SHEET_FOLDER, FORM_FILE, KEY_FILE, ABOUT_FILE, RESULT = "sheet", "form.csv", "key.csv", "about.json", "reading"
REAL, GENERATED = "real", "generated"
CONFIDENCES = range(1, 6)  # 1 is a guess, 5 is certain
COLUMNS, ROWS, GAP, HEADLINE = 4, 5, 12, 24  # tiles across and down a page; pixels between them, and for a number
_TILE = 256  # pixels a side that an enlarged slice should have
_FORM = ("sheet", "number", "answer", "confidence")
_KEY = ("sheet", "number", "kind", "source")
INSTRUCTIONS = f"""Each numbered tile is a real slice of a heart or a generated one, about half of each.

Write "{REAL}" or "{GENERATED}" into the column answer of {FORM_FILE}, and if you like how sure you are into the column
confidence, from {CONFIDENCES[0]} (a guess) to {CONFIDENCES[-1]} (certain). Leave an answer empty where you cannot say.
Leave the other columns as they are.
"""


@dataclass(frozen=True)
class Share:
    """Right answers.

    Attributes:
        right: their number.
        answered: of so many.
        value: the share of them; None where nothing was answered, as are the next two.
        low: lower end of its 95 % interval (Wilson, of independent answers).
        high: upper end.
    """

    right: int
    answered: int
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, right: np.ndarray) -> "Share":
        """Count answers, bool (N,)."""
        if not len(right):
            return cls(0, 0)
        found = binomtest(int(right.sum()), len(right))
        interval = found.proportion_ci(method="wilson")
        return cls(found.k, found.n, found.statistic, float(interval.low), float(interval.high))

    def cell(self) -> str:
        """For a table."""
        if self.value is None:
            return "none"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], {self.right} of {self.answered}"


@dataclass(frozen=True)
class Reading:
    """What a reader's answers are worth.

    Attributes:
        reader: the name of the form's file.
        accuracy: of all answers; 0.5 is chance.
        sensitivity: of generated slices, those called generated.
        specificity: of real slices, those called real.
        p_value: two-sided, of the accuracy against chance; None where nothing was answered.
        by_confidence: the accuracy by the reader's confidence, where it was given.
        empty: tiles without an answer.
    """

    reader: str
    accuracy: Share
    sensitivity: Share
    specificity: Share
    p_value: float | None
    by_confidence: dict[str, Share]
    empty: int


def reader_sheet(
    output_dir: str | Path,
    images: str | Path | None = None,
    dataset: str | Path | None = None,
    split: str = "test",
    groups: Sequence[str] | None = None,
    target_group: str = TARGET_GROUP,
    num_each: int = 40,
    seed: int = 0,
    form: str | Path | None = None,
    key: str | Path | None = None,
) -> Path:
    """Write a blinded sheet of real and generated slices for a reader or, with form, score the answers.

    The folder gets `sheet/` for the reader (numbered tiles on pages, `form.csv`, `instructions.txt`) and, not for the
    reader, `key.csv` and `about.json`. Scoring adds `reading.json` and `reading.md`.

    Args:
        output_dir: a new folder for the sheet; with form, the folder for the result.
        images: folder of generated images.
        dataset: folder of the prepared dataset that their model was trained on; by default the synthetic cohort.
        split: the held-out split that the real slices are of.
        groups: groups of the real slices; by default the target group.
        target_group: the disease of interest.
        num_each: number of real slices, and of generated ones; the real ones are spread evenly over the patients.
        seed: seed of the choice and of the order; tell it to no reader.
        form: a filled form, or a folder of forms, one for each reader.
        key: the key of the sheet, or the folder that it lies in; by default output_dir.

    Returns:
        The folder.

    Raises:
        InputError: on bad arguments, too few images, images of another size or group than the slices, images of a
            model that has seen a held-out patient, or a form that is incomplete or of another sheet.
    """
    if (images is None) == (form is None):
        raise InputError("Give `images` to write a sheet, or `form` to score a filled form.")
    if form is not None:
        return score_forms(Path(form), Path(output_dir if key is None else key), Path(output_dir))
    if key is not None:
        raise InputError("`key` is for scoring; leave it out, or give `form`.")
    assert images is not None  # as there is no form
    return write_sheet(Path(images), Path(output_dir), dataset, split, groups or (target_group,), num_each, seed)


def write_sheet(
    images: Path,
    output_dir: Path,
    dataset: str | Path | None = None,
    split: str = "test",
    groups: Sequence[str] = (TARGET_GROUP,),
    num_each: int = 40,
    seed: int = 0,
) -> Path:
    """Write a sheet; the arguments are those of `reader_sheet`."""
    at_least("num_each", num_each, 1)
    at_least("seed", seed, 0)
    reference = Reference.read(load_dataset(dataset), split, groups, name=str(dataset or "synthetic"))
    heldout = reference.heldout
    generated, source = read_images(images)
    pairs = read_pairs(images)
    shown = source.classes if pairs is None else asked_groups(pairs)
    if others := set(shown) - {"any"} - set(groups):
        raise InputError(f"{images} shows {', '.join(sorted(others))}, not {', '.join(groups)}; name other `groups`.")
    known = refuse_seen_patients(reference, images, None, source)
    for what, found in ((str(images), generated), (f"split '{split}'", heldout.images)):
        if len(found) < num_each:
            raise InputError(f"{what} holds {len(found)} slices; num_each is {num_each}: take fewer or add some.")
    if generated.shape[1:] != heldout.images.shape[1:]:
        sizes = (f"{one.shape[2]}x{one.shape[1]}" for one in (generated, heldout.images))
        raise InputError(f"{images} holds images of {' px, the dataset slices of '.join(sizes)} px; use one size.")
    require_empty(output_dir, "output_dir")
    random = np.random.default_rng(seed)
    real = spread_evenly(heldout.patients, heldout.positions, num_each, random)
    made = np.sort(random.permutation(len(generated))[:num_each])
    sources = [f"{heldout.patients[index]}, slice {index} of the split" for index in real]
    sources += [f"image {index} of the folder" for index in made]
    slices = np.rint(np.concatenate([heldout.images[real], generated[made]]) * 255).astype(np.uint8)
    kinds = [REAL] * num_each + [GENERATED] * num_each
    order = random.permutation(2 * num_each)
    digest = hashlib.sha256(slices[order].tobytes())
    digest.update("\n".join(sources[place] for place in order).encode())
    sheet = digest.hexdigest()[:16]
    about = {
        "sheet": sheet,
        "seed": seed,
        "num_each": num_each,
        "generator": source,
        "dataset": {"fingerprint": fingerprint(heldout), "split": split, "groups": list(groups)},
        "patients": np.unique(heldout.patients[real]).tolist(),
        "generator_has_not_seen_them": True if known else "not known",
        "hcm_hf": __version__,
    }
    numbers = range(1, len(order) + 1)
    with replacing(output_dir) as folder:
        (folder / SHEET_FOLDER).mkdir(parents=True)
        for number, page in enumerate(draw_pages(slices[order]), 1):
            save_png(page, folder / SHEET_FOLDER / f"page-{number}.png")
        write_text(folder / SHEET_FOLDER / FORM_FILE, _to_csv(_FORM, [(sheet, number, "", "") for number in numbers]))
        write_text(folder / SHEET_FOLDER / "instructions.txt", INSTRUCTIONS)
        lines = [(sheet, number, kinds[at], sources[at]) for number, at in zip(numbers, order, strict=True)]
        write_text(folder / KEY_FILE, _to_csv(_KEY, lines))
        write_text(folder / ABOUT_FILE, json.dumps(plain(about), indent=2) + "\n")
    return output_dir


def spread_evenly(patients: np.ndarray, positions: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Choose slices at random, as many of each patient as of the others as far as they have them.

    Args:
        patients: the patient of each slice, (N,).
        positions: where in the heart it lies, (N,); a patient's other positions come first.
        count: how many to choose, at most N.
        random: source of randomness.

    Returns:
        Indices, (count,), sorted.
    """
    shuffled = random.permutation(len(patients))
    turn = np.empty(len(patients), int)  # a slice's place among those of its patient
    for patient in np.unique(patients):
        own = shuffled[patients[shuffled] == patient]
        before = [(positions[own[:place]] == positions[index]).sum() for place, index in enumerate(own)]
        turn[own[np.argsort(before, kind="stable")]] = np.arange(len(own))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:count])


def draw_pages(slices: np.ndarray) -> Iterator[Image.Image]:
    """Draw pages of numbered tiles in the order given.

    Args:
        slices: uint8 (N, H, W). They are enlarged two to four times by bicubic interpolation.
    """
    height, width = slices.shape[1:]
    scale = min(4, max(2, _TILE // max(height, width)))
    across, down = width * scale + GAP, height * scale + GAP + HEADLINE
    for start in range(0, len(slices), COLUMNS * ROWS):
        page = Image.new("L", (COLUMNS * across + GAP, ROWS * down + GAP), 255)
        pen = ImageDraw.Draw(page)
        for place, pixels in enumerate(slices[start : start + COLUMNS * ROWS]):
            left, top = GAP + place % COLUMNS * across, GAP + place // COLUMNS * down
            pen.text((left, top), str(start + place + 1), fill=0, font_size=HEADLINE - 6)
            tile = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
            page.paste(tile, (left, top + HEADLINE))
        yield page


def score_forms(form: Path, key: Path, output_dir: Path) -> Path:
    """Score one form or a folder of them; the arguments are those of `reader_sheet`."""
    key = key / KEY_FILE if key.is_dir() else key
    sheet, kinds = read_key(key)
    forms = sorted(form.glob("*.csv")) if form.is_dir() else [form]
    if not forms:
        raise InputError(f"form {form} holds no form (*.csv); name a filled one.")
    readings = [score_form(path, sheet, kinds) for path in forms]
    text = render_readings(readings, sheet, len(kinds))
    record = {"sheet": sheet, "tiles": len(kinds), "readings": plain(readings)}
    write_text(output_dir / f"{RESULT}.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_text(output_dir / f"{RESULT}.md", text)
    return output_dir


def read_key(path: Path) -> tuple[str, dict[int, str]]:
    """Read the key of a sheet: its id, and the kind of each number.

    Raises:
        InputError: if it is missing or no key.
    """
    rows = _read_csv(path, _KEY)
    kinds = {_number(row, path): row["kind"] for row in rows}
    sheets = {row["sheet"] for row in rows}
    if len(sheets) != 1 or len(kinds) != len(rows) or not set(kinds.values()) <= {REAL, GENERATED}:
        raise InputError(f"{path} is no key that reader_sheet wrote, or damaged; write the sheet again.")
    return sheets.pop(), kinds


def score_form(path: Path, sheet: str, kinds: dict[int, str]) -> Reading:
    """Score the answers of one reader.

    Args:
        path: the filled form.
        sheet: id of the sheet.
        kinds: the kind of each number.

    Raises:
        InputError: names the form and what is wrong: it is of another sheet, lacks numbers or names one twice, or an
            answer or a confidence is none that can be given.
    """
    rows = _read_csv(path, _FORM[:3])
    if other := next((row["sheet"] for row in rows if row["sheet"] != sheet), None):
        raise InputError(f"{path} is the form of sheet {other}, the key is of {sheet}; name the key of its sheet.")
    answers: dict[int, tuple[str, str]] = {}
    for row in rows:
        number = _number(row, path)
        answer, confidence = row["answer"].lower(), row.get("confidence") or ""
        if number not in kinds or number in answers:
            raise InputError(f"{path} has number {number} {'twice' if number in answers else 'that is on no tile'}.")
        if answer not in ("", REAL, GENERATED):
            raise InputError(f"{path}, number {number}: answer is {answer!r}; write {REAL}, {GENERATED} or nothing.")
        if confidence and confidence not in map(str, CONFIDENCES):
            raise InputError(
                f"{path}, number {number}: confidence is {confidence!r}; write {CONFIDENCES[0]} to {CONFIDENCES[-1]}."
            )
        answers[number] = answer, confidence
    if missing := [number for number in kinds if number not in answers]:
        raise InputError(f"{path} lacks number {missing[0]}; leave the answer empty, but keep the line.")
    given = [(kinds[number], *answer) for number, answer in answers.items() if answer[0]]
    truth, said, sure = np.array(given, str).reshape(-1, 3).T
    right = truth == said
    accuracy = Share.of(right)
    return Reading(
        reader=path.stem,
        accuracy=accuracy,
        sensitivity=Share.of(right[truth == GENERATED]),
        specificity=Share.of(right[truth == REAL]),
        p_value=float(binomtest(accuracy.right, accuracy.answered).pvalue) if accuracy.answered else None,
        by_confidence={str(level): Share.of(right[sure == str(level)]) for level in CONFIDENCES if str(level) in sure},
        empty=len(kinds) - len(given),
    )


def render_readings(readings: Sequence[Reading], sheet: str, tiles: int) -> str:
    """The result for reading, in Markdown."""
    head = ["reader", "accuracy", "sensitivity", "specificity", "p against chance", "left empty"]
    lines = []
    for one in readings:
        chance = "" if one.p_value is None else f"{one.p_value:.2g}"
        shares = (one.accuracy, one.sensitivity, one.specificity)
        lines.append([one.reader, *(share.cell() for share in shares), chance, str(one.empty)])
    blocks = [f"# Reading of sheet {sheet}, {tiles} tiles", markdown_table(head, lines)]
    levels = sorted({level for one in readings for level in one.by_confidence})
    if levels:
        table = [
            [one.reader, *(one.by_confidence[level].cell() if level in one.by_confidence else "" for level in levels)]
            for one in readings
        ]
        blocks.append(markdown_table(["accuracy by confidence", *levels], table))
    blocks.append(
        "Accuracy: share of right answers, 0.5 by chance. Sensitivity: of generated slices, those called generated; "
        "specificity: of real slices, those called real. Answers left empty do not count. In brackets: 95 % interval "
        "(Wilson) of independent answers; slices of one patient are alike, so it is too narrow for other patients."
    )
    return "\n\n".join(blocks) + "\n"


def _to_csv(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    return text.getvalue()


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file with at least these columns, as any office program writes it; empty lines are left out.

    Raises:
        InputError: names the file and the column that is missing.
    """
    with explained(path):
        text = path.read_text(encoding="utf-8-sig")
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), restval="")
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if missing := [column for column in columns if column not in names]:
            raise InputError(f"{path} has no column '{missing[0]}'; it needs {', '.join(columns)}.")
        reader.fieldnames = names
        rows = [{name: row[name].strip() for name in names} for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table ({error}); save it as CSV.") from error
    rows = [row for row in rows if any(row.values())]
    if not rows:
        raise InputError(f"{path} has no lines below its columns; take the form or key as it was written.")
    return rows


def _number(row: dict[str, str], path: Path) -> int:
    if not row["number"].isdecimal():
        raise InputError(f"{path} has the number {row['number']!r}; leave the column number as it was written.")
    return int(row["number"])
