"""What fills the pages: numbers from `docs/results`, tables of them, and references that are made from the code.

MkDocs calls `on_page_markdown` for each page, which is a template of Jinja. A name, file or key that does not exist
ends the build. README.md cannot be a template, as GitHub shows it as it is: there `<!--{{ ... }}-->` stands before
what it gives and `<!---->` behind, a test compares both, and `python docs/pages.py README.md README.es.md` writes it.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import jinja2

import hcm_hf
from hcm_hf import cli
from hcm_hf.data import schema
from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.preparation import PreparationReport
from hcm_hf.evaluation import definitions, report
from hcm_hf.evaluation.tables import brief, markdown_table
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.study.sweep import REAL
from hcm_hf.study.tradeoff import Entry, collect
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.version import SOURCE_URL


DOCS = Path(__file__).resolve().parent
ROOT, RESULTS = DOCS.parent, DOCS / "results"
# Pages whose commands the tests parse with the real command line, but do not run; those of other pages are run.
PARSED_ONLY = {
    "README.md": "installation, and the demo of two minutes",
    "README.es.md": "the same",
    "tutorials/acdc.md": "ACDC, and up to an hour of training",
    "how-to/many-images.md": "several machines, and a model that is trained on ACDC",
    "how-to/score.md": "ACDC, and an encoder that is trained on it",
    "explanation/study.md": "ACDC, and three to four hours",
    "explanation/results.md": "ACDC",
    "explanation/diffusion.md": "ACDC, and an hour of training",
    "explanation/tuning.md": "ACDC",
    "explanation/costs.md": "ACDC, and timings of an idle machine",
    "explanation/usefulness.md": "ACDC, and days of training",
}
# Commands that no test runs, on any page: that they exist is checked.
NEVER_RUN = {
    "make": "installs, trains or builds",
    "pip": "installs",
    "python -m venv": "makes an environment",
    "source": "activates it",
    "accelerate config": "asks questions",
    "hf auth login": "asks for a token",
    "python spaces/": "serves a page until it is stopped; its flags are checked",
    "export": "sets a variable",
}
_NAMES = {"vae": "VAE", "gan": "GAN", "dcgan": "DCGAN", "acgan": "AC-GAN", "infogan": "InfoGAN", "ddpm": "DDPM"}
_MARKED = re.compile(r"<!--\{\{(.+?)\}\}-->(.*?)<!---->", re.DOTALL)


# Numbers.


@cache
def _read(path: str) -> Any:
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def value(path: str, *keys: str | int, digits: int = 2) -> str:
    """Return an entry of a JSON file of `docs/results`: counts with commas, other numbers with as many digits."""
    found = _read(path)
    for key in keys:
        found = found[key]
    if isinstance(found, str):
        return found
    return f"{found:,}" if isinstance(found, int) else f"{found:,.{digits}f}"


def _cell(one: Number | dict | None, digits: int, interval: bool = True) -> str:
    """A number as of a report, or as of its file, for reading; empty where there is none."""
    if one is None:
        return ""
    found = vars(one) if isinstance(one, Number) else one
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None:
        return "too few"
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if interval else "")


def number(folder: str, name: str, row: str = "generated", digits: int = 2, interval: bool = True) -> str:
    """Return a number of the report in a folder of `docs/results`, with its 95 % interval."""
    return _cell(_read(f"{folder}/report.json")["rows"][row][name], digits, interval)


@cache
def entries() -> dict[tuple[str, str, int], Entry]:
    """The scored models of the trade-off, by family, recipe and calls of the network."""
    tuned = RESULTS / "acdc-64-tuned"
    sweeps = [(f"{family}-tuned", tuned / f"{family}-seeds.json") for family in FAMILIES if family != "ddpm"]
    sweeps += [("ddpm-tuned", tuned / "tuned.json")]
    sweeps += [("ddpm-distilled", tuned / f"distilled-{calls}.json") for calls in (4, 2, 1)]
    found = collect([("paper", RESULTS / "acdc-64-paper")], sweeps)
    return {(one.family, one.recipe, one.calls): one for one in found}


def scored(
    family: str, recipe: str, column: str, calls: int | None = None, digits: int = 2, interval: bool = True
) -> str:
    """Return a number of the trade-off: the mean over seeds, with the furthest ends of their 95 % intervals."""
    return _cell(_entry(family, recipe, calls).numbers[column], digits, interval)


def milliseconds(family: str, recipe: str, calls: int | None = None) -> str:
    """Return the time of an image."""
    return brief(_entry(family, recipe, calls).milliseconds)


def _entry(family: str, recipe: str, calls: int | None = None) -> Entry:
    found = [
        one for (*model, number), one in entries().items() if model == [family, recipe] and calls in (None, number)
    ]
    if not found:
        raise KeyError(f"{family}, {recipe}, {calls} calls")
    return max(found, key=lambda one: one.calls)


def seeds(path: str, setting: str, name: str, digits: int = 2, interval: bool = True) -> str:
    """Return a number of a sweep: the mean of its seeds with the lowest and the highest; of one seed its interval."""
    found = _read(path)[setting]["numbers"]
    numbers = [one[name] for one in (found if isinstance(found, list) else [found])]
    values = [one["value"] for one in numbers]
    ends = (min(values), max(values)) if len(values) > 1 else (numbers[0]["low"], numbers[0]["high"])
    return _cell(Number(sum(values) / len(values), *ends), digits, interval)


def real(family: str, recipe: str, column: str, digits: int = 2, interval: bool = True) -> str:
    """Return what real patients have in the place of a model of the trade-off."""
    return _cell(_entry(family, recipe).real[column], digits, interval)


def planted(fault: str, name: str, digits: int = 2) -> str:
    """Return a number of images with a known fault."""
    return value("acdc-64-planted/planted.json", fault, name, "value", digits=digits)


def encoder(name: str) -> str:
    """Return how well the encoder of the published results does on held-out patients."""
    return value("acdc-64-paper/table1.json", "encoder", "quality", name, "value", digits=3)


# Tables.

_WORDS = {
    "en": (["family", "ms per image", "KID", "coverage", "copy rate"], "**real patients**"),
    "es": (["familia", "ms por imagen", "KID", "cobertura", "tasa de copias"], "**pacientes reales**"),
}


def families_table(language: str = "en") -> str:
    """The six families with the recipe `tuned`, and real patients in their place."""
    (head, label), columns = _WORDS[language], {"kid_acdc": 2, "coverage_acdc": 2, "copy_rate": 3}
    lines = [
        [name, milliseconds(family, "tuned"), *_cells(_entry(family, "tuned").numbers, columns)]
        for family, name in _NAMES.items()
    ]
    return markdown_table(head, [*lines, [label, "", *_cells(_entry("vae", "tuned").real, columns)]])


def tradeoff_table() -> str:
    """Every model that has been scored: quality against time."""
    columns = {"kid_acdc": 2, "coverage_acdc": 2, "spectrum_distance": 2, "copy_rate": 3, "thick_share_ed": 2}
    head = ["", "recipe", "calls", "ms per image", "KID", "coverage", "spectrum", "copies", "walls of 15 mm, ED"]
    lines = [
        [_NAMES[one.family], f"`{one.recipe}`", str(one.calls), brief(one.milliseconds), *_cells(one.numbers, columns)]
        for one in entries().values()
    ]
    return markdown_table(head, [*lines, [REAL, "", "", "", *_cells(_entry("vae", "tuned").real, columns)]])


def _cells(numbers: Mapping[str, Number | dict], columns: Mapping[str, int]) -> list[str]:
    """Numbers by the name of their column, with as many digits as that says."""
    return [_cell(numbers.get(name), digits) for name, digits in columns.items()]


_SIMILARITY = {
    "SSIM random": "ssim_random",
    "CC random": "cc_random",
    "MSE random": "mse_random",
    "SSIM best train": "ssim_best_train",
    "SSIM copy gap": "ssim_copy_gap",
}
_DISTRIBUTION = {
    "relative FD": ("relative_fd_acdc", 1),
    "KID": ("kid_acdc", 2),
    "coverage": ("coverage_acdc", 2),
    "spectrum": ("spectrum_distance", 2),
    "washed out or black": ("brightness_outliers", 2),
    "copies": ("copy_rate", 3),
    "walls of 15 mm, ED": ("thick_share_ed", 2),
    "closed ring": ("valid_topology", 2),
}


def study_table(folder: str = "acdc-64-paper") -> str:
    """The study's scores beside the same metrics with their protocol."""
    table, lines = _read(f"{folder}/table1.json"), []
    rows = {_NAMES[name]: one for name, one in table["families"].items()}
    rows |= {REAL: table["rows"]["real"], "the mean training image": table["rows"]["mean_image"]}
    for label, one in rows.items():
        study = one.get("study")
        told = ", ".join(str(study[key]) for key in ("ssim", "cc", "mse")) if study else ""
        cells = _cells(one["numbers"], dict.fromkeys(_SIMILARITY.values(), 3))
        lines.append([label, told, *cells, _cell(one["artefact"], 3)])
    return markdown_table(["", "study: SSIM, CC, MSE", *_SIMILARITY, "*SSIM, wrong range*"], lines)


