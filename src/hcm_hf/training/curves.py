"""The loss curves of a training run."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import read_json_lines, write_bytes


if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LARGEST = sys.float_info.max


def loss_curves(metrics_file: str | Path, figure_file: str | Path) -> None:
    """Plot the losses in a run's metrics.jsonl: in training together, in validation below with the best epoch marked.

    Raises:
        InputError: if the metrics hold no training loss, or are damaged.
    """
    records = read_metrics(Path(metrics_file))
    training = [record for record in records if "validation_loss" not in record]
    validation = [record for record in records if "validation_loss" in record]
    if not training:
        raise InputError(f"{metrics_file} holds no training loss; train for a step or more.")
    buffer = io.BytesIO()
    plot_losses(training, validation).savefig(buffer, dpi=120, format="png")
    write_bytes(figure_file, buffer.getvalue())


def read_metrics(path: Path) -> list[dict]:
    """The records of a run's metrics.jsonl: numbers by name, of which `step` and `epoch` are whole and 1 or more.

    Raises:
        InputError: if it is damaged; names the line.
    """
    records = read_json_lines(path)
    for number, record in enumerate(records, 1):
        numbers = all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in record.values())
        counts = [record.get(name) for name in ("step", "epoch")]
        if not numbers or not all(isinstance(count, int) and count >= 1 for count in counts):
            raise InputError(f"{path}, line {number}, is no record of losses; it is damaged: remove that line.")
    return records


def plot_losses(training: list[dict], validation: list[dict]) -> "Figure":
    """The figure of `loss_curves`, of records with the losses of a step, one or more, and with a validation loss."""
    steps_per_epoch = validation[0]["step"] / validation[0]["epoch"] if validation else 1
    unit = "epoch" if validation else "step"
    figure = new_figure(7, 5.5)
    above, below = figure.subplots(2, 1, sharex=True)
    steps = np.array([record["step"] for record in training]) / steps_per_epoch
    for name in (name for name in _common(training) if name.endswith("_loss")):
        values = np.array([record[name] for record in training])
        line = above.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
        above.plot(*_means(steps, values), color=line.get_color(), label=name.removesuffix("_loss"))
    above.set_ylabel("training loss")
    above.legend()
    if validation:
        steps = np.array([record["step"] for record in validation]) / steps_per_epoch
        values = np.array([record["validation_loss"] for record in validation])
        best = values.argmin()
        label = f"best: {values[best]:.4g} at {unit} {steps[best]:g}"
        for name in (name for name in _common(validation) if name not in ("step", "epoch", "validation_loss")):
            part = np.array([record[name] for record in validation])
            below.plot(steps, part, alpha=0.5, linewidth=0.8, label=name)
        below.plot(steps, values, color="tab:green")
        below.plot(steps[best], values[best], "o", color="tab:red", label=label)
        below.set_yscale("log" if values.max() > 10 * values.min() > 0 else "linear")
        below.legend()
    below.set_ylabel("validation loss (lower is better)")
    below.set_xlabel(unit)
    return figure


def _common(records: list[dict]) -> list[str]:
    """The names that all records have: a later version may have gone on with more of them."""
    return [name for name in records[0] if all(name in record for record in records)]


def _means(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means within whole units of `steps`."""
    units = np.ceil(steps).astype(int)
    names = np.unique(units)
    return names, np.array([values[units == name].mean() for name in names])
