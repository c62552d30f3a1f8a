"""The part of a report on realism: what a fixed classifier can tell, and the finest texture, against held-out slices.

Its features are of a network that has seen natural images only, and that no generator was trained with.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.extractors import is_installed
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.bootstrap import Number, Resampled, bootstrap_draws, mean_over_pairs, resample, resample_biased
from hcm_hf.metrics.distribution import resampled_kernel_distance
from hcm_hf.metrics.realism import (
    FOLDS,
    bright_outside_heart,
    brightness_spread,
    edge_coherence,
    edge_kurtosis,
    noise_level,
    reached_patients,
    two_sample_test,
    z_between_patients,
)


SUBSETS = 5  # draws of equally many images, over which what depends on their number is averaged
TEXTURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise_level": noise_level,
    "edge_kurtosis": edge_kurtosis,
    "edge_coherence": edge_coherence,
}


def realism_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """The numbers on ImageNet features, where the extra `realism` is installed, and texture and brightness.

    In the row `real` the former are of the training slices, the latter of the held-out ones themselves.
    """
    heldout = comparison.reference.heldout.images
    rows: Rows = {}
    for stream, (name, images) in enumerate(comparison.against_heldout.items()):
        if name == "real":
            texture = _texture(comparison, heldout, *comparison.resamples, comparison.counts(heldout))
        else:
            images_as_patients = bootstrap_draws(np.arange(len(images)), comparison.random(12, stream))
            about = {"n_generated": len(images), "n_real": 0, "n_patients": 0}
            texture = _texture(comparison, images, *images_as_patients, about)
        rows[name] = (_on_features(comparison, name) if is_installed() else {}) | texture
    return rows


def _on_features(comparison: Comparison, name: str) -> dict[str, Number]:
    """How a row's images compare with the held-out slices; the classifier gets equally many of both."""
    heldout, features = comparison.reference.heldout, comparison.imagenet_features
    codes, draws = comparison.resamples
    offered, real = features[name], features["heldout"]
    whose = {"real": comparison.reference.training.patients, "generated": comparison.generated.patients}
    owners = whose.get(name)
    generator = comparison.random(13)
    size, count = min(len(offered), len(real)), draws.shape[1]
    distance = resampled_kernel_distance(offered, real, codes, draws)
    numbers = {"kid_imagenet": Number.estimate(*distance, (-np.inf, np.inf), **comparison.counts(offered))}
    equal: dict[str, Any] = {"protocol": "equal_n", "n_generated": size, "n_real": size, "n_patients": count}
    if count < 2 or size < FOLDS:
        return {"c2st_auc": Number.unknown(**equal), "patient_recall": Number.unknown(**equal)} | numbers
    tests, reached = [], []
    for turn in range(SUBSETS):
        ours, theirs = (np.sort(generator.permutation(len(one))[:size]) for one in (offered, real))
        reached.append(reached_patients(offered[ours], real, heldout.patients))
        if len(np.unique(codes[theirs])) > 1:  # a few of the slices may be of one patient
            known = None if owners is None else owners[ours]
            tests.append((theirs, two_sample_test(offered[ours], real[theirs], heldout.patients[theirs], known, turn)))
    numbers["c2st_auc"] = Number.unknown(**equal)
    if tests:
        theirs, test = tests[0]
        area = float(np.mean([one.auc() for _, one in tests]))
        areas = resample_biased(test.auc, codes[theirs], draws)  # of one of the tests whose mean is the value
        numbers["c2st_auc"] = Number.estimate(area, areas, (0, 1), **equal)
    recall = mean_over_pairs(np.mean(reached, axis=0), np.arange(count), draws)
    return numbers | {"patient_recall": Number.estimate(*recall, (0, 1), **equal)}


def _texture(
    comparison: Comparison, images: np.ndarray, codes: np.ndarray, draws: np.ndarray, about: dict[str, Any]
) -> dict[str, Number]:
    """Texture and brightness of images, and how far each lies from real patients'.

    Args:
        comparison: with the real slices of both splits: a few held-out patients say little of how much they differ.
        images: (N, H, W).
        codes: what each image is of, for the interval: its patient, or itself.
        draws: resamples of these.
        about: what the numbers say of the images.
    """
    about = about | {"protocol": "texture"}
    everyone, patients = comparison.both_splits
    numbers: dict[str, Number] = {}
    for label, measure in TEXTURES.items():
        values, real = measure(images), measure(everyone)
        ours, theirs = np.isfinite(values), np.isfinite(real)  # those of constant images are not
        numbers |= {label: Number.unknown(**about), f"{label}_z": Number.unknown(**about)}
        if ours.any() and len(np.unique(patients[theirs])) > 1:
            mean, means = mean_over_pairs(values[ours], codes[ours], draws)
            numbers[label] = Number.estimate(mean, means, (-np.inf, np.inf), **about)
            z, *zs = (
                z_between_patients(one, real[theirs], patients[theirs])
                for one in (np.array(mean), means.values, *means.left_out)
            )
            resampled = Resampled(zs[0], tuple(zs[1:]))
            numbers[f"{label}_z"] = Number.estimate(float(z), resampled, (-np.inf, np.inf), **about)
    brightness = images.mean((1, 2), dtype=np.float64)
    spread = resample(lambda chosen: float(brightness[chosen].std()), codes, draws)
    outside = bright_outside_heart(images, comparison.pixel_spacing)
    return numbers | {
        "brightness_spread": Number.estimate(brightness_spread(images), spread, (0, 1), **about),
        "bright_outside_heart": Number.estimate(*mean_over_pairs(outside, codes, draws), (0, 1), **about),
    }