def distribution_table(folder: str = "acdc-64-paper") -> str:
    """What the study's three metrics do not see."""
    table = _read(f"{folder}/table1.json")
    rows = {_NAMES[name]: one["numbers"] for name, one in table["families"].items()}
    rows[REAL] = table["rows"]["real"]["numbers"]
    head = [f"{label}<br>`{name}`" for label, (name, _) in _DISTRIBUTION.items()]
    lines = [[label, *_cells(numbers, dict(_DISTRIBUTION.values()))] for label, numbers in rows.items()]
    return markdown_table(["", *head], lines)


_PAIRS = {
    "KID": ("kid_acdc", 2),
    "relative FD": ("relative_fd_acdc", 2),
    "coverage": ("coverage_acdc", 2),
    "spectrum": ("spectrum_distance", 2),
    "copies": ("copy_rate", 3),
    "Dice wall": ("mask_dice_myocardium", 3),
    "Dice LV": ("mask_dice_lv", 3),
    "closed ring": ("mask_valid_topology", 2),
    "walls of 15 mm, HCM ED": ("mask_thick_share_hcm_ed", 2),
    "the same, NOR ED": ("mask_thick_share_nor_ed", 2),
}


def sweep_table(*rows: tuple[str, str, str]) -> str:
    """Settings of sweeps: for each the label, the file and the setting."""
    lines = [
        [label, *(seeds(path, setting, name, digits) for name, digits in _PAIRS.values())]
        for label, path, setting in rows
    ]
    return markdown_table(["", *_PAIRS], lines)


