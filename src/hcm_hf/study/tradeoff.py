"""Quality against time: what each model's images are worth, and how long one takes, in one picture and one table.

It is drawn from what `score` and `sweep_steps` wrote, and only from numbers that compare: of one encoder, one dataset
and the same held-out patients. Times are those of the files, and the picture says what they were measured on.
"""

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from hcm_hf.evaluation.report import REPORT_FILE, Report, Speed
from hcm_hf.evaluation.tables import brief, cell, markdown_table
from hcm_hf.evaluation.typed import read_typed
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.study.sweep import REAL
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import read_json, write_text
from hcm_hf.utils.pictures import save_png


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """How a column is drawn: on a linear scale, or on one that is so up to a value and logarithmic beyond."""

    title: str
    limits: tuple[float | None, float | None]
    linear_to: float | None = None


COPIES, WALLS = "copy_rate", "thick_share_ed"
PANELS = {
    "kid_acdc": Panel("KID (lower is better)", (None, None), linear_to=1),
    "coverage_acdc": Panel("coverage (higher is better)", (-0.02, 1.02)),
    COPIES: Panel("copies of training slices (no more than real patients)", (-0.002, None), linear_to=0.01),
    WALLS: Panel("walls of 15 mm at end diastole (as many as real patients)", (-0.02, 1.02)),
}
MASK_WALLS = "mask_thick_share_hcm_ed"  # of models that make masks: hollow, in the panel of what the segmenter finds
COLUMNS = (*PANELS, "spectrum_distance", MASK_WALLS)

# Okabe and Ito's colours, which all eyes can tell, in an order that keeps like ones apart.
_COLOURS = ("#000000", "#56b4e9", "#009e73", "#0072b2", "#cc79a7", "#d55e00", "#e69f00", "#f0e442")
_MARKERS = "osD^vP"
_GREY, _FAINT = "#606060", 0.12


@dataclass(frozen=True)
class Entry:
    """One model with one setting."""

    family: str  # a name of `FAMILIES`
    recipe: str  # how it was trained
    sampler: str  # of a diffusion model; empty for others
    calls: int  # of the network per image
    milliseconds: float  # per image
    milliseconds_range: tuple[float, float] | None  # by the fastest and the slowest call; None where one was timed
    measured_on: str  # what that time was measured on
    numbers: dict[str, Number]  # by column, where there is one
    real: dict[str, Number]  # of real patients in its place; their copies depend on the slices that the model has seen
    compared: dict[str, str | int | None]  # what must be the same for all: encoder, held-out data, dataset if known
    source: Path  # the file


def draw_tradeoff(
    output_file: Path,
    reports: Sequence[tuple[str, Path]] = (),
    sweeps: Sequence[tuple[str, Path]] = (),
) -> list[Entry]:
    """Draw quality against time of models that have been scored: KID, coverage, copies, thick walls at end diastole.

    A point is a model with a setting, its whisker the 95 % interval of the files: over the held-out patients, of walls
    over the images. Of several seeds it is the mean, and the whisker reaches from the lowest to the highest end of
    their intervals: the range of the seeds alone would hide that the patients are few. The band is that of real
    patients in the same way, with a line for each value that they have. A point is missing where too few of its images
    show end diastole.

    Args:
        output_file: the PNG file to write; the table beside it has the same name and ends in .md.
        reports: pairs of a recipe and a report.json in a folder named after its family, or a folder of such folders.
        sweeps: pairs of a model, as ddpm-tuned, and a steps.json of sweep_steps.

    Returns:
        What was drawn.

    Raises:
        InputError: as `collect`, or if the file is no PNG.
    """
    if Path(output_file).suffix != ".png":
        raise InputError(f"output_file {output_file} must end in .png.")
    entries = collect(reports, sweeps)
    table = render_tradeoff(entries)
    buffer = io.BytesIO()
    plot_tradeoff(entries).savefig(buffer, dpi=100, format="png")
    save_png(Image.open(buffer).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE), output_file)
    write_text(Path(output_file).with_suffix(".md"), table)
    return entries


