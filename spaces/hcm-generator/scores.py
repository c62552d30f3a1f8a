"""The scores of a model, of `score.py`'s report: a stranger may have written it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from notes import MOST_BYTES, are_groups, is_count, is_number

from hcm_hf.data.schema import SPLITS
from hcm_hf.evaluation.definitions import GLANCE
from hcm_hf.evaluation.report import REPORT_FILE
from hcm_hf.evaluation.tables import COUNTED, number_table
from hcm_hf.hub.push import METRICS_FILE
from hcm_hf.metrics.bootstrap import Number


ROWS = ("generated", "real", "true_masks", "training", "mean_image")  # of a report
VERSION = re.compile(r"\d+(\.\d+){1,3}\w{0,12}")
# The numbers that the page asks a question for.
ASKED = ("c2st_auc", "noise_level", "patient_recall", "copy_rate", "thick_share_ed", "mask_dice_myocardium")


@dataclass(frozen=True)
class Scores:
    """What a report says at a glance: known names and plain numbers, nothing else that it may hold.

    Attributes:
        table: all of it, in Markdown.
        rows: the numbers of `ROWS`.
    """

    table: str
    rows: Mapping[str, Mapping[str, Number]]

    def pair(self, name: str) -> tuple[float, float | None] | None:
        """A number of the model's images and of other real patients; None where the images have none."""
        number, real = (self.rows.get(row, {}).get(name) for row in ("generated", "real"))
        if number is None or number.value is None:
            return None
        return number.value, None if real is None else real.value


def read_reports(folder: Path | None) -> dict[str, Scores]:
    """The scores in a folder's reports, at any depth, by the hash of the model."""
    found = {}
    for path in () if folder is None else sorted(folder.rglob(REPORT_FILE)):
        report = _read(path)
        generator = report.get("generator")
        if isinstance(generator, dict) and isinstance(generator.get("model_hash"), str):
            found[generator["model_hash"]] = _scores(report)
    return {model: scores for model, scores in found.items() if scores}


def read_scores(extras: Path) -> Scores | None:
    """The scores of a repository's report, if there is one."""
    return _scores(_read(extras / METRICS_FILE))


def _read(path: Path) -> dict:
    """An object in JSON; empty if there is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _scores(report: Mapping) -> Scores | None:
    rows = report.get("rows")
    rows = {row: _numbers(rows.get(row)) for row in ROWS} if isinstance(rows, dict) else {}
    names = [name for name in GLANCE if name in rows.get("generated", {})]
    if not names:
        return None
    table = number_table({row: numbers for row, numbers in rows.items() if numbers}, names)
    data, version = report.get("dataset"), report.get("hcm_hf_version")
    counts = [report.get(name) for name in ("n_generated", "n_heldout", "n_heldout_patients", "seed")]
    known = isinstance(data, dict) and data.get("split") in SPLITS and are_groups(data.get("groups"))
    known = known and isinstance(version, str) and VERSION.fullmatch(version)
    if known and all(map(is_count, counts)):
        generated, heldout, patients, seed = counts
        table += (
            f"\n\n{generated} / {heldout} ({patients} patients, split {data['split']}, "
            f"{', '.join(data['groups'])}), seed {seed}, hcm_hf {version}"
        )
    return Scores(table, rows)


def _numbers(row: object) -> dict[str, Number]:
    """The numbers of a report's row that are numbers, by names that this package gives."""
    found = {}
    for name in GLANCE if isinstance(row, dict) else ():
        number = row.get(name)
        if not isinstance(number, dict):
            continue
        values = [number.get(key) for key in ("value", "low", "high")]
        count = number.get("n_generated")
        if all(map(is_number, values)):
            counted = number.get("protocol") in COUNTED and is_count(count)
            found[name] = Number(*values, number["protocol"], count) if counted else Number(*values)
        elif "value" in number and number["value"] is None:
            found[name] = Number.unknown()  # too few
    return found
