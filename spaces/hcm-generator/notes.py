"""What lies beside a model's weights, of a run and a report: a stranger may have written it."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hcm_hf.data.schema import SPLITS
from hcm_hf.data.vocabulary import is_word
from hcm_hf.evaluation.definitions import GLANCE
from hcm_hf.evaluation.report import REPORT_FILE
from hcm_hf.evaluation.tables import COUNTED, number_table
from hcm_hf.hub.push import METRICS_FILE
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.pipelines.auto import read_training
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.training.run import LOSS_FIGURE
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import TARGET_GROUP


MOST_BYTES = 8 * 2**20  # of one file
MOST_FIGURE_PIXELS = 2**24
LARGEST_NUMBER = 1e9
MOST_GROUPS = 30  # that a model may know, each by a name of its own
ROWS = ("generated", "real", "true_masks", "training", "mean_image")  # of a report
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9._-]{1,96}")
VERSION = re.compile(r"\d+(\.\d+){1,3}\w{0,12}")
RECIPES = {recipe for family in FAMILIES.values() for recipe in family.recipes}


@dataclass(frozen=True)
class Notes:
    """What a model's run says of itself, as far as it makes sense.

    Attributes:
        family: a name of a family.
        recipe: a name of a recipe.
        resolution: pixels a side.
        groups: the groups of patients that the model was trained on.
        dataset: the folder of the dataset, where the run lies on this machine.
        repository: the dataset's repository.
    """

    family: str | None = None
    recipe: str | None = None
    resolution: int | None = None
    groups: tuple[str, ...] = (TARGET_GROUP,)
    dataset: str | None = None
    repository: str | None = None


def read_notes(folder: Path, local: bool) -> Notes:
    """What the run of a saved pipeline says of itself.

    Args:
        folder: of the pipeline.
        local: whether the run lies on this machine; a repository may name no folder here.

    Raises:
        InputError: if that is damaged.
    """
    try:
        training = read_training(folder)
    except (ValueError, RecursionError):
        training = None
    if not isinstance(training, dict):
        raise InputError("its training_config.json is damaged; copy it again.")
    names = ("family", "recipe", "resolution", "groups", "dataset", "dataset_repository")
    family, recipe, resolution, groups, dataset, repository = (training.get(name) for name in names)
    return Notes(
        family if isinstance(family, str) and family in FAMILIES else None,
        recipe if isinstance(recipe, str) and recipe in RECIPES else None,
        resolution if _is_count(resolution) else None,
        tuple(groups) if groups and _are_groups(groups) else Notes.groups,
        dataset if local and isinstance(dataset, str) else None,
        repository if isinstance(repository, str) and REPOSITORY.fullmatch(repository) else None,
    )


def read_losses(extras: Path) -> Path | None:
    """The figure of a run's losses, if it is one that a browser can show."""
    path = extras / LOSS_FIGURE
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        with Image.open(path, formats=("PNG",)) as figure:
            return path if math.prod(figure.size) <= MOST_FIGURE_PIXELS else None
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def read_reports(folder: Path | None) -> dict[str, str]:
    """Tables of the reports in a folder, at any depth, by the hash of the model."""
    found = {}
    for path in () if folder is None else sorted(folder.rglob(REPORT_FILE)):
        report = _read(path)
        generator = report.get("generator")
        if isinstance(generator, dict) and isinstance(generator.get("model_hash"), str):
            found[generator["model_hash"]] = _tabulate(report)
    return {model: table for model, table in found.items() if table}


def read_table(extras: Path) -> str | None:
    """A table of a repository's report, if there is one."""
    return _tabulate(_read(extras / METRICS_FILE))


def _read(path: Path) -> dict:
    """An object in JSON; empty if there is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tabulate(report: Mapping) -> str | None:
    """What a report says at a glance, in Markdown: known names and plain numbers, nothing else that it may hold."""
    rows = report.get("rows")
    rows = {row: _numbers(rows.get(row)) for row in ROWS} if isinstance(rows, dict) else {}
    names = [name for name in GLANCE if name in rows.get("generated", {})]
    if not names:
        return None
    table = number_table({row: numbers for row, numbers in rows.items() if numbers}, names)
    data, version = report.get("dataset"), report.get("hcm_hf_version")
    counts = [report.get(name) for name in ("n_generated", "n_heldout", "n_heldout_patients", "seed")]
    known = isinstance(data, dict) and data.get("split") in SPLITS and _are_groups(data.get("groups"))
    known = known and isinstance(version, str) and VERSION.fullmatch(version)
    if not known or not all(map(_is_count, counts)):
        return table
    generated, heldout, patients, seed = counts
    return (
        f"{table}\n\n{generated} / {heldout} ({patients} patients, split {data['split']}, "
        f"{', '.join(data['groups'])}), seed {seed}, hcm_hf {version}"
    )


def _numbers(row: object) -> dict[str, Number]:
    """The numbers of a report's row that are numbers, by names that this package gives."""
    found = {}
    for name in GLANCE if isinstance(row, dict) else ():
        number = row.get(name)
        if not isinstance(number, dict):
            continue
        values = [number.get(key) for key in ("value", "low", "high")]
        count = number.get("n_generated")
        if all(map(_is_number, values)):
            counted = number.get("protocol") in COUNTED and _is_count(count)
            found[name] = Number(*values, number["protocol"], count) if counted else Number(*values)
        elif "value" in number and number["value"] is None:
            found[name] = Number.unknown()  # too few
    return found


def _are_groups(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_GROUPS and all(map(is_word, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0