def collect(
    reports: Sequence[tuple[str, str | Path]] = (), sweeps: Sequence[tuple[str, str | Path]] = ()
) -> list[Entry]:
    """Read files that `score` and `sweep_steps` wrote, in the families' order.

    Args:
        reports: a recipe with the `report.json` of a family, in a folder of its name, or with the folder of such.
        sweeps: a model as FAMILY-RECIPE with its `steps.json`.

    Returns:
        Each setting once: one that is in a report and a sweep is the report's.

    Raises:
        InputError: if nothing is named, a file is missing or damaged, or their numbers do not compare.
    """
    found = [entry for label, path in sweeps for entry in read_sweep(Path(path), label)]
    found += [read_report(file, recipe) for recipe, path in reports for file in _report_files(Path(path))]
    if not found:
        raise InputError("reports or sweeps must name one or more files.")
    known: dict[str, Entry] = {}
    for entry in found:
        for what, value in entry.compared.items():
            other = known.setdefault(what, entry)
            if value != other.compared[what]:
                raise InputError(
                    f"{other.source} and {entry.source} do not compare: {what} {other.compared[what]} and {value}; "
                    "score both with one encoder and dataset."
                )
    unique = {(entry.family, entry.recipe, entry.sampler, entry.calls): entry for entry in found}
    families = list(FAMILIES)
    return sorted(unique.values(), key=lambda entry: families.index(entry.family))


def read_report(path: Path, recipe: str) -> Entry:
    """A report on images of a model, in a folder that is named after its family."""
    family = path.resolve().parent.name
    if family not in FAMILIES:
        raise InputError(f"{path} is in no folder that is named after a family: {', '.join(FAMILIES)}.")
    report = Report.load(path)
    generated = report.rows["generated"]
    if not report.speed or "real" not in report.rows or "kid_acdc" not in generated:
        raise InputError(f"{path} is no report of score.py with a model and an encoder.")
    model, sampler = (family, recipe), report.generator.scheduler or ""
    entry = _entry(model, sampler, report.speed, [generated], [report.rows["real"]], path)
    entry.compared["dataset"] = report.dataset.fingerprint
    return entry


