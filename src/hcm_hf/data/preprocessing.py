"""Turn one patient's volumes into 8-bit slices of a fixed field of view around the heart.

In this order: orientation as stored (rows along Y, columns along X), in-plane resampling to a fixed spacing, crop
around the centre of the mask, clip to the volume's percentiles, scale to 8 bit.
"""

import io
import math
from dataclasses import dataclass
from itertools import chain

import numpy as np
from PIL import Image

from hcm_hf.data.acdc import STRUCTURES, Patient, Volume, read_volumes
from hcm_hf.data.checks import examine
from hcm_hf.data.identity import TEXTURE_SIZE, hash_voxels, take_texture
from hcm_hf.utils.errors import InputError


FIELD_OF_VIEW = 128.0  # mm, at every resolution: 2 mm pixels at 64 px, 1 mm at 128 px
PERCENTILES = (0.5, 99.5)  # of the volume, mapped to 0 and 255


@dataclass(frozen=True)
class PreparedPatient:
    """The rows of one patient, and facts for the report.

    Attributes:
        rows: one dict per slice; `image` and `mask` are PNG bytes.
        volumes: SHA-256 of each labelled volume, from `hash_voxels`.
        texture: texture of each slice of the labelled volumes, from `take_texture`.
        spacings: voxel sizes of the labelled volumes, mm.
        has_cine: whether there were frames between ED and ES.
        empty_masks: number of slices whose mask is empty inside the crop.
        cropped: share of the mask's voxels outside the crop.
        descriptions: field `descrip` of the labelled volumes' NIfTI headers.
        notes: a sentence for each oddity of this patient.
    """

    rows: list[dict]
    volumes: tuple[str, ...]
    texture: np.ndarray
    spacings: tuple[tuple[float, float, float], ...]
    has_cine: bool
    empty_masks: int
    cropped: float
    descriptions: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_patient(patient: Patient, resolution: int, all_frames: bool = False) -> PreparedPatient:
    """Read a patient's volumes once and turn them into rows of the dataset."""
    volumes = read_volumes(patient, all_frames)
    labelled = [next(volumes) for _ in patient.phases]
    turn, notes = examine(patient.name, labelled)
    rows, textures, outside = [], [], []
    for volume in chain(labelled, volumes):
        identity = hash_voxels(volume.image)  # of the voxels as they are stored
        volume = turn(volume)
        if volume.mask is not None:  # a frame without a mask takes the centre of the labelled frame before it
            centre = mask_centre(volume.mask)
            outside.append(share_outside(volume.mask, centre, volume.spacing))
        images, masks = prepare_volume(volume, centre, resolution)
        if masks is not None:
            same = resolution == TEXTURE_SIZE
            textures.append(take_texture(images if same else prepare_volume(volume, centre, TEXTURE_SIZE)[0]))
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
                    "volume_sha256": identity,
                    "marked": masks is not None and bool(masks[index].any()),
                }
            )
    return PreparedPatient(
        rows=rows,
        volumes=tuple(hash_voxels(volume.image) for volume in labelled),
        texture=np.concatenate(textures),
        spacings=tuple(volume.spacing for volume in labelled),
        has_cine=any(row["phase"] is None for row in rows),
        empty_masks=sum(not row.pop("marked") and row["mask"] is not None for row in rows),
        cropped=float(np.mean(outside)),
        descriptions=tuple(volume.description for volume in labelled),
        notes=(*patient.notes, *notes),
    )


def mask_centre(mask: np.ndarray) -> tuple[float, float]:
    """Return the centre of the box around all marked voxels, in voxels; it cuts off less than the centroid."""
    x, y = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2)))
    return float(x[0] + x[-1]) / 2, float(y[0] + y[-1]) / 2


def share_outside(mask: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float]) -> float:
    """Return the share of marked voxels outside the field of view around `centre`."""
    inside = [
        np.abs(np.arange(size) - middle) * step <= FIELD_OF_VIEW / 2
        for size, middle, step in zip(mask.shape, centre, spacing, strict=False)
    ]
    return 1 - np.count_nonzero(mask[np.ix_(*inside)]) / np.count_nonzero(mask)


def prepare_volume(
    volume: Volume, centre: tuple[float, float], resolution: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut `FIELD_OF_VIEW` around `centre` out of every slice at `resolution` pixels a side.

    Images are resampled with a triangle filter, which widens for smaller sizes to avoid aliasing. A mask's pixel gets
    the structure that covers most of it under the same filter.

    Returns:
        Images and masks, uint8 (Z, resolution, resolution), values 0 to 255 and 0 to 3; masks are None for a volume
        without one.
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
