"""Read one NIfTI volume from one file, by its content; names may be wrong about compression."""

import gzip
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


AnyPath = Path | zipfile.Path  # of a folder, or of a member of a `.zip`

MOST_BYTES = 2**31  # of one volume, uncompressed; a 4-D cine of ACDC has a twentieth of this
_KINDS = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}  # by the header's first number
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}  # by the header's units
_GZIP = b"\x1f\x8b"
_CHUNK = 2**20
# What nibabel raises for a file that is not NIfTI.
_OTHER_KINDS = (ValueError, nibabel.filebasedimages.ImageFileError, HeaderDataError, WrapStructError)


@dataclass(frozen=True)
class Nifti:
    """The content of one file."""

    voxels: np.ndarray  # in their stored dtype, or scaled if the header says so
    spacing: tuple[float, float, float]  # voxel size along the first three axes, mm
    affine: np.ndarray | None  # (4, 4) from voxels to the scanner; None if the header has none
    description: str  # text of the header's field `descrip`


def find_nifti(folder: AnyPath, stem: str) -> AnyPath:
    """Find `stem.nii`, `stem.nii.gz`, or the only file in a folder of that name, as some archive programs leave it.

    Without one, `stem.nii.gz` is returned. A folder that does not hold exactly one file raises an `InputError`.
    """
    paths = [folder.joinpath(f"{stem}{suffix}") for suffix in (".nii", ".nii.gz")]
    path = next((path for path in paths if path.exists()), paths[-1])
    if not path.is_dir():
        return path
    files = [one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")]
    if len(files) != 1:
        raise InputError(f"{path} is a folder of {len(files)} files where a volume belongs; leave one volume in it.")
    return files[0]


def read_nifti(path: AnyPath, ndim: int | tuple[int, ...]) -> Nifti:
    """Read a volume of `ndim` axes, compressed or not, whatever its name says.

    Trailing axes of length 1 are dropped. Bytes after the volume are ignored. Voxel size and affine come in mm,
    whatever units the header names; without one they are taken for mm.

    Raises:
        InputError: if the file cannot be read, is not NIfTI, holds colours or complex numbers, has another number of
            axes, or gives no voxel size in millimetres. The sentence names the file.
    """
    with explained(path), path.open("rb") as stream:
        try:
            file = _load(stream)
            voxels = np.asarray(file.dataobj)
        except _OTHER_KINDS as error:
            raise InputError(f"{path} cannot be read as NIfTI: {error}.") from error
    if voxels.dtype.names is not None or np.iscomplexobj(voxels):
        kind = "colours" if voxels.dtype.names is not None else "complex numbers"
        raise InputError(f"{path} holds {kind}; save grey values, one real number a voxel.")
    wanted = ndim if isinstance(ndim, tuple) else (ndim,)
    while voxels.ndim > min(wanted) and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in wanted or 0 in voxels.shape:
        needed = f"{wanted[0]} dimensions are needed" + (", or 4 of a cine" if len(wanted) > 1 else "")
        raise InputError(f"{path} has shape {voxels.shape}; {needed}.")
    unit = _MILLIMETRES.get(file.header.get_xyzt_units()[0], 1.0)
    x, y, z = spacing = tuple(unit * float(size) for size in file.header.get_zooms()[:3])
    if not all(0 < size < np.inf for size in spacing):
        raise InputError(f"{path} gives the voxel size {spacing} mm; positive numbers are needed.")
    placed = file.header["sform_code"] > 0 or file.header["qform_code"] > 0
    description = bytes(file.header["descrip"]).split(b"\0")[0].decode("ascii", "replace")
    affine = file.affine * np.array([[unit], [unit], [unit], [1]]) if placed else None
    return Nifti(voxels, (x, y, z), affine, description)


def _load(stream: Any) -> nibabel.Nifti1Image:
    """Read the image in a buffered stream; keep no more of it than the header announces."""
    compressed = stream.peek(len(_GZIP)).startswith(_GZIP)
    content = gzip.GzipFile(fileobj=stream) if compressed else stream
    data = _read(content, 4)
    sizes = {int.from_bytes(data, order) for order in ("little", "big")} & set(_KINDS)
    if not sizes:
        raise ValueError("its header is of another kind")
    size = sizes.pop()
    kind = _KINDS[size]
    data += _read(content, size - 4)
    header = kind.header_class(data)
    shape = [int(length) for length in header.get_data_shape()]  # Python integers, as numpy's would overflow
    if any(length < 0 for length in shape):
        raise ValueError(f"its header gives the shape {header.get_data_shape()}")
    needed = int(header["vox_offset"] or size) + math.prod(shape) * header.get_data_dtype().itemsize
    if needed > MOST_BYTES:
        raise ValueError(
            f"its header announces {needed / 2**30:.0f} GiB, and {MOST_BYTES // 2**30} GiB are read at most"
        )
    data += _read(content, needed - size)
    if len(data) < needed:
        raise ValueError(f"it ends after {len(data)} of {needed} bytes")
    _check_end(content)
    return kind.from_bytes(data)


def _read(content: Any, count: int) -> bytes:
    """So many bytes, or as many as there are; asked for at once, they would take memory whether there or not."""
    chunks = []
    while count > 0 and (chunk := content.read(min(count, _CHUNK))):
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _check_end(content: Any) -> None:
    """Read on to the checksum at the end of a compressed stream; ignore what is not compressed."""
    left = MOST_BYTES
    try:
        while left > 0 and (chunk := content.read(_CHUNK)):
            left -= len(chunk)
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):
            raise
    if left <= 0:
        raise ValueError("it holds much more than its header announces")
