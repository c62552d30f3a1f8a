"""The part of a report on power spectra and brightness, against the held-out slices."""

from pathlib import Path

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.figures import write_spectra
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.bootstrap import Number, resample_biased
from hcm_hf.metrics.spectrum import brightness_outliers, log_radial_spectra, spectrum_distance


def appearance_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Power spectrum and brightness, against the held-out slices."""
    heldout = comparison.reference.heldout.images
    spectra = {name: log_radial_spectra(images) for name, images in comparison.against_heldout.items()}
    real = log_radial_spectra(heldout)
    rows: Rows = {}
    for name, images in comparison.against_heldout.items():
        measured = {
            "spectrum_distance": (spectrum_distance, spectra[name].mean(0, keepdims=True), real, (0, np.inf)),
            "brightness_outliers": (brightness_outliers, images.mean((1, 2)), heldout.mean((1, 2)), (0, 1)),
        }
        rows[name] = {}
        for label, (metric, ours, theirs, bounds) in measured.items():
            resampled = resample_biased(lambda chosen: metric(ours, theirs[chosen]), *comparison.resamples)  # noqa: B023
            rows[name][label] = Number.estimate(metric(ours, theirs), resampled, bounds, **comparison.counts(images))
    if figures:
        write_spectra(
            {"generated": spectra["generated"], "real held-out": real, "mean image": spectra["mean_image"]},
            comparison.pixel_spacing,
            figures / "spectra.png",
        )
    return rows
