"""The part of a report on generated segmentations: whether they fit their images, and show what was asked for.

Real slices are those of the groups, phases and thirds of the heart that were asked for, with their true segmentations.
Thirds that are left open are drawn as they are met in training, so that both sides have base and apex alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from hcm_hf.data.cohort import PHASES
from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.encoder import Instrument, Predictions
from hcm_hf.evaluation.figures import write_thickness_histograms
from hcm_hf.evaluation.images import THIRDS, GeneratedImages, GeneratedPairs, RealSlices
from hcm_hf.evaluation.parts.anatomy import CHAMBERS
from hcm_hf.evaluation.report import Rows
from hcm_hf.metrics.anatomy import exceeds_threshold, valid_topology, wall_thickness
from hcm_hf.metrics.bootstrap import Number, bootstrap_draws, ratio_over_pairs, resample_biased
from hcm_hf.utils.errors import InputError


@dataclass(frozen=True)
class _Segmented:
    """Slices with segmentations, generated or real.

    Attributes:
        masks: labels, (N, H, W).
        groups: what each was asked to show or does show, (N,), names; empty where that is not known.
        phases: likewise, the index in `PHASES`; -1 where that is not known.
        pixel_spacing: mm.
        patients: of real slices, (N,), which their intervals resample; None for generated ones, which are resampled.
        predictions: the segmenter's for the images; None without one.
    """

    masks: np.ndarray
    groups: np.ndarray
    phases: np.ndarray
    pixel_spacing: float
    patients: np.ndarray | None = None
    predictions: Predictions | None = None

    @cached_property
    def walls(self) -> np.ndarray:
        """Thickness, (N,), mm; not a number where there is no wall."""
        return wall_thickness(self.masks, self.pixel_spacing)

    @cached_property
    def predicted_walls(self) -> np.ndarray:
        """The same by the segmenter's masks."""
        assert self.predictions is not None  # without a segmenter nobody asks
        return wall_thickness(self.predictions.masks, self.pixel_spacing)

    def show(self, group: str, phase: str) -> np.ndarray:
        """Which slices are of a group and phase, bool (N,)."""
        return (self.groups == group) & (self.phases == PHASES.index(phase))


def asked_groups(pairs: GeneratedPairs) -> list[str]:
    """The groups that generated images were asked to show, sorted."""
    return np.unique(pairs.groups[pairs.groups != ""]).tolist()


def check_pairs(generated: GeneratedImages, splits: dict[str, RealSlices]) -> None:
    """Refuse segmentations that are not those of the images, or for which there is nothing to compare with.

    Args:
        generated: images with their segmentations.
        splits: slices of all groups by the split's name.

    Raises:
        InputError: if the sizes differ, or a split has no segmented slices like those that were asked for.
    """
    images, pairs = generated.images, generated.pairs
    assert pairs is not None  # of images without segmentations nothing is checked
    if pairs.masks.shape != images.shape:
        raise InputError(f"masks have shape {pairs.masks.shape} and images {images.shape}; give each image its mask.")
    for split, slices in splits.items():
        kept = _like_those_asked_for(pairs, slices)
        missing = [group for group in asked_groups(pairs) if group not in slices.groups[kept]]
        if missing or not kept.any():
            raise InputError(
                f"Split '{split}' has no segmented slices like those that images were asked to show "
                f"({', '.join(missing) or 'of any group'}); name the `dataset` of their model, or another `split`."
            )


def mask_rows(comparison: Comparison, figures: Path | None = None) -> Rows:
    """How well segmentations fit their images, whether their walls are those of the group, and their shape.

    Dice coefficients are of the segmentation and the segmenter's of the same image, over the pixels of all slices at
    once, so that slices without a structure need no rule of their own. What needs it is left out without one.

    Args:
        comparison: what is compared; it has pairs.
        figures: gets `mask_thickness_hcm.png` and so on, one for each group.

    Returns:
        The rows `generated` and `real`, which has held-out slices with their true segmentations. Its wall distances
        are those of training slices, since they compare other patients with the held-out ones.
    """
    pairs, spacing = comparison.generated.pairs, comparison.pixel_spacing
    assert pairs is not None  # the part is left out without them
    segmenter = None if comparison.encoder is None else comparison.encoder.segmenter
    predictions = None if segmenter is None else comparison.predictions["generated"]
    generated = _Segmented(pairs.masks, pairs.groups, pairs.phases, spacing, predictions=predictions)
    training = _real(comparison.reference.all_training, pairs, spacing)
    heldout = _real(comparison.reference.all_heldout, pairs, spacing, segmenter)
    assert heldout.patients is not None  # real slices have them
    groups = asked_groups(pairs)
    rows: Rows = {}
    for stream, (name, one, compared) in enumerate((("generated", generated, generated), ("real", heldout, training))):
        random = comparison.random(11, stream)
        rows[name] = dict(_of_all(one, segmenter, random))
        for group in groups:
            if segmenter is not None and comparison.told_groups:
                rows[name] |= _told(group, one, segmenter, random)
            rows[name] |= _of_group(group, one, segmenter, random)
            for phase in PHASES:
                walls, real = (side.walls[side.show(group, phase)] for side in (compared, heldout))
                patients = heldout.patients[heldout.show(group, phase)]
                rows[name][_called("mask_wall_distance", group, phase)] = _distance(walls, real, patients, random)
    if figures:
        drawn = {
            "generated masks": generated,
            "real held-out, true masks": heldout,
            "real training, true masks": training,
        }
        for group in groups:
            thickness = {
                f"{group} {phase}": {label: one.walls[one.show(group, phase)] for label, one in drawn.items()}
                for phase in PHASES
            }
            write_thickness_histograms(thickness, figures / f"{_called('mask_thickness', group)}.png")
    return rows