def codes_table() -> str:
    """Rank correlations of InfoGAN's codes."""
    columns = ("wall_thickness_ed", "lv_area_ed", "end_diastole", "position", "brightness")
    codes = _read("acdc-64-tuned/infogan-codes/codes.json")["codes"]
    lines = [[name, *_cells(found, dict.fromkeys(columns, 2))] for name, found in codes.items()]
    return markdown_table(["code", *(column.replace("_", " ") for column in columns)], lines)


def walls_table() -> str:
    """What a model draws that is asked for walls."""
    lines = []
    for group, found in _read("acdc-64-pretrained/acgan/walls.json")["groups"].items():
        for by in ("mask", "segmenter"):
            one = found[by]
            lines.append(
                [group, by, _cell(one | {"value": one["r"]}, 2), f"{one['slope']:.2f}", f"{one['error']:.1f}"]
            )
    return markdown_table(["group", "measured in", "r", "slope", "mean error, mm"], lines)


def realism_table() -> str:
    """What the ImageNet features say of the shipped models, each beside real patients."""
    names = {"c2st_auc": 2, "kid_imagenet": 2, "patient_recall": 2, "noise_level": 3, "edge_kurtosis": 1}
    lines = []
    for model, folder in (("hcm-dcgan-64", "dcgan"), ("hcm-acgan-64", "acgan"), ("hcm-ddpm-64", "ddpm")):
        found = _read(f"acdc-64-pretrained/{folder}/report.json")
        on = f"{found['n_heldout_patients']} {found['dataset']['split']} patients"
        for row, label in (("generated", f"`{model}`"), ("real", f"real, {on}")):
            path = f"acdc-64-pretrained/{folder}"
            lines.append([label, *(number(path, name, row, digits) for name, digits in names.items())])
    return markdown_table(["", *names], lines)


# References made from the code.


def commands() -> str:
    """Each command with its help."""
    blocks = []
    for name, command in cli.COMMANDS.items():
        sentence = f"{command.summary[0].upper()}{command.summary[1:]}."
        blocks.append(f"## {name.replace('_', '-')}\n\n{sentence}\n\n```text\n{help_of(name)}\n```")
    return "\n\n".join(blocks)


