"""Turn one patient's volumes into 8-bit slices of a fixed field of view around the heart.

In this order: orientation as stored (rows along Y, columns along X), in-plane resampling to a fixed spacing, crop
around the centre of the mask, clip to the volume's percentiles, scale to 8 bit.
"""

import io
import math
from dataclasses import dataclass
from itertools import chain, zip_longest

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
    """The rows of one patient, and facts for the report."""

    rows: list[dict]  # one dict per slice; `image` and `mask` are PNG bytes
    volumes: tuple[str, ...]  # SHA-256 of each labelled volume, from `hash_voxels`
    texture: np.ndarray  # of each slice of the labelled volumes, from `take_texture`
    spacing: tuple[float, float, float]  # voxel size of the first labelled volume, mm
    has_cine: bool  # whether there were frames between ED and ES
    empty_masks: int  # slices whose mask is empty inside the crop
    cropped: float  # share of the mask's voxels outside the crop
    descriptions: tuple[str, ...]  # field `descrip` of the labelled volumes' NIfTI headers
    notes: tuple[str, ...]  # a sentence for each oddity of this patient


def prepare_patient(patient: Patient, resolution: int, all_frames: bool = False) -> PreparedPatient:
    """Read a patient's volumes once and turn them into rows of the dataset."""
    volumes = read_volumes(patient, all_frames)
    labelled = [next(volumes) for _ in patient.phases]
    turn, notes = examine(patient.name, labelled)
    identities = [hash_voxels(volume.image) for volume in labelled]  # of the voxels as they are stored
    rows: list[dict] = []
    textures, outside, empty_masks = [], [], 0
    for volume, known in zip_longest(chain(labelled, volumes), identities):
        identity = known or hash_voxels(volume.image)
        volume = turn(volume)
        if volume.mask is not None:  # a frame without a mask takes the centre of the labelled frame before it
            centre = mask_centre(volume.mask)
            outside.append(share_outside(volume.mask, centre, volume.spacing))
        images, masks = prepare_volume(volume, centre, resolution)
        if masks is not None:
            same = resolution == TEXTURE_SIZE
            textures.append(take_texture(images if same else prepare_volume(volume, centre, TEXTURE_SIZE)[0]))
            empty_masks += int(np.count_nonzero(~masks.any((1, 2))))
        for index, image in enumerate(images):
            row = {
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
                "cohort": "acdc",
            }
            rows.append(row)
    return PreparedPatient(
        rows=rows,
        volumes=tuple(identities),
        texture=np.concatenate(textures),
        spacing=labelled[0].spacing,
        has_cine=any(row["phase"] is None for row in rows),
        empty_masks=empty_masks,
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
    corners, padding = [], []
    for middle, size, step in zip(centre, voxels.shape, spacing, strict=False):
        low, high = (middle + 0.5 + side * FIELD_OF_VIEW / step / 2 for side in (-1, 1))  # voxel i spans [i, i + 1]
        before, after = max(0, math.ceil(-low)), max(0, math.ceil(high - size))
        corners.append((low + before, high + before))
        padding.append((before, after))
    (left, right), (top, bottom) = corners
    size, box = (resolution, resolution), (left, top, right, bottom)
    planes = np.moveaxis(np.pad(voxels, [*padding, (0, 0)], constant_values=fill), 2, 0)
    pictures = (Image.fromarray(np.ascontiguousarray(plane.T)) for plane in planes)
    return np.stack([np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box)) for picture in pictures])


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
