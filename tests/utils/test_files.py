import errno
import gzip
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import (
    check_sums,
    explained,
    read_json_lines,
    replacing,
    require_empty,
    restore,
    write_bytes,
    write_sums,
    write_text,
)


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
    with replacing(tmp_path / "note") as temporary:
        temporary.touch()
    (tmp_path / "note").rename(temporary)  # as if the process had been killed
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


# What the system refuses, and files that are not whole.


def deflate64(path):
    """A .zip whose one member says that it is packed by method 9."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Info.cfg", "ED: 1")
    data = bytearray(path.read_bytes())
    data[8], data[data.rindex(b"PK\x01\x02") + 10] = 9, 9
    path.write_bytes(data)


def encrypted(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Info.cfg", "ED: 1")
    data = bytearray(path.read_bytes())
    data[6], data[data.rindex(b"PK\x01\x02") + 8] = 1, 1
    path.write_bytes(data)


def read_member(path):
    (zipfile.Path(path) / "Info.cfg").read_text()


def read_packed(path):
    with gzip.open(path) as file:
        file.read()


@pytest.mark.parametrize(
    ("make", "read", "sentence"),
    [
        (lambda path: path.mkdir(), open, "Is a directory.; check the name"),
        (lambda path: None, open, "No such file or directory.; check the name"),
        (lambda path: path.symlink_to(path), open, "symbolic links.; check the name"),
        (deflate64, read_member, "compression.*; unpack the archive with another program"),
        (encrypted, read_member, "encrypted.*; unpack the archive with another program"),
        (lambda path: path.write_bytes(b"PK"), read_member, "not a zip file.; it is damaged or cut short"),
        (lambda path: path.write_bytes(gzip.compress(bytes(999))[:-9]), read_packed, "; it is damaged or cut short"),
        (lambda path: path.write_text("{"), lambda path: json.loads(path.read_text()), "; it is damaged or cut short"),
        (lambda path: path.write_bytes(b"\xff"), lambda path: path.read_text("utf-8"), "; it is damaged or cut short"),
        (lambda path: path.write_bytes(bytes(9)), safetensors.torch.load_file, "; it is damaged or cut short"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_sentence(tmp_path, make, read, sentence):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(InputError, match=f"Cannot read {path} .*{sentence}") as caught, explained(path):
        read(path)
    assert "\n" not in str(caught.value) and caught.value.__cause__


@pytest.mark.parametrize("error", [ConnectionRefusedError(errno.ECONNREFUSED, "no"), ValueError("no"), KeyError("no")])
def test_what_is_not_of_files_is_left_as_it_is(tmp_path, error):
    for doing in ("read", "write"):
        with pytest.raises(type(error), match="no"), explained(tmp_path, doing):
            raise error


def test_a_file_that_cannot_be_read_while_another_is_written_is_the_one_named(tmp_path):
    with pytest.raises(InputError, match=f"Cannot use {tmp_path}/there/input .No such file") as caught:
        with replacing(tmp_path / "here" / "output") as temporary:
            shutil.copy(tmp_path / "there" / "input", temporary)
    assert "output" not in str(caught.value)


@pytest.mark.parametrize("write", [write_text, lambda path, _: require_empty(path, "--output_dir")])
def test_a_name_that_is_too_long_or_below_a_file_is_refused(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write .*n .File name too long.; choose a shorter name"):
        write(tmp_path / ("n" * 256), "")
    with pytest.raises(InputError, match="Cannot write .*file/folder .(Not a directory|File exists)"):
        write(tmp_path / "file" / "folder", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "[a-z]*"])
def test_the_longest_names_and_odd_ones_are_written_and_restored(tmp_path, name):
    for text in ("one", "two"):
        require_empty(tmp_path / name / text, "--output_dir")
        with replacing(tmp_path / name) as temporary:
            assert len(os.fsencode(temporary.name)) <= 143
            temporary.mkdir()
            (temporary / text).write_text("")
    (tmp_path / temporary.name).mkdir()
    restore(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "two"]


def test_an_old_folder_that_cannot_be_emptied_is_left_and_the_next_ones_stand(tmp_path, monkeypatch):
    """As on NFS and Windows, where files that are open elsewhere stay."""

    def write(text):
        with replacing(tmp_path / "last") as temporary:
            temporary.mkdir()
            (temporary / "state").write_text(text)

    write("one")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        for text in ("two", "three"):
            write(text)
            assert (tmp_path / "last" / "state").read_text() == text
        (tmp_path / "last").rename(tmp_path / ".last.9999999999999999999.previous")  # a crash between the renames
        restore(tmp_path / "last")
        assert (tmp_path / "last" / "state").read_text() == "three" and len(list(tmp_path.iterdir())) == 3
    write("four")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_all_files_have_the_rights_of_new_ones(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "last") as temporary:
            (temporary / "network").mkdir(parents=True)
            safetensors.torch.save_file({"weight": torch.ones(1)}, temporary / "network" / "weights.safetensors")
            (temporary / "note").write_text("")
        write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_where_one_may_not_write_is_refused_before_the_work(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="Cannot write .*new .Permission denied"):
        require_empty(tmp_path / "new", "--output_dir")


def test_a_name_that_is_no_text_is_refused_before_the_work(tmp_path):
    """A folder of an old share, named in Latin-1, on a system that has UTF-8."""
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/m\xfcller/d")
    with pytest.raises(InputError, match=r"--output_dir '.*m\\udcfcller/d' has a name that is not UTF-8"):
        require_empty(path, "--output_dir")


def test_what_is_replaced_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """Else a power cut leaves a whole name with an empty file."""
    done = []
    waited, replaced, renamed = os.fsync, os.replace, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")) or waited(descriptor)
    )
    monkeypatch.setattr(os, "replace", lambda one, other: done.append("renamed") or replaced(one, other))
    monkeypatch.setattr(Path, "rename", lambda one, other: done.append("renamed") or renamed(one, other))
    write_text(tmp_path / "note.txt", "one")
    written, name, folder = done
    assert written.endswith(".tmp") and (name, folder) == ("renamed", str(tmp_path))
    for _ in range(2):  # a new folder, and one in the place of another
        done.clear()
        with replacing(tmp_path / "folder") as temporary:
            (temporary / "below").mkdir(parents=True)
            (temporary / "below" / "note.txt").write_text("two")
        before = done[: done.index("renamed")]
        assert sorted(path.rpartition(".tmp")[2] for path in before) == ["", "/below", "/below/note.txt"]
        assert done[-1] == str(tmp_path)


def test_a_file_that_has_changed_since_is_named(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    check_sums(tmp_path)  # nothing is known yet
    write_sums(tmp_path)
    check_sums(tmp_path)
    (tmp_path / "new.txt").write_text("three")
    (tmp_path / "below" / "a.txt").write_text("One")
    check_sums(tmp_path, "b.txt", "new.txt")
    for names in ((), ("below/a.txt",)):
        with pytest.raises(
            InputError, match=f"{tmp_path}/below/a.txt has changed since it was written .* copy it again"
        ):
            check_sums(tmp_path, *names)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a": 2}\n{"a":', None),
        (b'{"a": 1}\n{"a": \n', "line 2, .*damaged"),
        (b'{"a": 1}\n[]\n', "line 2, holds no JSON object"),
        (b'{"a": "\\ud800"}\n', "line 1, .*damaged"),
        (b"\xff\n", "line 1, .*damaged"),
    ],
)
def test_lines_of_json_are_read_up_to_where_a_writer_was_killed(tmp_path, data, message):
    (tmp_path / "lines").write_bytes(data)
    if message is None:
        assert read_json_lines(tmp_path / "lines") == [{"a": 1}, {"a": 2}]
        return
    with pytest.raises(InputError, match=message):
        read_json_lines(tmp_path / "lines")


def test_of_two_folders_that_gave_way_the_later_one_comes_back_though_the_clock_was_set_back(tmp_path, monkeypatch):
    with replacing(tmp_path / "last") as temporary:
        temporary.mkdir()
        (temporary / "state").write_text("newer")
    old = tmp_path / ".last.1800000000000000000.previous"  # of next year, and nobody could remove it
    old.mkdir()
    (old / "state").write_text("older")
    monkeypatch.setattr("hcm_hf.utils.files._remove", lambda path: None)
    with pytest.raises(InputError), replacing(tmp_path / "last") as temporary:
        temporary.mkdir()
        monkeypatch.setattr("hcm_hf.utils.files.time.time_ns", lambda: 10**18)
        rename = Path.rename

        def cut(one, other):  # the power goes between the two renames
            rename(one, other)
            monkeypatch.setattr(Path, "rename", lambda one, other: fail())

        monkeypatch.setattr(Path, "rename", cut)
    monkeypatch.undo()
    restore(tmp_path / "last")
    assert (tmp_path / "last" / "state").read_text() == "newer"


def fail():
    raise OSError(errno.EIO, os.strerror(errno.EIO))
