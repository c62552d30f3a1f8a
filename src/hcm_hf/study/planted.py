"""Score sets of images with known faults: copies, damaged copies, other diseases, segmentations that do not fit.

They show which fault each number of a report catches, and which it does not.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.comparison import Reference
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import THIRDS, GeneratedImages, GeneratedPairs, RealSlices
from hcm_hf.evaluation.report import plain
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.metrics.realism import HEART_RADIUS
from hcm_hf.utils.files import write_text


COLUMNS = (
    *("c2st_auc", "kid_imagenet", "patient_recall", "noise_level_z", "edge_kurtosis_z", "edge_coherence_z"),
    *("brightness_spread", "bright_outside_heart", "spectrum_distance", "brightness_outliers"),
    *("ssim_random", "ssim_copy_gap", "kid_acdc", "relative_fd_acdc", "precision_acdc", "coverage_acdc"),
    *("copy_rate", "authenticity", "thick_share_ed", "valid_topology"),
    *("mask_dice_myocardium", "mask_dice_lv", "mask_valid_topology"),
)
REAL = "**real patients**"


def planted_sets(everyone: RealSlices, group: str = "HCM", seed: int = 0) -> dict[str, GeneratedImages]:
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
    for other in (other for other in GROUPS if other != group and GROUPS.index(other) in everyone.groups):
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
    group: str = "HCM",
    seed: int = 0,
) -> Path:
    """Score sets of images whose faults are known: copies, damaged copies, other diseases, masks that do not fit.

    Args:
        output_dir: the folder for planted.md and planted.json.
        encoder: folder of the encoder trained on the dataset.
        dataset: folder of a prepared dataset; by default the synthetic cohort.
        split: the held-out split.
        group: the group that the sets are scored as.
        seed: seed of the sets and of the evaluation.

    Returns:
        The folder.

    Raises:
        InputError: as `score`.
    """
    reference, loaded = Reference.read(load_dataset(dataset), split, [group]), load_encoder(encoder)
    rows, output_dir = {}, Path(output_dir)
    sets = planted_sets(reference.all_training, group, seed)
    for name, images in sets.items():
        print(name, flush=True)
        report = evaluate_images(images, reference, encoder=loaded, seed=seed)
        rows[name] = report.rows["generated"]
        if name == next(iter(sets)):
            real = report.rows["real"]
    rows[REAL] = real
    columns = [column for column in COLUMNS if column in real]
    lines = [
        [name, *(_marked(row.get(column), real[column], column) for column in columns)] for name, row in rows.items()
    ]
    below = (
        f"Dataset {report.dataset.fingerprint}, {report.n_train} training slices of "
        f"{report.n_train_patients} patients, {report.n_heldout} held-out slices of "
        f"{report.n_heldout_patients}; feature encoder {loaded.features.hash}, segmenter {loaded.segmenter.hash}, "
        f"seed {seed}, hcm_hf {report.hcm_hf_version}. "
        "In brackets: 95 % interval."
    )
    blocks = [
        f"# Which number catches which fault, offered as {group}",
        "A number catches a fault where its value lies outside the 95 % interval of real patients.",
        markdown_table(
            ["fault", "caught by"], [[name, _catchers(row, real, columns)] for name, row in rows.items()][:-1]
        ),
        "## All numbers",
        "Those that catch the fault are bold.",
        markdown_table(["", *columns], lines),
        below,
    ]
    write_text(output_dir / "planted.md", "\n\n".join(blocks) + "\n")
    record = {name: {column: row[column] for column in columns if column in row} for name, row in rows.items()}
    write_text(output_dir / "planted.json", json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
    return output_dir


def catches(number: Number, real: Number) -> bool:
    """Whether a number of a set with a fault lies outside the interval of real patients."""
    if number.value is None or real.low is None or real.high is None:
        return False
    return not real.low <= number.value <= real.high


def _marked(number: Number | None, real: Number, column: str) -> str:
    text = cell(number, column)
    return f"**{text}**" if number is not None and catches(number, real) else text


def _catchers(row: Mapping[str, Number], real: Mapping[str, Number], columns: list[str]) -> str:
    return ", ".join(name for name in columns if name in row and catches(row[name], real[name])) or "nothing"
