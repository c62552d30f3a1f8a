import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from tiny import build_tiny, notes

from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.images import read_images, read_split
from hcm_hf.generation.images import generate_images
from hcm_hf.study.reader import COLUMNS, GAP, GENERATED, HEADLINE, REAL, ROWS, reader_sheet, spread_evenly
from hcm_hf.utils.errors import InputError


SCALE, SIDE, EACH = 4, 16, 6


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of a model that is known to have seen somebody else."""
    folder = tmp_path_factory.mktemp("reader")
    build_tiny("vae").pipeline().save_pretrained(folder / "run" / "best")
    written = notes(family="vae", train_patients={"somebody": ["0123456789abcdef"]})
    (folder / "run" / "training_config.json").write_text(json.dumps(written))
    return generate_images(folder / "run", folder / "images", 20)


@pytest.fixture
def write(images, dataset_dir, tmp_path):
    def call(name="sheet", **changes):
        options = {"images": images, "dataset": dataset_dir, "num_each": EACH} | changes
        return reader_sheet(tmp_path / name, **options)

    return call


def lines(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def fill(sheet, path, answer, delimiter=","):
    """A filled form: `answer` is given each line of the key, and returns an answer and a confidence."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(["sheet", "number", "answer", "confidence"])
        for line in lines(sheet / "key.csv"):
            table.writerow([line["sheet"], line["number"], *answer(line)])
    return path