def help_of(name: str) -> str:
    """What `hcm-hf NAME --help` prints, 100 columns wide and without colours."""
    before, printed = dict(os.environ), io.StringIO()
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.parse(name, ["--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def api() -> str:
    """The public names, for mkdocstrings."""
    return "\n\n".join(f"::: hcm_hf.{hcm_hf._MODULES[name]}.{name}" for name in hcm_hf._MODULES)


def fields_of(*kinds: type) -> str:
    """A table for each dataclass: field, type, meaning as its docstring or the comment beside the field says it."""
    blocks = []
    for kind in kinds:
        said = _attributes(kind) | _comments(kind)
        lines = [
            [
                f"`{one.name}`",
                f"`{_type_name(get_type_hints(kind)[one.name])}`".replace("|", "\\|"),
                said.get(one.name, ""),
            ]
            for one in dataclasses.fields(kind)
        ]
        summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        blocks.append(f"### {kind.__name__}\n\n{summary}\n\n{markdown_table(['field', 'type', 'meaning'], lines)}")
    return "\n\n".join(blocks)


def _type_name(hint: object) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return re.sub(r"[\w.]+\.(\w+)", r"\1", text)


def _attributes(kind: type) -> dict[str, str]:
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _comments(kind: object) -> dict[str, str]:
    found = re.findall(r"^\s+\"?(\w+)\"?: .*?# (.+)$", inspect.getsource(kind), re.MULTILINE)
    return dict(found)


def report_schema() -> str:
    """The classes of `report.json`."""
    return fields_of(report.Report, report.Source, report.Data, Number, report.EncoderInfo, report.Speed)


def preparation_schema() -> str:
    """The class of `preparation.json`."""
    return fields_of(PreparationReport)


def dataset_schema() -> str:
    """The columns of a prepared dataset."""
    said = _comments(schema.features)
    lines = [
        [
            f"`{name}`",
            type(kind).__name__ + (f" {kind.dtype}" if type(kind).__name__ == "Value" else ""),
            said.get(name, ""),
        ]
        for name, kind in schema.features(GROUPS).items()
    ]
    return markdown_table(["column", "type", "meaning"], lines)


def meanings(*which: str) -> str:
    """The definitions of numbers, protocols and rows of a report, or of those named."""
    chosen: dict[str, str] = {}
    for name in which:
        chosen |= {"numbers": definitions.DEFINITIONS, "protocols": definitions.PROTOCOLS, "rows": definitions.ROWS}[
            name
        ]
    return "\n".join(f"- `{name}`: {text}." for name, text in chosen.items())


def cards() -> str:
    """The paragraph on each family and recipe, as its model card has it."""
    from hcm_hf.hub.cards import describe_family

    blocks = []
    for family, found in FAMILIES.items():
        for recipe in found.recipes:
            title, text = describe_family(family, recipe, "HCM", GROUPS)
            blocks.append(f"### {title}: `{family}`, recipe `{recipe}`\n\n{text}")
    return "\n\n".join(blocks)


def parsed_only() -> str:
    """Where commands are not run by the tests, and why."""
    pages = [[f"`{page}`", reason] for page, reason in PARSED_ONLY.items()]
    never = [[f"`{command}`", reason] for command, reason in NEVER_RUN.items()]
    return f"{markdown_table(['page', 'needs'], pages)}\n\n{markdown_table(['command', 'why'], never)}"


# Rendering.

_PUBLIC = (
    *(value, number, scored, real, milliseconds, seeds, planted, encoder),
    *(
        families_table,
        tradeoff_table,
        study_table,
        distribution_table,
        sweep_table,
        codes_table,
        walls_table,
        realism_table,
    ),
    *(commands, api, report_schema, preparation_schema, dataset_schema, meanings, cards, parsed_only),
)
_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
_JINJA.globals |= {one.__name__: one for one in _PUBLIC} | {"REAL": REAL, "SOURCE": f"{SOURCE_URL}/blob/main"}


def render(text: str) -> str:
    """Fill a page.

    Raises:
        KeyError: if a number is not in its file.
        FileNotFoundError: if there is no such file.
        jinja2.UndefinedError: if there is no such function.
    """
    return _JINJA.from_string(text).render()


def fill(text: str) -> str:
    """Write what stands behind each mark of a README anew."""

    def filled(found: re.Match) -> str:
        made = render("{{" + found[1] + "}}")
        made = f"\n{made}\n" if "\n" in made else made
        return f"<!--{{{{{found[1]}}}}}-->{made}<!---->"

    return _MARKED.sub(filled, text)


def unmarked(text: str) -> str:
    """A README without what its marks give."""
    return _MARKED.sub("", text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill a page of the site; what commands wrote stays as it is."""
    return markdown if page.file.src_uri.startswith("results/") else render(markdown)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(fill(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
