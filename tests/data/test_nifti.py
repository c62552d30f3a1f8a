import gzip
import shutil
import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest

from hcm_hf.data import nifti
from hcm_hf.data.nifti import find_nifti, read_nifti
from hcm_hf.utils.errors import InputError


VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.diag([-1.5, -1.5, 10, 1])), path)
    return path


def with_(change):
    """Change what a compressed file holds before compression."""

    def changed(path):
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(gzip.decompress(path.read_bytes())),  # compressed in name only
        lambda path: path.write_bytes(path.read_bytes() + b"\0" * 512),
        lambda path: path.write_bytes(path.read_bytes() + b"garbage at the end"),
        with_(lambda data: data + b"more"),
        lambda path: path.write_bytes(b"".join(gzip.compress(part) for part in split(path))),
        lambda path: nibabel.save(nibabel.Nifti1Image(VOXELS[..., None], np.diag([-1.5, -1.5, 10, 1])), path),
        lambda path: nibabel.save(nibabel.Nifti2Image(VOXELS, np.diag([-1.5, -1.5, 10, 1])), path),
    ],
)
def test_a_volume_is_read_by_its_content(file, change):
    change(file)
    read = read_nifti(file, ndim=3)
    np.testing.assert_array_equal(read.voxels, VOXELS)
    assert read.spacing == (1.5, 1.5, 10)
    np.testing.assert_array_equal(read.affine, np.diag([-1.5, -1.5, 10, 1]))


def split(path):
    data = gzip.decompress(path.read_bytes())
    return data[:400], data[400:]


def test_a_file_without_a_form_has_no_affine(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header.set_zooms((1.5, 1.5, 10))
    nibabel.save(image, tmp_path / "x.nii")
    assert read_nifti(tmp_path / "x.nii", ndim=3).affine is None


def test_a_folder_in_place_of_a_file_is_opened(tmp_path, file):
    folder = tmp_path / "patient001_frame01.nii"
    folder.mkdir()
    shutil.move(file, folder / "HCM01Gate1.nii.gz")
    found = find_nifti(tmp_path, "patient001_frame01")
    np.testing.assert_array_equal(read_nifti(found, ndim=3).voxels, VOXELS)
    shutil.copy(found, folder / "another.nii.gz")
    with pytest.raises(InputError, match="patient001_frame01.nii is a folder of 2 files where a volume belongs"):
        find_nifti(tmp_path, "patient001_frame01")


def colours(shape):
    return np.zeros(shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (colours((3, 4, 5)), "holds colours; save grey values"),
        (VOXELS.astype(np.complex64), "holds complex numbers; save grey values"),
        (VOXELS[0], r"has shape \(4, 5\); 3 dimensions"),
        (np.stack([VOXELS, VOXELS], axis=-1), r"has shape \(3, 4, 5, 2\); 3 dimensions"),
    ],
)
def test_other_voxels_are_refused(file, voxels, message):
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    with pytest.raises(InputError, match=f"x.nii.gz {message}"):
        read_nifti(file, ndim=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_(lambda data: data[:-10]), r"x.nii.gz cannot be read as NIfTI: it ends after 462 of 472 bytes"),
        (with_(lambda data: b"x" * 400), "x.nii.gz cannot be read as NIfTI: its header is of another kind"),
        (with_(lambda data: data[:100]), "x.nii.gz cannot be read as NIfTI"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), r"Cannot read .*x.nii.gz .*damaged or cut short"),
        (
            with_(lambda data: data[:42] + b"\x30\x75" * 5 + data[52:]),
            r"announces \d+ GiB, and 2 GiB are read at most",
        ),
    ],
)
def test_what_is_not_whole_is_named(file, change, message):
    change(file)
    with pytest.raises(InputError, match=message) as caught:
        read_nifti(file, ndim=3)
    assert "\n" not in str(caught.value) and "fetch" not in str(caught.value)


def test_a_bomb_is_not_unpacked(file, monkeypatch):
    monkeypatch.setattr(nifti, "MOST_BYTES", 2**20)
    with_(lambda data: data + bytes(2**23))(file)
    with pytest.raises(InputError, match="it holds much more than its header announces"):
        read_nifti(file, ndim=3)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_what_is_announced_and_not_there_takes_no_memory(file, pack):
    """The header of 1.9 GiB, and no voxels."""
    data = bytearray(gzip.decompress(file.read_bytes())[:352])
    data[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
    file.write_bytes(pack(bytes(data)))
    tracemalloc.start()
    with pytest.raises(InputError, match="it ends after 352 of 2000000352 bytes"):
        read_nifti(file, ndim=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_an_archive_that_python_cannot_unpack_is_named(tmp_path, file):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(file, "x.nii.gz")
    data = (tmp_path / "x.zip").read_bytes()
    places = [data.index(b"PK\x03\x04") + 8, data.index(b"PK\x01\x02") + 10]
    for method, message in ((9, "unpack the archive with another program"), (None, "encrypted.*unpack the archive")):
        changed = bytearray(data)
        for place in places:
            if method is None:
                changed[place - 2] |= 1  # the flag of an encrypted member
            else:
                changed[place] = method  # Deflate64
        (tmp_path / "y.zip").write_bytes(changed)
        with pytest.raises(InputError, match=message):
            read_nifti(zipfile.Path(tmp_path / "y.zip").joinpath("x.nii.gz"), ndim=3)
