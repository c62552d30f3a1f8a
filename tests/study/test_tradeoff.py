import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from hcm_hf.metrics.bootstrap import Number
from hcm_hf.study.tradeoff import MASK_WALLS, PANELS, REAL, collect, draw_tradeoff, plot_tradeoff, render_tradeoff
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "results" / "acdc-64-paper"


def row(value: float, encoder: str = "e1", n_patients: int = 4, **others) -> dict:
    """Numbers of one set of images: `value` in every column, 0.1 above its low and below its high."""
    counts = {"n_real": 74, "n_patients": n_patients, "encoder": encoder}
    return {column: {"value": value, "low": value - 0.1, "high": value + 0.1} | counts for column in PANELS} | others


def speed(milliseconds: float, calls: int = 1, threads: int = 2, **others) -> dict:
    on = {"batch_size": 8, "device": "cpu", "threads": threads}
    return {"network_calls": calls, "seconds_per_1000_images": milliseconds} | on | others


def ends(number: Number) -> tuple:
    return number.value, number.low, number.high


def write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_report(folder: Path, value: float = 0.5, fingerprint: str = "f1", **changes) -> Path:
    report = json.loads((PUBLISHED / "gan" / "report.json").read_text()) | {
        "generator": {"model": "runs/somewhere"},
        "rows": {"generated": row(value, **changes), "real": row(0.9)},
        "parts": {},
        "speed": speed(2.5),
    }
    report["dataset"]["fingerprint"] = fingerprint
    return write(folder / "report.json", report)


def write_sweep(path: Path, settings: dict[str, list[dict] | dict]) -> Path:
    """A sweep whose times are ten milliseconds a call."""
    record = {}
    for name, numbers in settings.items():
        calls = int(name.rpartition("-")[2])
        record[name] = {"speed": speed(10.0 * calls, calls, threads=1), "numbers": numbers}
    return write(path, record | {REAL: {"speed": None, "numbers": [row(0.9)]}})


def test_numbers_are_those_of_the_reports_in_the_order_of_the_families(tmp_path):
    for value, family in enumerate(reversed(FAMILIES)):
        write_report(tmp_path / family, value)
    entries = collect([("paper", tmp_path)])
    assert [entry.family for entry in entries] == list(FAMILIES)
    for entry, value in zip(entries, reversed(range(len(FAMILIES))), strict=True):
        assert (entry.recipe, entry.sampler, entry.calls, entry.milliseconds) == ("paper", "", 1, 2.5)
        assert entry.measured_on == "one batch of 8 on cpu, 2 threads, fp32" and entry.milliseconds_range is None
        assert entry.numbers == dict.fromkeys(PANELS, Number(value, value - 0.1, value + 0.1))
        assert entry.real == dict.fromkeys(PANELS, Number(0.9, 0.8, 1.0))
    one = collect([("tuned", tmp_path / "gan" / "report.json")])
    assert [(entry.family, entry.recipe) for entry in one] == [("gan", "tuned")]
    assert collect([("tuned", tmp_path / "gan")])[0].numbers == one[0].numbers


def test_a_time_has_its_spread(tmp_path):
    timed = {"low": 2.0, "high": 4.0, "timed_calls": 5, "mixed_precision": "bf16", "device_name": "Abacus"}
    report = json.loads(write_report(tmp_path / "gan").read_text()) | {"speed": speed(2.5, **timed)}
    write(tmp_path / "gan" / "report.json", report)
    entries = collect([("paper", tmp_path)])
    assert entries[0].milliseconds_range == (2, 4)
    text = render_tradeoff(entries)
    assert "| 2.5 [2, 4] |" in text
    assert "Times: the median of 5 batches of 8 on cpu (Abacus), 2 threads, bf16." in text
    collections = plot_tradeoff(entries).axes[0].collections
    assert any((2.0, 4.0) == tuple(segment[:, 0]) for one in collections for segment in one.get_segments())


def test_the_published_reports_are_read():
    for entry in collect([("paper", PUBLISHED)]):
        report = json.loads((PUBLISHED / entry.family / "report.json").read_text())
        for column in PANELS:
            number = report["rows"]["generated"][column]
            assert entry.numbers[column] == Number(number["value"], number["low"], number["high"])