def _like_those_asked_for(pairs: GeneratedPairs, slices: RealSlices) -> np.ndarray:
    """Which real slices are of the groups, phases and thirds that were asked for, and segmented: bool (N,)."""
    kept = slices.masks.min((1, 2)) >= 0
    if groups := asked_groups(pairs):
        kept &= np.isin(slices.groups, groups)
    for asked, own in ((pairs.phases, slices.phases), (pairs.thirds, slices.levels % THIRDS)):
        if (asked >= 0).any():
            kept &= np.isin(own, asked[asked >= 0])
    return kept


def _real(
    slices: RealSlices, pairs: GeneratedPairs, pixel_spacing: float, segmenter: Instrument | None = None
) -> _Segmented:
    """Real slices like those asked for, with their true segmentations."""
    kept = _like_those_asked_for(pairs, slices)
    return _Segmented(
        slices.masks[kept],
        slices.groups[kept],
        slices.phases[kept],
        pixel_spacing,
        slices.patients[kept],
        None if segmenter is None else segmenter.predict(slices.images[kept]),
    )


def _of_all(
    one: _Segmented, segmenter: Instrument | None, random: np.random.Generator
) -> Iterator[tuple[str, Number]]:
    """Yield name and number of what is measured in all slices of a row."""
    everywhere = np.ones(len(one.masks), bool)
    if segmenter is not None:
        assert one.predictions is not None
        for label, chamber in enumerate(CHAMBERS, 1):
            own, predicted = one.masks == label, one.predictions.masks == label
            both, sizes = 2 * (own & predicted).sum((1, 2)), own.sum((1, 2)) + predicted.sum((1, 2))
            yield f"mask_dice_{chamber}", _mean(one, everywhere, both, random, sizes=sizes, encoder=segmenter.hash)
    yield "mask_valid_topology", _mean(one, everywhere, valid_topology(one.masks), random)
    yield "mask_empty", _mean(one, everywhere, (one.masks == 0).all((1, 2)), random)


def _told(group: str, one: _Segmented, segmenter: Instrument, random: np.random.Generator) -> dict[str, Number]:
    """How often the segmenter takes slices of a group for what they are, by the number's name."""
    assert one.predictions is not None
    likeliest = np.array(segmenter.group_names)[one.predictions.group_log_probabilities.argmax(1)]
    mean = _mean(one, one.groups == group, likeliest == group, random, encoder=segmenter.hash)
    return {_called("asked_group_share", group): mean}


def _of_group(
    group: str, one: _Segmented, segmenter: Instrument | None, random: np.random.Generator
) -> Iterator[tuple[str, Number]]:
    """Yield name and number of what is measured in the slices of a group, of each phase apart."""
    for phase in PHASES:
        shown, walls = one.show(group, phase), one.walls
        measured = shown & np.isfinite(walls)
        yield _called("mask_wall_thickness", group, phase), _mean(one, measured, walls, random, (0, np.inf))
        yield _called("mask_thick_share", group, phase), _mean(one, measured, exceeds_threshold(walls), random)
        if segmenter is not None:
            measured, thick = shown & np.isfinite(one.predicted_walls), exceeds_threshold(one.predicted_walls)
            mean = _mean(one, measured, thick, random, encoder=segmenter.hash)
            yield _called("seen_thick_share", group, phase), mean


def _mean(
    one: _Segmented,
    kept: np.ndarray,
    values: np.ndarray,
    random: np.random.Generator,
    bounds: tuple[float, float] = (0, 1),
    sizes: np.ndarray | None = None,
    **counts: str,
) -> Number:
    """Sum of the values of some slices over that of their sizes, each 1 unless given, with its interval."""
    generated = one.patients is None
    owners = (np.arange(len(kept)) if one.patients is None else one.patients)[kept]
    number_of: dict[str, Any] = {
        "protocol": "asked",
        "n_generated": len(owners),
        "n_real": 0 if generated else len(owners),
        "n_patients": 0 if generated else len(np.unique(owners)),
    } | counts
    if not kept.any():
        return Number.unknown(**number_of)
    sizes = np.ones(len(kept)) if sizes is None else sizes
    ratios = ratio_over_pairs(values[kept], sizes[kept], *bootstrap_draws(owners, random))
    return Number.estimate(*ratios, bounds, **number_of)


def _distance(walls: np.ndarray, real: np.ndarray, patients: np.ndarray, random: np.random.Generator) -> Number:
    """1-Wasserstein distance of measured walls, (N,), from real ones, (M,); its interval is over their patients."""
    walls, real, patients = walls[np.isfinite(walls)], real[np.isfinite(real)], patients[np.isfinite(real)]
    counts: dict[str, Any] = {
        "protocol": "asked",
        "n_generated": len(walls),
        "n_real": len(real),
        "n_patients": len(np.unique(patients)),
    }
    if not (len(walls) and len(real)):
        return Number.unknown(**counts)
    codes, draws = bootstrap_draws(patients, random)
    resampled = resample_biased(lambda rows: wasserstein_distance(walls, real[rows]), codes, draws)
    return Number.estimate(wasserstein_distance(walls, real), resampled, (0, np.inf), **counts)


def _called(name: str, *shown: str) -> str:
    return "_".join((name, *shown)).lower()
