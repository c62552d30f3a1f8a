"""The part of a report on distances in the feature encoder's features, against the held-out slices."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.figures import LABELS, write_precision_recall
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.bootstrap import Number, Resampled, resample_biased
from hcm_hf.metrics.distribution import (
    NeighbourScores,
    frechet_distance,
    neighbour_scores,
    precision_recall_curve,
    principal_components,
    resampled_kernel_distance,
    resampled_neighbour_scores,
)


COMPONENTS = 32  # of the features
SUBSETS = 20  # draws of equally many rows, over which distances that depend on the number of rows are averaged
NAME = "acdc"  # of the features, whatever data in ACDC's layout the encoder was trained on


def feature_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Distances of distributions on the principal components of the held-out slices' features."""
    assert comparison.encoder is not None  # the part is left out without one
    codes, draws = comparison.resamples
    features, encoder_hash = comparison.features, comparison.encoder.features.hash
    components = principal_components(features["real"], COMPONENTS)
    real = components.project(features["real"])
    scale = np.sqrt(np.square(real).mean())  # the reference's variance is 1 on average, whatever the network's units
    real = real / scale
    offered = {
        name: components.project(features[source]) / scale
        for name, source in (("generated", "generated"), ("real", "training"), ("mean_image", "mean_image"))
    }
    generator = comparison.random(7)
    size = min(len(real), *(len(one) for one in offered.values()))
    subset = np.sort(generator.permutation(len(real))[:size])  # all of the held-out slices, unless fewer are offered
    subsets = {
        name: [one[generator.permutation(len(one))[:size]] for _ in range(SUBSETS)] for name, one in offered.items()
    }
    frechet = {name: _frechet(sets, real[subset], codes[subset], draws) for name, sets in subsets.items()}
    rows: Rows = {}
    curves = {}
    for name, one in offered.items():
        about: dict[str, Any] = {"n_real": len(real), "n_patients": draws.shape[1], "encoder": encoder_hash}
        equal = about | {"protocol": "equal_n", "n_generated": size, "n_real": size}
        (ours, all_ours), (theirs, all_theirs) = frechet[name], frechet["real"]
        kernel = resampled_kernel_distance(one, real, codes, draws)
        numbers = {
            "fd": Number.estimate(ours, Resampled(all_ours), (0, np.inf), **equal),
            "relative_fd": Number.estimate(ours / theirs, Resampled(all_ours / all_theirs), (0, np.inf), **equal),
            "kid": Number.estimate(*kernel, (-np.inf, np.inf), protocol="all", n_generated=len(one), **about),
        }
        scores = np.mean([neighbour_scores(some, real[subset]) for some in subsets[name]], axis=0)
        found = [resampled_neighbour_scores(some, real[subset], codes[subset], draws) for some in subsets[name]]
        resampled, left_out = (np.mean(one, axis=0) for one in zip(*found, strict=True))
        for column, label in enumerate(NeighbourScores._fields):
            bounds = (0, np.inf) if label == "density" else (0, 1)
            biased = label == "precision"  # fewer different patients have fewer balls
            ones = Resampled(resampled[:, column], () if biased else (left_out[:, column],))
            numbers[label] = Number.estimate(scores[column], ones, bounds, **equal)
        rows[name] = {f"{label}_{NAME}": value for label, value in numbers.items()}
        curves[LABELS[name]] = precision_recall_curve(subsets[name][0], real[subset], seed=comparison.seed)
    if figures:
        write_precision_recall(curves, figures / f"precision_recall_{NAME}.png")
    return rows


def _frechet(
    subsets: list[np.ndarray], real: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[float, np.ndarray]:
    """The mean distance of the subsets, and that of one subset after the other to each resample of the patients."""
    turns = count()

    def distance(chosen: np.ndarray) -> float:
        turn = next(turns) % SUBSETS
        if len(chosen) <= COMPONENTS:  # of a resample of patients with few slices: it does not count
            return np.nan
        return frechet_distance(subsets[turn], real[chosen])

    everything = np.arange(len(real))
    return float(np.mean([distance(everything) for _ in subsets])), resample_biased(distance, codes, draws).values