def test_several_seeds_are_their_mean_and_the_furthest_ends(tmp_path):
    few = {"thick_share_ed": {"value": None, "low": None, "high": None}}
    masks = {MASK_WALLS: {"value": 0.6, "low": 0.5, "high": 0.7}}
    settings = {"sde-dpmsolver++-20": [row(0.2, **masks), row(0.6)], "ddpm-1": [row(0.4, **few), row(0.5, **few)]}
    path = write_sweep(tmp_path / "steps.json", settings)
    first, second = collect(sweeps=[("ddpm-tuned", path)])
    assert (first.family, first.recipe, first.sampler, first.calls) == ("ddpm", "tuned", "sde-dpmsolver++", 20)
    assert first.milliseconds == 200 and first.measured_on == "one batch of 8 on cpu, 1 thread, fp32"
    assert ends(first.numbers["kid_acdc"]) == pytest.approx((0.4, 0.1, 0.7))
    assert ends(first.numbers[MASK_WALLS]) == (0.6, 0.5, 0.7)
    assert second.sampler == "ddpm" and ends(second.numbers["kid_acdc"]) == pytest.approx((0.45, 0.3, 0.6))
    assert "thick_share_ed" not in second.numbers and MASK_WALLS not in second.numbers


def test_an_early_sweep_and_the_report_of_one_of_its_settings(tmp_path):
    path = write_sweep(tmp_path / "steps.json", {"ddpm-10": row(0.1), "ddpm-50": row(0.2)})
    report = json.loads(write_report(tmp_path / "ddpm", 0.3).read_text())
    report |= {"generator": {"scheduler": "ddpm", "num_inference_steps": 50}, "speed": speed(499, 50)}
    write(tmp_path / "ddpm" / "report.json", report)
    entries = collect([("paper", tmp_path)], [("ddpm-paper", path)])
    found = [(entry.calls, entry.milliseconds, entry.numbers["copy_rate"].value) for entry in entries]
    assert found == [(10, 100, 0.1), (50, 499, 0.3)]


