"""One patient's volumes to 8-bit slices of a fixed field of view around the heart; numpy and Pillow alone.

In this order: orientation as stored (rows along Y, columns along X), in-plane resampling to a fixed spacing, crop
around the centre of the mask, clip to the volume's percentiles, scale to 8 bit.
"""

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hcm_hf.data.acdc import STRUCTURES, Patient, Volume, read_volumes
from hcm_hf.errors import InputError


FIELD_OF_VIEW = 128.0  # mm, at every resolution: 2 mm pixels at 64 px, 1 mm at 128 px
PERCENTILES = (0.5, 99.5)  # of the volume, mapped to 0 and 255


@dataclass(frozen=True)
class PreparedPatient:
    """Rows of the dataset and what the report says of them.

    Attributes:
        rows: one dict per slice; `image` and `mask` are PNG bytes.
        digests: SHA-256 of each labelled volume's voxel values, whatever type they are stored in.
        has_cine: whether the frames between ED and ES were there.
        empty_masks: slices whose mask marks nothing inside the crop.
        cropped: share of the mask's voxels that lies outside the crop.
        description: the NIfTI description of the first volume.
    """

    rows: list[dict]
    digests: tuple[str, ...]
    has_cine: bool
    empty_masks: int
    cropped: float
    description: str


def prepare_patient(patient: Patient, resolution: int, all_frames: bool = False) -> PreparedPatient:
    """Read a patient's volumes once and turn them into the dataset's rows."""
    rows, digests, descriptions, outside = [], [], [], []
    centre = None
    for volume in read_volumes(patient, all_frames):
        if volume.mask is not None:  # a frame without a mask takes the centre of the labelled frame before it
            centre = mask_centre(volume.mask)
            digests.append(hashlib.sha256(np.ascontiguousarray(volume.image, dtype=np.float32)).hexdigest())
            outside.append(share_outside(volume.mask, centre, volume.spacing))
        images, masks = prepare_volume(volume, centre, resolution)
        descriptions.append(volume.description)
        for index, image in enumerate(images):
            rows.append(
                {
                    "image": _png(image),
                    "mask": None if masks is None else _png(masks[index]),
                    "patient": patient.name,
                    "group": patient.group,
                    "phase": volume.phase,
                    "frame": volume.frame,
                    "slice_index": index,
                    "num_slices": len(images),
                    "pixel_spacing": FIELD_OF_VIEW / resolution,
                    "slice_thickness": volume.spacing[2],
                    "height": patient.height,
                    "weight": patient.weight,
                    "marked": masks is not None and bool(masks[index].any()),
                }
            )
    return PreparedPatient(
        rows=rows,
        digests=tuple(digests),
        has_cine=any(row["phase"] is None for row in rows),
        empty_masks=sum(not row.pop("marked") and row["mask"] is not None for row in rows),
        cropped=float(np.mean(outside)),
        description=descriptions[0],
    )


def mask_centre(mask: np.ndarray) -> tuple[float, float]:
    """Centre in X and Y of the box around all marked voxels, in voxels; it cuts off less than the centroid does."""
    axes = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2)))
    return tuple(float(marked[0] + marked[-1]) / 2 for marked in axes)


def share_outside(mask: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float]) -> float:
    """Share of the marked voxels whose centre lies outside the field of view around `centre`."""
    inside = [
        np.abs(np.arange(size) - middle) * step <= FIELD_OF_VIEW / 2
        for size, middle, step in zip(mask.shape, centre, spacing, strict=False)
    ]
    return 1 - np.count_nonzero(mask[np.ix_(*inside)]) / np.count_nonzero(mask)


def prepare_volume(
    volume: Volume, centre: tuple[float, float], resolution: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut `FIELD_OF_VIEW` around `centre` out of every slice at `resolution` pixels a side.

    Images are resampled with a triangle filter that widens when it shrinks (no aliasing), masks by the structure
    that covers most of a pixel under the same filter.

    Returns:
        Images and masks, uint8 (Z, resolution, resolution), values 0 to 255 and 0 to 3; None for a volume without one.
    """
    image = volume.image.astype(np.float32)
    low, high = np.percentile(image, PERCENTILES)
    if not high > low:
        raise InputError(f"{volume.file} is constant but for under 1 % of its voxels; it holds no image.")
    slices = _crop(image, centre, volume.spacing, resolution, fill=low)
    images = np.rint(255 * np.clip((slices - low) / (high - low), 0, 1)).astype(np.uint8)
    if volume.mask is None:
        return images, None
    coverage = [
        _crop((volume.mask == value).astype(np.float32), centre, volume.spacing, resolution, fill=value == 0)
        for value in range(len(STRUCTURES))
    ]
    return images, np.argmax(coverage, axis=0).astype(np.uint8)


def _crop(
    voxels: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float], resolution: int, fill: float
) -> np.ndarray:
    """(X, Y, Z) float32 to (Z, resolution, resolution): a box of `FIELD_OF_VIEW` mm, `fill` outside."""
    half = [FIELD_OF_VIEW / size / 2 for size in spacing[:2]]
    low = [middle + 0.5 - extent for middle, extent in zip(centre, half, strict=True)]  # voxel i spans [i, i + 1]
    high = [middle + 0.5 + extent for middle, extent in zip(centre, half, strict=True)]
    before = [max(0, math.ceil(-edge)) for edge in low]
    after = [max(0, math.ceil(edge - size)) for edge, size in zip(high, voxels.shape, strict=False)]
    padding = [*zip(before, after, strict=True), (0, 0)]
    voxels = np.pad(voxels, padding, constant_values=fill)
    box = (low[0] + before[0], low[1] + before[1], high[0] + before[0], high[1] + before[1])
    size = (resolution, resolution)
    return np.stack(
        [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane.T)).resize(size, Image.Resampling.BILINEAR, box=box))
            for plane in np.moveaxis(voxels, 2, 0)
        ]
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
