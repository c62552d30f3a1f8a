"""What a trained network does on held-out patients, patient by patient: segmentation, and diagnosis of one group."""

from dataclasses import dataclass

import datasets
import numpy as np

from hcm_hf.data.cohort import PHASES
from hcm_hf.data.identity import Identities
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.encoder import Instrument
from hcm_hf.evaluation.extractors import is_installed
from hcm_hf.evaluation.parts.anatomy import CHAMBERS
from hcm_hf.metrics.anatomy import dice, wall_thickness
from hcm_hf.metrics.realism import FOLDS, c2st_auc
from hcm_hf.metrics.surface import hausdorff_95
from hcm_hf.utils.errors import InputError


@dataclass(frozen=True)
class HeldOut:
    """Segmented slices of held-out patients.

    Attributes:
        images: float32 (N, H, W) in [0, 1].
        masks: whole numbers (N, H, W), the indices of `STRUCTURES`.
        patients: (N,).
        phases: (N,), the index in `PHASES`.
        places: (N,), each slice's place in its volume, from 0.
        spacing: (N, 3), mm from slice to slice, and of a pixel, down and across.
        groups: the name of each patient's group.
        identities: who each patient is, by name.
    """

    images: np.ndarray
    masks: np.ndarray
    patients: np.ndarray
    phases: np.ndarray
    places: np.ndarray
    spacing: np.ndarray
    groups: dict[str, str]
    identities: Identities


@dataclass(frozen=True)
class PatientScores:
    """What a network does on one patient.

    Attributes:
        group: the name of the patient's group.
        dice: Dice coefficient of each chamber's volume, the mean of the phases; None where there is no such chamber.
        hd95: 95th percentile of the Hausdorff distance likewise, mm.
        log_odds: of the group of interest against the others, the mean of the slices.
        wall: greatest thickness of the segmented wall at end diastole, mm; 0 where no wall is segmented.
    """

    group: str
    dice: dict[str, float | None]
    hd95: dict[str, float | None]
    log_odds: float
    wall: float


def segmented_rows(split: datasets.Dataset) -> datasets.Dataset:
    """The slices of a split that have a phase and a segmentation."""
    raw = split.cast_column("mask", datasets.Image(decode=False))
    known = [phase is not None and mask is not None for phase, mask in zip(raw["phase"], raw["mask"], strict=True)]
    return split.select(np.flatnonzero(known))


def read_held_out(dataset: datasets.DatasetDict, split: str) -> HeldOut:
    """The segmented slices of a split.

    Raises:
        InputError: if there is no such split, no segmented slice in it, or the distance of slices is not known.
    """
    if split not in dataset:
        raise InputError(f"The dataset has no split '{split}'; choose among {', '.join(dataset)}.")
    rows = segmented_rows(dataset[split])
    if not len(rows):
        raise InputError(f"Split '{split}' has no slice with a segmentation; name another split.")
    if None in rows["slice_thickness"] or None in rows["pixel_spacing"]:
        raise InputError(f"Split '{split}' has slices without slice_thickness or pixel_spacing, which HD95 needs.")
    names = rows.features["group"].names
    slices = Slices(rows, names)
    pixel = rows["pixel_spacing"]
    return HeldOut(
        images=slices.images.numpy().astype(np.float32) / 255,
        masks=slices.masks.numpy(),
        patients=np.array(slices.patients),
        phases=slices.phases.numpy(),
        places=np.array(rows["slice_index"]),
        spacing=np.stack([rows["slice_thickness"], pixel, pixel], axis=1),
        groups={patient: names[group] for patient, group in zip(rows["patient"], rows["group"], strict=True)},
        identities=slices.identities(),
    )


def measure(instrument: Instrument, held_out: HeldOut, target_group: str) -> dict[str, PatientScores]:
    """What a network does on each held-out patient, by name.

    Args:
        instrument: the network.
        held_out: the patients.
        target_group: the group to tell from the others.
    """
    predicted = instrument.predict(held_out.images)
    odds = predicted.log_odds([target_group])
    walls = wall_thickness(predicted.masks, held_out.spacing[:, 1])
    scores = {}
    for patient, group in sorted(held_out.groups.items()):
        own = held_out.patients == patient
        volumes = [own & (held_out.phases == phase) for phase in np.unique(held_out.phases[own])]
        parts = [_compare(held_out, predicted.masks, np.flatnonzero(volume)) for volume in volumes]
        diastolic = walls[own & (held_out.phases == PHASES.index("ED"))]
        scores[patient] = PatientScores(
            group=group,
            dice={chamber: _mean([part[chamber][0] for part in parts]) for chamber in CHAMBERS},
            hd95={chamber: _mean([part[chamber][1] for part in parts]) for chamber in CHAMBERS},
            log_odds=float(odds[own].mean()),
            wall=float(np.nan_to_num(diastolic).max(initial=0.0)),
        )
    return scores


def tell_apart(
    instrument: Instrument, generated: np.ndarray, real: np.ndarray, patients: np.ndarray, seed: int = 0
) -> float | None:
    """How well a classifier on a network's own features tells generated from real slices: `c2st_auc`.

    Args:
        instrument: the network.
        generated: images, (N, H, W) in [0, 1].
        real: images, (M, H, W) in [0, 1].
        patients: whose each real image is, (M,).
        seed: of the choice of as many images of both, and of the classifier's folds.

    Returns:
        About 0.5 where it cannot, 1 where it always can; None without the extra `realism`, or of too few.
    """
    count = min(len(generated), len(real))
    if not is_installed() or count < FOLDS:
        return None
    random = np.random.default_rng((seed, 12))
    rows, others = (np.sort(random.choice(len(one), count, replace=False)) for one in (real, generated))
    if len(np.unique(patients[rows])) < 2:
        return None
    made, taken = (instrument.predict(images).features for images in (generated[others], real[rows]))
    return c2st_auc(made, taken, patients[rows], seed=seed)


def _compare(held_out: HeldOut, predicted: np.ndarray, rows: np.ndarray) -> dict[str, tuple[float, float]]:
    """Dice coefficient and HD95 of each chamber in the volume of some slices, which lie where they belong."""
    places = held_out.places[rows] - held_out.places[rows].min()
    truth, found = (np.zeros((places.max() + 1, *held_out.masks.shape[1:]), int) for _ in range(2))
    truth[places], found[places] = held_out.masks[rows], predicted[rows]
    regions = {chamber: (found == label, truth == label) for label, chamber in enumerate(CHAMBERS, 1)}
    spacing = held_out.spacing[rows[0]]
    return {chamber: (dice(*pair), hausdorff_95(*pair, spacing)) for chamber, pair in regions.items()}


def _mean(values: list[float]) -> float | None:
    """The mean of those that are numbers; None if there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
