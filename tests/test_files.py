import errno
import os

import pytest

from hcm_hf.errors import InputError
from hcm_hf.files import replacing, require_empty, restore, write_text


def test_file_and_folder_are_replaced_whole(tmp_path):
    write_text(tmp_path / "note", "one")
    write_text(tmp_path / "note", "two")
    assert (tmp_path / "note").read_text() == "two"
    for text in ("one", "two"):
        with replacing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "note"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), FileNotFoundError(errno.ENOENT, "input")])
def test_failure_keeps_the_previous_version(tmp_path, error):
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
    with pytest.raises(type(error)), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("")
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_refused_writes_become_one_sentence(tmp_path, number):
    with pytest.raises(InputError, match=f"Cannot write .*result.json .{os.strerror(number)}"):
        with replacing(tmp_path / "result.json"):
            raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_restore_brings_the_previous_version_back(tmp_path):
    (tmp_path / ".last.previous").mkdir()
    (tmp_path / ".last.previous" / "state").write_text("good")
    restore(tmp_path / "last")
    assert (tmp_path / "last" / "state").read_text() == "good"
    (tmp_path / ".last.previous").mkdir()  # cut after the second rename: the new version stands
    restore(tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_require_empty(tmp_path):
    require_empty(tmp_path / "new", "--output_dir")
    require_empty(tmp_path, "--output_dir")
    (tmp_path / "note").write_text("")
    for path in (tmp_path, tmp_path / "note"):
        with pytest.raises(InputError, match="--output_dir .* holds something else"):
            require_empty(path, "--output_dir")


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with replacing(tmp_path / "link") as temporary:
        temporary.mkdir()
        (temporary / "data").write_text("")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "data").exists()


def test_restore_removes_what_a_killed_process_left(tmp_path):
    (tmp_path / ".last.0123abcd.tmp").mkdir()
    (tmp_path / ".other.0123abcd.tmp").mkdir()
    restore(tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == [".other.0123abcd.tmp"]
