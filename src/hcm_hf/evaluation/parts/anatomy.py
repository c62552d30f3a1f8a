"""The part of a report on anatomy: walls, areas and topology of slices as the segmenter sees them."""

from pathlib import Path
from typing import Any

import numpy as np

from hcm_hf.data.cohort import PHASES
from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.figures import LABELS, write_thickness_histograms
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.anatomy import chamber_areas, exceeds_threshold, valid_topology, wall_thickness
from hcm_hf.metrics.bootstrap import Number, bootstrap_draws, mean_over_images, mean_over_pairs


CHAMBERS = ("rv", "myocardium", "lv")  # the mask's labels 1 to 3
_SHARES = ("thick_share_ed", "thick_share_es", "valid_topology", "ed_share", "group_share")


def anatomy_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """What the segmenter's masks measure, apart for the phases, and what real masks measure.

    The phase is the one that was asked for or, of real slices, the true one; the segmenter's where none is known. Real
    rows resample patients, the others images. The row `training` offers the training slices of the same groups,
    `true_masks` the held-out slices that the dataset has segmentations of, with these and their phases.
    """
    assert comparison.encoder is not None  # the part is left out without one
    heldout, predictions = comparison.reference.heldout, comparison.predictions
    segmented = heldout.masks.min((1, 2)) >= 0
    patients = {
        "real": heldout.patients,
        "training": comparison.reference.training.patients,
        "true_masks": heldout.patients[segmented],
    }
    thickness: dict[str, dict[str, np.ndarray]] = {phase: {} for phase in PHASES}
    rows: Rows = {}
    for stream, name in enumerate(("generated", "real", "training", "true_masks", "mean_image")):
        truly = name == "true_masks"
        if truly and not segmented.any():
            continue
        masks = heldout.masks[segmented] if truly else predictions[name].masks
        phases = heldout.phases[segmented] if truly else comparison.phases[name]
        walls = wall_thickness(masks, comparison.pixel_spacing)
        areas = chamber_areas(masks, comparison.pixel_spacing)
        values = {}
        for index, phase in enumerate(PHASES):
            shown = np.where(phases == index, 1.0, np.nan)
            if name in LABELS and name != "mean_image":
                thickness[phase][LABELS[name]] = walls[phases == index]
            values[f"wall_thickness_{phase.lower()}"] = walls * shown
            values[f"thick_share_{phase.lower()}"] = exceeds_threshold(walls) * shown
            for column, chamber in enumerate(CHAMBERS):
                values[f"{chamber}_area_{phase.lower()}"] = areas[:, column] * shown
        values["valid_topology"] = valid_topology(masks).astype(float)
        taken_for = phases if truly else predictions[name].phases
        values["ed_share"] = (taken_for == PHASES.index("ED")).astype(float)
        if not truly and comparison.told_groups:
            values["group_share"] = (predictions[name].log_odds(comparison.reference.groups) > 0).astype(float)
        generator = comparison.random(10, stream)
        rows[name] = {
            label: _mean(label, value, patients.get(name), generator, comparison.encoder.segmenter.hash)
            for label, value in values.items()
        }
    if figures:
        write_thickness_histograms(thickness, figures / "thickness.png")
    return rows


def _mean(
    label: str, values: np.ndarray, patients: np.ndarray | None, generator: np.random.Generator, encoder: str
) -> Number:
    """Mean of the known values with its interval over patients or, for generated images, over images."""
    known = np.isfinite(values)
    about: dict[str, Any] = {
        "protocol": "segmented",
        "n_generated": int(known.sum()),
        "n_real": 0 if patients is None else int(known.sum()),
        "n_patients": 0 if patients is None else len(np.unique(patients[known])),
        "encoder": encoder,
    }
    bounds = (0, 1) if label in _SHARES else (0, np.inf)
    if not known.any():
        return Number.unknown(**about)
    if patients is None:
        return Number.estimate(*mean_over_images(values[known], generator), bounds, **about)
    means = mean_over_pairs(values[known], *bootstrap_draws(patients[known], generator))
    return Number.estimate(*means, bounds, **about)
