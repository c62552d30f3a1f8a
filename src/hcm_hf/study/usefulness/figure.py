"""The figure of an experiment: the gain over classical augmentation against the number of training patients."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hcm_hf.study.usefulness.arms import ARMS
from hcm_hf.study.usefulness.plan import NO_GENERATOR, PRIMARY_MEASURE, Plan
from hcm_hf.study.usefulness.tables import MEASURES, Row
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import write_bytes


FIGURE_FILE = "gain.png"


def draw_gain(plan: Plan, rows: Sequence[Row], output_dir: Path) -> None:
    """Draw `gain.png`: a panel for each generator, with a line for each arm; arms of real slices are in all of them.

    Args:
        plan: the plan.
        rows: of the tables; those without a difference are left out.
        output_dir: the folder.
    """
    figure = new_figure(6 * len(plan.generators), 4.5)
    panels = figure.subplots(1, len(plan.generators), sharey=True, squeeze=False)[0]
    for panel, generator in zip(panels, plan.generators, strict=True):
        for index, arm in enumerate(plan.arms):
            line = [row for row in rows if row.arm == arm and row.generator in (generator.title, NO_GENERATOR)]
            known = [row for row in line if row.differences and row.differences[PRIMARY_MEASURE].value is not None]
            if known:
                numbers = [row.differences[PRIMARY_MEASURE] for row in known]
                low, values, high = np.array([[one.low, one.value, one.high] for one in numbers], float).T
                # A little apart, so that intervals do not hide each other.
                places = np.array([row.patients for row in known]) * 1.015 ** (index - len(plan.arms) / 2)
                style = "-" if ARMS[arm].is_synthetic else ":"
                reach = np.abs([values - low, high - values])
                panel.errorbar(places, values, reach, label=ARMS[arm].title, linestyle=style, marker="o", capsize=2)
        panel.axhline(0, color="black", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xticks(plan.patients, [str(number) for number in plan.patients])
        panel.minorticks_off()
        panel.set_xlabel("training patients")
        panel.set_title(generator.title)
        panel.legend(fontsize="x-small")
    panels[0].set_ylabel(f"{MEASURES[PRIMARY_MEASURE].title}: difference from classical augmentation")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write_bytes(output_dir / FIGURE_FILE, buffer.getvalue())