def read_sweep(path: Path, model: str) -> list[Entry]:
    """A sweep over settings of one model, named as FAMILY-RECIPE, of one seed or several."""
    family, _, recipe = model.partition("-")
    if family not in FAMILIES or not recipe:
        raise InputError(f"sweeps has {model}, no FAMILY-RECIPE such as ddpm-tuned; families: {', '.join(FAMILIES)}.")
    rows = read_json(path)
    try:
        seeds = {name: _read_seeds(row["numbers"]) for name, row in rows.items()}
        real = seeds.pop(REAL)
        speeds = {name: read_typed(Speed, rows[name]["speed"]) for name in seeds}
        return [
            _entry((family, recipe), name.rpartition("-")[0], speeds[name], numbers, real, path)
            for name, numbers in seeds.items()
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is no steps.json of sweep_steps.py with an encoder ({error}).") from error


def _read_seeds(numbers: dict | list[dict]) -> list[dict[str, Number]]:
    seeds = [numbers] if isinstance(numbers, dict) else numbers  # early sweeps had one seed, and no list
    return [read_typed(dict[str, Number], one) for one in seeds]


def _entry(
    model: tuple[str, str],
    sampler: str,
    speed: Speed,
    seeds: list[dict[str, Number]],
    real: list[dict[str, Number]],
    source: Path,
) -> Entry:
    """An entry of the numbers of one seed or several."""
    first = seeds[0]["kid_acdc"]
    compared: dict[str, str | int | None] = {
        "encoder": first.encoder,
        "held-out slices": first.n_real,
        "held-out patients": first.n_patients,
    }
    if (walls := seeds[0].get(WALLS)) is not None and walls.encoder is not None:
        compared["segmenter"] = walls.encoder
    return Entry(
        *model,
        sampler,
        calls=speed.network_calls,
        milliseconds=speed.seconds_per_1000_images,
        milliseconds_range=None if speed.low is None or speed.high is None else (speed.low, speed.high),
        measured_on=speed.circumstances(),
        numbers=_join(seeds),
        real=_join(real),
        compared=compared,
        source=source,
    )


def _join(seeds: Sequence[dict[str, Number]]) -> dict[str, Number]:
    """Of each column the mean over the seeds that have a value, and the furthest ends of their intervals."""
    numbers = {}
    for column in COLUMNS:
        there = [_ends(row[column]) for row in seeds if column in row and row[column].value is not None]
        if there:
            values, low, high = zip(*there, strict=True)
            numbers[column] = Number(sum(values) / len(values), min(low), max(high))
    return numbers


def _report_files(path: Path) -> list[Path]:
    """The reports that a path stands for: itself, the one in it, or those of the families in it."""
    if not path.is_dir():
        return [path]
    files = [folder / REPORT_FILE for folder in (path, *(path / family for family in FAMILIES))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"reports {path} holds no {REPORT_FILE}, nor does a folder in it named after a family.")
    return files


def plot_tradeoff(entries: Sequence[Entry]) -> "Figure":
    """The figure of `draw_tradeoff`.

    Args:
        entries: one or more, in the order of the legend.
    """
    figure = new_figure(10, 8.6)
    from matplotlib.lines import Line2D  # slow to import
    from matplotlib.patches import Patch

    colours = dict(zip(FAMILIES, cycle(_COLOURS), strict=False))
    markers = dict(zip(dict.fromkeys(entry.recipe for entry in entries), cycle(_MARKERS), strict=False))
    models: dict[tuple[str, str], dict[str, list[Entry]]] = {}
    for entry in sorted(entries, key=lambda entry: entry.calls):
        models.setdefault((entry.family, entry.recipe), {}).setdefault(entry.sampler, []).append(entry)
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (column, panel) in zip(panels.flat, PANELS.items(), strict=True):
        names = (column, MASK_WALLS) if column == WALLS else (column,)
        real = [_ends(entry.real[name]) for entry in entries for name in names if name in entry.real]
        if real:
            values, low, high = zip(*real, strict=True)
            axes.axhspan(min(low), max(high), color=_GREY, alpha=_FAINT, linewidth=0)
            for value in set(values):
                axes.axhline(value, color=_GREY, linewidth=1)
        for (family, recipe), lines in models.items():
            for i, (sampler, line) in enumerate(lines.items()):
                for name in names:
                    _draw_line(axes, line, name, color=colours[family], marker=markers[recipe])
                _write_calls(axes, line, column, sampler if len(lines) > 1 else "", colours[family], above=i % 2 == 0)
        axes.set_title(panel.title, fontsize=11)
        if panel.linear_to is not None:
            axes.set_yscale("symlog", linthresh=panel.linear_to)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xscale="log", ylim=panel.limits)
        axes.grid(alpha=0.2)
    times = [entry.milliseconds for entry in entries]
    axes.set_xlim(min(times) / 2, max(times) * 4)  # room for what is written beside the last point
    axes.xaxis.set_major_formatter("{x:g}")
    for axes in panels[-1]:
        axes.set_xlabel("milliseconds per image")

    plain: dict[str, Any] = {"linestyle": "", "color": _GREY}
    shown = dict.fromkeys(entry.family for entry in entries)
    handles: dict[str, Any] = {family: Line2D([], [], linewidth=4, color=colours[family]) for family in shown}
    handles |= {f"recipe {recipe}": Line2D([], [], marker=marker, **plain) for recipe, marker in markers.items()}
    if any(MASK_WALLS in entry.numbers for entry in entries):
        handles["walls in its own masks"] = Line2D([], [], marker="o", markerfacecolor="white", **plain)
    band, level = Patch(color=_GREY, alpha=_FAINT, linewidth=0), Line2D([], [], color=_GREY, linewidth=1)
    handles["real patients"] = (band, level)
    columns = -(-len(handles) // 2)
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=10)
    note = "Beside the points: calls of the network per image. " + _note(entries, "Whiskers and band")
    figure.supxlabel(textwrap.fill(note, 150), fontsize=9, color=_GREY)
    return figure