def test_another_family_needs_nothing_here(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "flow", FAMILIES["ddpm"])
    for family in ("flow", "vae"):
        write_report(tmp_path / family)
    path = write_sweep(tmp_path / "steps.json", {"ddpm-2": [row(0.1)], "ddpm-4": [row(0.2)]})
    entries = draw_tradeoff(tmp_path / "figure.png", [("paper", tmp_path)], [("flow-tuned", path)])
    assert [entry.family for entry in entries] == ["vae", "flow", "flow", "flow"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"encoder": "e2"}, "encoder e1 and e2"),
        ({"n_patients": 2}, "held-out patients 4 and 2"),
        ({"fingerprint": "f2"}, "dataset f1 and f2"),
    ],
)
def test_what_does_not_compare_is_not_drawn(tmp_path, changes, what):
    sweep = write_sweep(tmp_path / "steps.json", {"ddpm-2": [row(0.1)]})
    write_report(tmp_path / "vae")
    write_report(tmp_path / "gan", **changes)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'gan' / 'report.json'} do not compare: {what};")):
        draw_tradeoff(tmp_path / "figure.png", [("paper", tmp_path)], [("ddpm-tuned", sweep)])
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.parametrize(
    ("reports", "sweeps", "message"),
    [
        ([], [], "reports or sweeps must name one or more files."),
        ([("paper", "vae/missing.json")], [], "missing.json (No such file or directory)"),
        ([("paper", "empty")], [], "empty holds no report.json, nor does a folder in it named after a family."),
        ([("paper", "vae/cut.json")], [], "cut.json (Expecting property name enclosed in double quotes: line 1"),
        ([("paper", "list.json")], [], "list.json is in no folder that is named after a family: vae, gan,"),
        ([("paper", "vae/list.json")], [], "list.json holds no JSON object; it is damaged"),
        ([("paper", "gan")], [], "report.json is no report of score.py with a model and an encoder."),
        ([], [("ddpm-paper", "vae/list.json")], "list.json holds no JSON object; it is damaged"),
        (
            [],
            [("ddpm-paper", "steps.json")],
            "steps.json is no steps.json of sweep_steps.py with an encoder ('kid_acdc')",
        ),
        ([], [("tuned", "steps.json")], "sweeps has tuned, no FAMILY-RECIPE such as ddpm-tuned; families: vae, gan,"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, reports, sweeps, message):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "vae"):
        write(folder / "list.json", [])
    (tmp_path / "vae" / "cut.json").write_text('{"rows": {')
    report = json.loads(write_report(tmp_path / "gan").read_text())
    del report["speed"]
    write(tmp_path / "gan" / "report.json", report)
    without_encoder = row(0.1)
    del without_encoder["kid_acdc"]
    write_sweep(tmp_path / "steps.json", {"ddpm-2": [without_encoder]})
    with pytest.raises(InputError) as caught:
        collect(*([(label, tmp_path / path) for label, path in named] for named in (reports, sweeps)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_number_without_an_end_of_its_interval_is_refused(tmp_path, end):
    numbers = row(0.1)
    numbers["kid_acdc"][end] = None
    sweep = write_sweep(tmp_path / "steps.json", {"ddpm-2": [numbers]})
    with pytest.raises(InputError, match="steps.json"):
        collect(sweeps=[("ddpm-tuned", sweep)])
    report = json.loads(write_report(tmp_path / "gan").read_text())
    report["rows"]["generated"] = numbers
    write(tmp_path / "gan" / "report.json", report)
    with pytest.raises(InputError, match="report.json"):
        collect([("paper", tmp_path / "gan")])


def test_the_picture_says_what_is_not_the_same_for_all(tmp_path):
    write_report(tmp_path / "vae")
    write_report(tmp_path / "gan")
    sweep = write_sweep(tmp_path / "steps.json", {"ddpm-2": [row(0.1)], "ddpm-4": [row(0.2)], "unipc-2": [row(0.3)]})
    figure = plot_tradeoff(collect([("paper", tmp_path)], [("ddpm-tuned", sweep)]))
    note = figure.get_supxlabel().replace("\n", " ")
    others = "one batch of 8 on cpu, 1 thread, fp32"
    assert f"Times: one batch of 8 on cpu, 2 threads, fp32; but of ddpm tuned: {others}." in note
    assert "over 4 held-out patients" in note and "a model has seen: 0.900." in note
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("vae", "gan", "ddpm", "recipe paper", "recipe tuned", "real patients")
    ]
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == {"2", "4 ddpm"}


def test_the_script_writes_a_whole_picture(tmp_path, monkeypatch, capsys):
    write_report(tmp_path / "vae")
    masks = {MASK_WALLS: {"value": 0.6, "low": 0.5, "high": 0.7}}
    for name in ("tuned", "distilled"):
        write_sweep(tmp_path / f"{name}.json", {"ddpm-2": [row(0.1, **masks)], "ddpm-4": [row(0.2, **masks)]})
    sweeps = ("ddpm-tuned", tmp_path / "tuned.json", "ddpm-distilled", tmp_path / "distilled.json")
    figure = tmp_path / "out" / "figure.png"
    arguments = ("--reports", "paper", tmp_path, "--sweeps", *sweeps, "--output_file", figure)
    monkeypatch.setattr(sys, "argv", ["draw_tradeoff.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts" / "draw_tradeoff.py"), run_name="__main__")
    table = figure.with_suffix(".md")
    assert capsys.readouterr().out == f"figure: {figure}\ntable: {table}\n"
    assert table.read_text().count("\n|") == 5 + 3  # settings; head, rule and real patients
    assert set(figure.parent.iterdir()) == {figure, table} and figure.stat().st_size < 150_000
    with Image.open(figure) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width == 1000


def test_only_a_png_is_written(tmp_path):
    write_report(tmp_path / "vae")
    with pytest.raises(InputError, match=r"figure.md must end in .png"):
        draw_tradeoff(tmp_path / "figure.md", [("paper", tmp_path)])
    assert not (tmp_path / "figure.md").exists()


def test_real_patients_stand_with_each_value_that_they_have(tmp_path):
    write_report(tmp_path / "vae")
    path = write_report(tmp_path / "gan")
    report = json.loads(path.read_text())
    report["rows"]["real"] = row(0.8)
    write(path, report)
    line = render_tradeoff(collect([("paper", tmp_path)])).splitlines()[-3]
    assert "| 0.900 [0.800, 1.000]; 0.800 [0.700, 0.900] |" in line


def test_the_table_has_every_setting_and_the_real_patients(tmp_path):
    write_report(tmp_path / "vae", spectrum_distance={"value": 2.0, "low": 1.5, "high": 2.5})
    masks = {MASK_WALLS: {"value": 0.6, "low": 0.5, "high": 0.7}}
    sweep = write_sweep(tmp_path / "steps.json", {"ddpm-2": [row(0.1)], "ddpm-4": [row(0.2, **masks), row(0.4)]})
    lines = render_tradeoff(collect([("paper", tmp_path)], [("ddpm-tuned", sweep)])).splitlines()
    assert (
        lines[4].startswith("| vae | paper |  | 1 | 2.5 | 0.500 [0.400, 0.600] |")
        and "| 2.000 [1.500, 2.500] |" in lines[4]
    )
    assert lines[5].startswith("| ddpm | tuned | ddpm | 4 | 40 | 0.300 [0.100, 0.500] |")
    assert lines[5].endswith("| 0.600 [0.500, 0.700] |") and lines[6].startswith("| ddpm | tuned | ddpm | 2 | 20 |")
    assert lines[7].startswith(f"| {REAL} |  |  |  |  | 0.900 [0.800, 1.000] |")
    assert "In brackets: 95 % intervals over 4 held-out patients" in lines[-1]
