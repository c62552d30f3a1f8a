"""Turn one patient's volumes into 8-bit slices of a fixed field of view around the heart.

In this order: ACDC's axes (rows along Y, columns along X, base first), in-plane resampling to a fixed spacing, crop
around the heart, clip to the volume's percentiles, scale to 8 bit.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from PIL import Image

from hcm_hf.data.checks import examine, orientation_of
from hcm_hf.data.cohort import Patient
from hcm_hf.data.cropping import FIELD_OF_VIEW, mask_centre, middle_of_frame, prepare_volume, share_outside
from hcm_hf.data.identity import TEXTURE_SIZE, hash_voxels, take_texture
from hcm_hf.data.location import Segmenter, image_centre, motion_centre, segmented_centre
from hcm_hf.data.orientation import Turn
from hcm_hf.data.volumes import Volume, read_cine, read_volumes
from hcm_hf.utils.errors import InputError


_FIELD_ERROR = 0.02  # of the side of a field of view, between two grids of the same one
LOCATED_BY = ("mask", "segmenter", "cine", "image")  # what shows where a heart is, the best first


@dataclass(frozen=True)
class PreparedPatient:
    """The rows of one patient, and facts for the report."""

    rows: list[dict]  # one dict per slice; `image` and `mask` are PNG bytes
    volumes: tuple[str, ...]  # SHA-256 of each labelled volume, from `hash_voxels`
    texture: np.ndarray  # (2, N, D) of the slices of the labelled volumes: around the heart, and of the whole frame
    spacing: tuple[float, float, float]  # voxel size of the first labelled volume, mm
    has_cine: bool  # whether there were frames between ED and ES
    empty_masks: int  # slices whose mask is empty inside the crop
    cropped: float  # share of the mask's voxels outside the crop; NaN without a mask
    descriptions: tuple[str, ...]  # field `descrip` of the labelled volumes' NIfTI headers
    notes: tuple[str, ...]  # a sentence for each oddity of this patient
    located_by: str  # what showed where the heart is, one of `LOCATED_BY`
    oriented_by: str  # what said how the volumes lie


def prepare_patient(
    patient: Patient, resolution: int, all_frames: bool = False, segmenter: Segmenter | None = None
) -> PreparedPatient:
    """Read a patient's volumes once and turn them into rows of the dataset.

    A volume is cropped around its own mask; without one, around that of the volume before it, or the patient's other
    one. Without any mask the `segmenter` shows where the heart is, else the cine's motion, else it is taken to be in
    the middle.
    """
    volumes = read_volumes(patient, all_frames)
    labelled = [next(volumes) for _ in patient.phases]
    turn, notes = examine(patient.name, labelled)
    labelled = [turn(volume) for volume in labelled]
    oriented_by = orientation_of(labelled)
    spacing = labelled[0].spacing
    centre, located_by = _find_heart(patient, labelled, turn, segmenter)
    shown_in = next((volume for volume in labelled if volume.mask is not None), labelled[0])
    rows: list[dict] = []
    identities: list[str] = []
    textures, outside, empty_masks = [], [], 0
    for place, volume in enumerate(chain(labelled, map(turn, volumes))):
        identity = hash_voxels(volume.image)
        if volume.mask is None:
            centre = _carried(centre, shown_in, volume)
        else:
            centre = mask_centre(volume.mask)
            outside.append(share_outside(volume.mask, centre, volume.spacing))
        shown_in = volume
        images, masks = prepare_volume(volume, centre, resolution)
        if place < len(labelled):
            identities.append(identity)
            heart = images if resolution == TEXTURE_SIZE else prepare_volume(volume, centre, TEXTURE_SIZE)[0]
            textures.append([take_texture(heart), take_texture(middle_of_frame(volume.image, TEXTURE_SIZE))])
        if masks is not None:
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
                "cohort": patient.cohort,
            }
            rows.append(row)
    return PreparedPatient(
        rows=rows,
        volumes=tuple(identities),
        texture=np.concatenate(textures, axis=1),
        spacing=spacing,
        has_cine=any(row["phase"] is None for row in rows),
        empty_masks=empty_masks,
        cropped=float(np.mean(outside)) if outside else float("nan"),
        descriptions=tuple(volume.description for volume in labelled),
        notes=(*patient.notes, *notes),
        located_by=located_by,
        oriented_by=oriented_by,
    )


def _find_heart(
    patient: Patient, labelled: Sequence[Volume], turn: Turn, segmenter: Segmenter | None
) -> tuple[tuple[float, float], str]:
    """The centre of a heart in voxels of the turned volumes, and which of `LOCATED_BY` shows it."""
    for volume in labelled:
        if volume.mask is not None:
            return mask_centre(volume.mask), "mask"
    first = labelled[0]
    cine = read_cine(patient)
    middle, by = image_centre(first.image), "image"
    cine = None if cine is None else turn.array(cine)
    if cine is not None and cine.shape[3] > 1 and cine.shape[:3] == first.image.shape:  # places mean the same in both
        middle, by = motion_centre(cine, first.spacing), "cine"
    if segmenter is not None and (found := segmented_centre(first, middle, segmenter)) is not None:
        return found, "segmenter"
    return middle, by


def _carried(centre: tuple[float, float], before: Volume, volume: Volume) -> tuple[float, float]:
    """The same place in the voxels of another volume, if both show the same field of view.

    Raises:
        InputError: if they do not.
    """
    if before.image.shape[:2] == volume.image.shape[:2] and before.spacing[:2] == volume.spacing[:2]:
        return centre
    first, second = (np.multiply(one.image.shape[:2], one.spacing[:2]) for one in (before, volume))
    if not np.allclose(first, second, rtol=_FIELD_ERROR):
        raise InputError(
            f"{volume.file} has no mask and another field of view than {before.file}, which shows where the heart is; "
            "give it a mask, or resample it onto the other."
        )
    x, y = (
        (place + 0.5) * old / new - 0.5
        for place, old, new in zip(centre, before.spacing[:2], volume.spacing[:2], strict=True)
    )
    return x, y


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
