"""Score sets of images with known faults: copies, damaged copies, other diseases.

They show which fault each number of a report detects, and which it does not.
"""

import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.comparison import Reference
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import GeneratedImages, RealSlices
from hcm_hf.evaluation.report import plain
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.utils.files import write_text


COLUMNS = (
    *("ssim_random", "ssim_copy_gap", "kid_acdc", "relative_fd_acdc", "precision_acdc", "coverage_acdc"),
    *("spectrum_distance", "copy_rate", "authenticity", "thick_share_ed", "valid_topology"),
)


def planted_sets(everyone: RealSlices, group: str = "HCM", seed: int = 0) -> dict[str, np.ndarray]:
    """Sets of images that fail in a known way.

    Args:
        everyone: the training slices of all groups.
        group: the group that the others are offered as.
        seed: of noise and shifts.

    Returns:
        By name, float32 (N, H, W) in [0, 1]: the slices of the group themselves, shifted by a pixel, blurred with a
        standard deviation of one pixel, with noise of standard deviation .1; their mean image, shifted by up to two
        pixels; those of half of the patients; and the slices of each other group.
    """
    training, generator = everyone.of_groups([group]), np.random.default_rng(seed)
    images, mean = training.images, training.images.mean(0)
    shifts = generator.integers(-2, 3, size=(len(images), 2))
    noise = 0.1 * generator.standard_normal(images.shape, np.float32)
    half = np.isin(training.patients, np.unique(training.patients)[::2])
    sets = {
        "copies": images,
        "copies, shifted": np.roll(images, 1, axis=2),
        "copies, blurred": gaussian_filter(images, (0, 1, 1)).clip(0, 1),
        "copies, noised": (images + noise).clip(0, 1),
        "the mean image": np.stack([np.roll(mean, tuple(shift), axis=(0, 1)) for shift in shifts]),
        "half of the patients": images[half],
    }
    others = [other for other in GROUPS if other != group and GROUPS.index(other) in everyone.groups]
    return sets | {f"real {other}": everyone.of_groups([other]).images for other in others}


def write_ruler(
    output_dir: str | Path,
    encoder: str | Path,
    dataset: str | Path | None = None,
    split: str = "test",
    group: str = "HCM",
    seed: int = 0,
) -> Path:
    """Score sets of images whose faults are known: copies, damaged copies, the mean image, other diseases.

    Args:
        output_dir: the folder for ruler.md and ruler.json.
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
    for name, images in planted_sets(reference.all_training, group, seed).items():
        print(name)
        report = evaluate_images(GeneratedImages(images), reference, encoder=loaded, seed=seed)
        rows[name] = report.rows["generated"]
    rows["**real patients**"] = report.rows["real"]
    columns = [column for column in COLUMNS if column in rows["copies"]]
    lines = [[name, *(cell(row[column], column) for column in columns)] for name, row in rows.items()]
    below = (
        f"Dataset {report.dataset.fingerprint}, {report.n_train} training slices of "
        f"{report.n_train_patients} patients, {report.n_heldout} held-out slices of "
        f"{report.n_heldout_patients}; feature encoder {loaded.features.hash}, segmenter {loaded.segmenter.hash}, "
        f"seed {seed}, hcm_hf {report.hcm_hf_version}. "
        "In brackets: 95 % interval."
    )
    title = f"# What known sets of images score, offered as {group}"
    write_text(output_dir / "ruler.md", f"{title}\n\n{markdown_table(['', *columns], lines)}\n\n{below}\n")
    record = {name: {column: row[column] for column in columns} for name, row in rows.items()}
    write_text(output_dir / "ruler.json", json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
    return output_dir