def render_tradeoff(entries: Sequence[Entry]) -> str:
    """The table of `draw_tradeoff` in Markdown, and what it must say for itself.

    Args:
        entries: one or more; rows stand in the families' order, most calls first.
    """
    head, lines = ["", "recipe", "sampler", "calls", "milliseconds per image", *COLUMNS], []
    for one in sorted(entries, key=lambda entry: (list(FAMILIES).index(entry.family), -entry.calls)):
        setting = [one.family, one.recipe, one.sampler, str(one.calls), _time_cell(one)]
        lines.append([*setting, *(cell(one.numbers.get(column), column) for column in COLUMNS)])
    real = []  # of the values that the files have, as they differ in what the models have seen and were asked for
    for column in COLUMNS:
        real.append("; ".join(dict.fromkeys(cell(one.real[column], column) for one in entries if column in one.real)))
    lines.append([REAL, "", "", "", "", *real])
    return f"# Quality and time\n\n{markdown_table(head, lines)}\n\n{_note(entries, 'In brackets')}\n"


def _time_cell(entry: Entry) -> str:
    time = brief(entry.milliseconds)
    if entry.milliseconds_range is None:
        return time
    return f"{time} [{', '.join(map(brief, entry.milliseconds_range))}]"


def _draw_line(axes: "Axes", line: Sequence[Entry], column: str, color: str, marker: str) -> None:
    """The settings of a model with one sampler: points with whiskers, joined."""
    there = [(entry.milliseconds, entry.numbers[column]) for entry in line if column in entry.numbers]
    if there:
        times, numbers = zip(*there, strict=True)
        values, low, high = zip(*map(_ends, numbers), strict=True)
        dashes, filling = ("--", "white") if column == MASK_WALLS else ("-", color)
        axes.vlines(times, low, high, color=color, linewidth=1, alpha=0.4)
        for entry, value in zip((entry for entry in line if column in entry.numbers), values, strict=True):
            axes.hlines(value, *(entry.milliseconds_range or [entry.milliseconds] * 2), color=color, linewidth=1)
        style: dict[str, Any] = {"linestyle": dashes, "linewidth": 1.2, "markersize": 5.5, "markerfacecolor": filling}
        axes.plot(times, values, color=color, marker=marker, **style)


def _write_calls(axes: "Axes", line: Sequence[Entry], column: str, sampler: str, color: str, above: bool) -> None:
    """The calls beside the points of a line of several, and the sampler beside the last."""
    offset, anchor = ((4, 2), "bottom") if above else ((4, -2), "top")
    style: dict[str, Any] = {"textcoords": "offset points", "va": anchor, "fontsize": 8.5, "color": color}
    for entry in line:
        if len(line) > 1 and column in entry.numbers:
            text = f"{entry.calls} {sampler}" if entry is line[-1] else str(entry.calls)
            axes.annotate(text, (entry.milliseconds, _ends(entry.numbers[column])[0]), offset, **style)


def _ends(number: Number) -> tuple[float, float, float]:
    """A number's value, and the ends of its interval: a number that is drawn has them."""
    assert number.value is not None and number.low is not None and number.high is not None
    return number.value, number.low, number.high


def _note(entries: Sequence[Entry], ranges: str) -> str:
    """What both must say for themselves: how uncertain their numbers are, and what is not the same for all."""
    copies = _summarize((entry, f"{entry.real[COPIES].value:.3f}") for entry in entries if COPIES in entry.real)
    return (
        f"{ranges}: 95 % intervals over {entries[0].compared['held-out patients']} held-out patients (walls: over "
        "images); of several seeds, their mean and the furthest ends. "
        f"Copies of real patients, among the slices that a model has seen: {copies}. "
        f"Times: {_summarize((entry, entry.measured_on) for entry in entries)}."
    )


def _summarize(facts: Iterable[tuple[Entry, str]]) -> str:
    """The fact that most models share, then the others with their models."""
    models: dict[str, dict[str, None]] = {}
    for entry, fact in facts:
        models.setdefault(fact, {})[f"{entry.family} {entry.recipe}"] = None
    most, *others = sorted(models, key=lambda fact: -len(models[fact]))
    return most + "".join(f"; but of {', '.join(models[fact])}: {fact}" for fact in others)
