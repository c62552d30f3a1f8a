"""Score sets of images with known faults: copies, damaged copies, other diseases, segmentations that do not fit.

They show which fault each number of a report catches, and which it does not.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.comparison import Reference
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import THIRDS, GeneratedImages, GeneratedPairs, RealSlices
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.metrics.realism import HEART_RADIUS
from hcm_hf.utils.files import write_text
from hcm_hf.utils.names import TARGET_GROUP


COLUMNS = (
    *("c2st_auc", "kid_imagenet", "patient_recall", "noise_level_z", "edge_kurtosis_z", "edge_coherence_z"),
    *("brightness_spread", "bright_outside_heart", "spectrum_distance", "brightness_outliers"),
    *("ssim_random", "ssim_copy_gap", "kid_acdc", "fd_acdc", "precision_acdc", "coverage_acdc"),
    *("copy_rate", "authenticity", "thick_share_ed", "valid_topology"),
    *("mask_dice_myocardium", "mask_dice_lv", "mask_valid_topology"),
)
REAL, COPIES = "**real patients**", "copies"


def planted_sets(everyone: RealSlices, group: str = TARGET_GROUP, seed: int = 0) -> dict[str, GeneratedImages]:
    """Sets of images that fail in a known way.

    Args:
        everyone: the training slices of all groups.
        group: the group that the others are offered as.
        seed: of noise and shifts.

    Returns:
        By name: the group's slices with their segmentations; the same with noise, blur (both by their standard
        deviation), more light, a dark chest wall, shifted by a pixel, or with segmentations shifted against them;
        their mean image, shifted by up to two pixels; those of half of the patients; the slices of each other group.
    """
    training, generator = everyone.of_groups([group]), np.random.default_rng(seed)
    images, mean = training.images, training.images.mean(0)
    noise = generator.standard_normal(images.shape, np.float32)
    moved = generator.integers(-2, 3, size=(len(images), 2))
    half = np.isin(training.patients, np.unique(training.patients)[::2])
    segmented = training.masks.min((1, 2)) >= 0

    def pairs(shift: int) -> GeneratedImages:
        masks = [
            np.roll(mask, shift * generator.choice([-1, 1]), axis=generator.integers(2))
            for mask in training.masks[segmented]
        ]
        asked = training.groups[segmented], training.phases[segmented], training.levels[segmented] % THIRDS
        shown = GeneratedPairs(np.array(masks, np.uint8), *asked)
        return GeneratedImages(images[segmented], pairs=shown, patients=training.patients[segmented])

    damaged = {
        "copies, shifted": np.roll(images, 1, axis=2),
        **{f"copies, noise {sigma}": images + sigma * noise for sigma in (0.01, 0.019, 0.1)},
        **{f"copies, blur {sigma} px": gaussian_filter(images, (0, sigma, sigma)) for sigma in (0.5, 0.8, 1)},
        "copies, brighter by .1": images + np.float32(0.1),
        "copies, dark chest wall": images * _darkening(images.shape[1]),
    }
    sets = {"copies": pairs(0) if segmented.any() else GeneratedImages(images, patients=training.patients)}
    for name, one in damaged.items():
        sets[name] = GeneratedImages(one.clip(0, 1).astype(np.float32), patients=training.patients)
    sets["the mean image"] = GeneratedImages(np.stack([np.roll(mean, tuple(shift), axis=(0, 1)) for shift in moved]))
    sets["half of the patients"] = GeneratedImages(images[half], patients=training.patients[half])
    for other in (other for other in np.unique(everyone.groups).tolist() if other != group):
        slices = everyone.of_groups([other])
        sets[f"real {other}"] = GeneratedImages(slices.images, patients=slices.patients)
    if segmented.any():
        sets |= {f"copies, masks shifted by {shift} px": pairs(shift) for shift in (1, 2, 3)}
    return sets


def _darkening(size: int) -> np.ndarray:
    """1 around the heart, falling to .2 within 8 mm of `HEART_RADIUS`: (size, size)."""
    from_centre = np.arange(size) - (size - 1) / 2
    radius = np.hypot(from_centre[:, None], from_centre) * FIELD_OF_VIEW / size
    return np.interp(radius, (HEART_RADIUS - 4, HEART_RADIUS + 4), (1, 0.2)).astype(np.float32)


def score_planted(
    output_dir: str | Path,
    encoder: str | Path,
    dataset: str | Path | None = None,
    split: str = "test",
    target_group: str = TARGET_GROUP,
    seed: int = 0,
) -> Path:
    """Score sets of images whose faults are known: copies, damaged copies, other diseases, masks that do not fit.

    Args:
        output_dir: the folder for planted.md and planted.json.
        encoder: folder of the encoder trained on the dataset.
        dataset: folder of a prepared dataset; by default the synthetic cohort.
        split: the held-out split.
        target_group: the disease of interest, which the sets are scored as.
        seed: seed of the sets and of the evaluation.

    Returns:
        The folder.

    Raises:
        InputError: as `score`.
    """
    splits = load_dataset(dataset)
    group = Vocabulary.of(splits, target_group).target
    reference, loaded = Reference.read(splits, split, [group]), load_encoder(encoder)
    rows, output_dir = {}, Path(output_dir)
    sets = planted_sets(reference.all_training, group, seed)
    for name, images in sets.items():
        print(name, flush=True)
        report = evaluate_images(images, reference, encoder=loaded, seed=seed)
        rows[name] = report.rows["generated"]
        if name == next(iter(sets)):
            real = report.rows["real"]
    below = (
        f"Dataset {report.dataset.fingerprint}, {report.n_train} training slices of "
        f"{report.n_train_patients} patients, {report.n_heldout} held-out slices of "
        f"{report.n_heldout_patients}; feature encoder {loaded.features.hash}, segmenter {loaded.segmenter.hash}, "
        f"seed {seed}, hcm_hf {report.hcm_hf_version}. "
        "In brackets: 95 % interval."
    )
    rows[REAL] = real
    record = {name: {one: row[one] for one in COLUMNS if one in row} for name, row in rows.items()}
    write_text(output_dir / "planted.json", json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "planted.md", render_planted(record, group, below))
    return output_dir


def render_planted(rows: Mapping[str, Mapping[str, Number]], group: str, below: str) -> str:
    """The tables in Markdown.

    Args:
        rows: the numbers of each set, and of real patients last.
        group: the group that the sets are scored as.
        below: a sentence on where they come from.
    """
    columns = [column for column in COLUMNS if column in rows[REAL]]
    caught = {name: [one for one in columns if catches(rows, name, one)] for name in rows}
    lines = [
        [name, *(_marked(row.get(one), one, one in caught[name]) for one in columns)] for name, row in rows.items()
    ]
    blocks = [
        f"# Which number catches which fault, offered as {group}",
        "A number catches a fault where its value lies outside the 95 % interval of real patients and, for copies "
        "that are damaged besides, outside that of undamaged copies too.",
        markdown_table(["fault", "caught by"], [[name, ", ".join(caught[name]) or "nothing"] for name in rows][:-1]),
        "## All numbers",
        "Those that catch the fault are bold.",
        markdown_table(["", *columns], lines),
        below,
    ]
    return "\n\n".join(blocks) + "\n"


def catches(rows: Mapping[str, Mapping[str, Number]], name: str, column: str) -> bool:
    """Whether a number of a set lies outside the intervals of those without its fault.

    An interval without width, of a number that is 1 for real patients by definition, says nothing.
    """
    number = rows[name].get(column)
    sound = [REAL, *([COPIES] if name.startswith(f"{COPIES}, ") else [])]
    if number is None or number.value is None:
        return False
    for one in (rows[other].get(column) for other in sound):
        if one is None or one.low is None or one.high is None or one.low == one.high:
            return False
        if one.low <= number.value <= one.high:
            return False
    return True


def _marked(number: Number | None, column: str, caught: bool) -> str:
    return f"**{cell(number, column)}**" if caught else cell(number, column)
