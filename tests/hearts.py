"""Small drawn hearts as files, for tests of readers."""

import csv
from pathlib import Path

import nibabel
import numpy as np


SPACING = (2.0, 2.0, 10.0)
SHAPE = (64, 60, 5)


def heart(seed, phase="ED", wall=12.0, middle=(70.0, 62.0)):
    """One volume and its mask, as all of ACDC lie: RV at smaller x than LV, base first, tapering to the apex."""
    generator = np.random.default_rng((seed, phase == "ES"))
    x, y = np.meshgrid(np.arange(SHAPE[0]) * SPACING[0], np.arange(SHAPE[1]) * SPACING[1], indexing="ij")
    mask = np.zeros(SHAPE, np.uint8)
    for index in range(SHAPE[2]):
        taper = 1 - 0.6 * index / (SHAPE[2] - 1)
        left, right = 20 * taper * (1 if phase == "ED" else 0.65), 18 * taper
        away = np.hypot(x - middle[0], y - middle[1])
        mask[..., index][np.hypot(x - middle[0] + left + wall + right / 2, (y - middle[1]) * 0.7) < right] = 1
        mask[..., index][away < left + wall] = 2
        mask[..., index][away < left] = 3
    image = np.array([60, 320, 110, 330])[mask] + generator.normal(0, 18, SHAPE)
    return np.clip(image, 0, None).astype(np.int16), mask


def save(path, voxels, spacing=SPACING, affine=None):
    """Write voxels; without an affine it only flips x and y, as ACDC's does."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    if affine is None:
        image.header.set_zooms((*spacing, 1.0)[: voxels.ndim])
        image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code="aligned")
    nibabel.save(image, path)


def oblique(shape=SHAPE, spacing=SPACING):
    """The affine of a real short axis whose x goes to the left, y down, and the slices from base to apex."""
    apex = np.array([-0.6, 0.6, -0.5]) / np.linalg.norm([0.6, 0.6, 0.5])
    left = np.array([-0.8, -0.6, 0.0]) - apex * (np.array([-0.8, -0.6, 0.0]) @ apex)
    left /= np.linalg.norm(left)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([left, np.cross(left, apex), apex]) * spacing
    affine[:3, 3] = (12, -30, 44)
    return affine


def write_table(path, rows):
    """Write rows, each a dict, as CSV."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def write_cohort(folder, groups=("HCM", "athlete"), number=3, masks=True, first=1, affine=None):
    """Patients of some groups as files of ED and ES beside their table; returns the rows."""
    rows = []
    names = [(group, f"p{first + i}") for i, group in enumerate(np.repeat(groups, number).tolist())]
    for group, name in names:
        for phase in ("ED", "ES"):
            image, mask = heart(int(name[1:]), phase)
            row = {"patient": name, "group": group, "phase": phase, "image": f"{name}_{phase}.nii.gz"}
            save(folder / row["image"], image, affine=affine)
            if masks:
                row["mask"] = f"{name}_{phase}_mask.nii.gz"
                save(folder / row["mask"], mask, affine=affine)
            rows.append(row)
    return rows