def tiles(sheet, count=2 * EACH):
    """The tiles of the pages as a reader sees them, in the order of their numbers."""
    found = []
    across, down = SIDE * SCALE + GAP, SIDE * SCALE + GAP + HEADLINE
    for number in range(-(-count // (COLUMNS * ROWS))):
        with Image.open(sheet / "sheet" / f"page-{number + 1}.png") as page:
            pixels = np.asarray(page)
        for place in range(min(COLUMNS * ROWS, count - len(found))):
            left, top = GAP + place % COLUMNS * across, GAP + place // COLUMNS * down + HEADLINE
            found.append(pixels[top : top + SIDE * SCALE, left : left + SIDE * SCALE])
    return found


def source(line, images, dataset_dir):
    """The 8-bit pixels that a tile was made of, by its line in the key."""
    index = int(re.search(r"(?:slice|image) (\d+)", line["source"])[1])
    if line["kind"] == GENERATED:
        with Image.open(images / f"{index:06d}.png") as image:
            return np.asarray(image)
    heldout = read_split(load_dataset(dataset_dir), "test", ["HCM"])
    assert line["source"].startswith(heldout.patients[index])
    return np.rint(heldout.images[index] * 255).astype(np.uint8)


def test_both_kinds_are_enlarged_alike_from_their_own_grey_values(write, images, dataset_dir):
    sheet = write()
    shown, key = tiles(sheet), lines(sheet / "key.csv")
    assert [line["number"] for line in key] == [str(number) for number in range(1, 2 * EACH + 1)]
    for tile, line in zip(shown, key, strict=True):
        pixels = Image.fromarray(source(line, images, dataset_dir))
        expected = pixels.resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(tile, np.asarray(expected))


def test_nothing_that_the_reader_gets_tells_the_kinds_apart(write):
    sheet = write(num_each=8)
    key = lines(sheet / "key.csv")
    assert {path.name for path in (sheet / "sheet").iterdir()} == {"page-1.png", "form.csv", "instructions.txt"}
    form = lines(sheet / "sheet" / "form.csv")
    assert [set(line) for line in form] == [{"sheet", "number", "answer", "confidence"}] * 16
    assert not any(line["answer"] or line["confidence"] for line in form)
    with Image.open(sheet / "sheet" / "page-1.png") as page:
        assert page.mode == "L" and not page.info
    for line in key:
        for path in (sheet / "sheet" / "form.csv", sheet / "sheet" / "instructions.txt"):
            assert line["source"] not in path.read_text()
    kinds = [line["kind"] for line in key]
    assert kinds.count(REAL) == kinds.count(GENERATED) == 8
    orders = {tuple(line["kind"] for line in lines(write(f"seed {n}", seed=n) / "key.csv")) for n in range(5)}
    assert len(orders) == 5  # the place of a tile says nothing
    shutil.rmtree(sheet)
    assert lines(write(num_each=8) / "key.csv") == key


def test_pages_hold_all_tiles(write):
    sheet = write(num_each=11)
    assert len(list((sheet / "sheet").glob("page-*.png"))) == 2 and len(tiles(sheet, 22)) == 22
    assert all(tile.std() > 0 for tile in tiles(sheet, 22))


def test_patients_are_spread_evenly():
    patients = np.repeat(["a", "b", "c"], [20, 3, 9])
    positions = np.concatenate([np.arange(20) // 2, np.arange(3), np.arange(9)])  # of a in two phases each
    for count, expected in ((9, (3, 3, 3)), (15, (6, 3, 6)), (32, (20, 3, 9))):
        chosen = spread_evenly(patients, positions, count, np.random.default_rng(0))
        assert [int((patients[chosen] == name).sum()) for name in "abc"] == list(expected)
        assert len(np.unique(chosen)) == count
    firsts = {tuple(spread_evenly(patients, positions, 3, np.random.default_rng(seed))) for seed in range(9)}
    assert len(firsts) > 5
    for seed in range(9):  # ten of each of a and c
        chosen = spread_evenly(patients, positions, 22, np.random.default_rng(seed))
        assert len(np.unique(positions[chosen[patients[chosen] == "a"]])) == 10


def test_answers_are_counted(write, tmp_path):
    sheet = write()
    generated = iter(range(EACH))

    def answer(line):  # right of all real ones; of generated ones 3 are found, 2 taken for real, and 1 is left empty
        if line["kind"] == REAL:
            return " Real ", 5
        return (("generated", 4), ("generated", 2), ("generated", ""), ("real", 2), ("real", 2), ("", ""))[
            next(generated)
        ]

    form = fill(sheet, tmp_path / "filled.csv", answer, delimiter=";")
    assert reader_sheet(sheet, form=form) == sheet
    found = json.loads((sheet / "reading.json").read_text())
    (one,) = found["readings"]
    assert (one["reader"], one["empty"], found["tiles"]) == ("filled", 1, 12)
    for name, right, answered in (("accuracy", 9, 11), ("sensitivity", 3, 5), ("specificity", 6, 6)):
        ends = binomtest(right, answered).proportion_ci(method="wilson")
        expected = {
            "right": right,
            "answered": answered,
            "value": right / answered,
            "low": ends.low,
            "high": ends.high,
        }
        assert one[name] == pytest.approx(expected)
    assert one["p_value"] == pytest.approx(binomtest(9, 11).pvalue)
    counted = {level: (share["right"], share["answered"]) for level, share in one["by_confidence"].items()}
    assert counted == {"2": (1, 3), "4": (1, 1), "5": (6, 6)}
    text = (sheet / "reading.md").read_text()
    assert "| filled | 0.82 [" in text and "], 9 of 11 |" in text and "| accuracy by confidence | 2 | 4 | 5 |" in text


def test_several_readers_stand_in_one_table(write, tmp_path):
    sheet = write()
    (tmp_path / "forms").mkdir()
    fill(sheet, tmp_path / "forms" / "ada.csv", lambda line: (line["kind"], ""))
    fill(sheet, tmp_path / "forms" / "bob.csv", lambda line: (GENERATED, ""))
    fill(sheet, tmp_path / "forms" / "eve.csv", lambda line: ("", ""))
    reader_sheet(tmp_path / "result", form=tmp_path / "forms", key=sheet)
    ada, bob, eve = json.loads((tmp_path / "result" / "reading.json").read_text())["readings"]
    assert ada["accuracy"]["value"] == 1 and ada["by_confidence"] == {}
    assert (bob["sensitivity"]["value"], bob["specificity"]["value"], bob["p_value"]) == (1, 0, 1)
    assert eve["empty"] == 12 and eve["accuracy"] == {"right": 0, "answered": 0}
    assert "| eve | none | none | none |  | 12 |" in (tmp_path / "result" / "reading.md").read_text()


def change(**values):
    return lambda table: table[3].update(values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(answer="perhaps"), r"filled.csv, number 4: answer is 'perhaps'; write real, generated or nothing"),
        (change(confidence="9"), r"number 4: confidence is '9'; write 1 to 5"),
        (change(sheet="0123"), r"is the form of sheet 0123, the key is of"),
        (change(number="3"), "has number 3 twice"),
        (change(number="99"), "has number 99 that is on no tile"),
        (change(number="four"), "has the number 'four'"),
        (lambda table: table.pop(3), "lacks number 4; leave the answer empty"),
        (lambda table: table.clear(), "has no lines"),
        (lambda table: [line.pop("answer") for line in table], "has no column 'answer'"),
    ],
)
def test_a_form_that_cannot_be_scored_is_named_in_one_sentence(write, tmp_path, damage, message):
    sheet = write()
    form = fill(sheet, tmp_path / "filled.csv", lambda line: (line["kind"], ""))
    table = [{"sheet": line["sheet"], **line} for line in lines(sheet / "sheet" / "form.csv")]
    columns = ["sheet", "number", "answer", "confidence"]
    damage(table)
    columns = [name for name in columns if not table or name in table[0]]
    with open(form, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
    with pytest.raises(InputError, match=message) as caught:
        reader_sheet(sheet, form=form)
    assert "\n" not in str(caught.value) and not (sheet / "reading.json").exists()


def test_a_key_of_nothing_is_refused(write, tmp_path):
    sheet = write()
    form = fill(sheet, tmp_path / "filled.csv", lambda line: (line["kind"], ""))
    (tmp_path / "empty").mkdir()
    for key, message in (
        (tmp_path / "nowhere.csv", "nowhere.csv"),
        (sheet / "sheet" / "form.csv", "no column 'kind'"),
        (tmp_path / "empty", "key.csv"),
    ):
        with pytest.raises(InputError, match=message):
            reader_sheet(tmp_path / "result", form=form, key=key)
    with pytest.raises(InputError, match="holds no form"):
        reader_sheet(sheet, form=tmp_path / "empty")
    (sheet / "key.csv").write_text((sheet / "key.csv").read_text().replace(REAL, "true"))
    with pytest.raises(InputError, match="is no key that reader_sheet wrote"):
        reader_sheet(sheet, form=form)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "Give `images` to write a sheet, or `form`"),
        ({"form": "filled.csv"}, "Give `images` to write a sheet, or `form`"),
        ({"key": "key.csv"}, "`key` is for scoring"),
        ({"num_each": 21}, "holds 20 slices; num_each is 21"),
        ({"num_each": 0}, "num_each is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "secret"}, "no split 'secret'"),
        ({"groups": ["RV"]}, "no slices of RV"),
    ],
)
def test_wrong_arguments_leave_nothing(write, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        write("sheet", **changes)
    assert not (tmp_path / "sheet").exists()


def test_images_that_do_not_belong_beside_the_slices_are_refused(images, write, dataset_dir, tmp_path):
    folders = [shutil.copytree(images, tmp_path / name) for name in ("large", "healthy", "seen")]
    for path in folders[0].glob("*.png"):
        Image.new("L", (32, 32)).save(path)
    manifest = folders[1] / "manifest.jsonl"
    entries = [json.loads(line) | {"class": "NOR"} for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    known = read_split(load_dataset(dataset_dir), "test", ["HCM"]).identities
    settings = json.loads((folders[2] / "generation.json").read_text())
    (folders[2] / "generation.json").write_text(json.dumps(settings | {"train_patients": known}))
    for folder, message in zip(
        folders, ("32x32 px.* 16x16 px", "shows NOR, not HCM", "was trained on patient"), strict=True
    ):
        with pytest.raises(InputError, match=message):
            write("bad", images=folder)
    assert not (tmp_path / "bad").exists()


def test_a_sheet_is_never_written_over(write):
    sheet = write()
    before = (sheet / "key.csv").read_bytes()
    with pytest.raises(InputError, match="exists and holds something else"):
        write(seed=1)
    assert (sheet / "key.csv").read_bytes() == before


def test_what_is_known_of_the_generator_is_kept_beside_the_key(images, write, tmp_path):
    about = json.loads((write() / "about.json").read_text())
    assert about["generator_has_not_seen_them"] is True and about["num_each"] == EACH
    assert about["generator"]["model_hash"] == read_images(images)[1].model_hash
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in images.glob("*.png"):
        shutil.copy(path, bare)
    assert json.loads((write("of bare", images=bare) / "about.json").read_text())["generator_has_not_seen_them"] == (
        "not known"
    )
