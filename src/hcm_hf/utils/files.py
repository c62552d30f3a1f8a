"""Files and folders that are written whole or not at all, and one sentence for what the system refuses."""

import errno
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from hcm_hf.utils.errors import InputError


# What the file system refuses with, and what a reader can do about it.
_ADVICE = {
    **dict.fromkeys((errno.ENOENT, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ), "check the name"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its rights or name another"),
    **dict.fromkeys((errno.EBUSY, errno.EXDEV, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY), "name another"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space or name another"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO), "look after its disk"),
    **dict.fromkeys((errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOLCK), "look after its disk"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files with ulimit -n"),
    errno.ENOMEM: "free memory",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# What a file that is damaged or cut short raises, whoever reads it.
_DAMAGE = (
    *(EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile),
    *(UnicodeDecodeError, json.JSONDecodeError, SafetensorError),
)
_PREVIOUS = "*previous"  # what a folder's name ends with between the two renames that replace it
_LONGEST = 100  # bytes of a name that a hidden sibling's takes over; some file systems allow 143 in all


@contextmanager
def explained(path: str | Path | zipfile.Path | None = None, doing: str = "read") -> Iterator[None]:
    """Turn what the operating system, a damaged file or an archive raises in the block into one sentence.

    Args:
        path: what is read or written, to be named; without it what the system names, if it does.
        doing: "read" or "write", for the sentence.

    Raises:
        InputError: names the path, or the other file that the system refused, says why and what to do.
    """
    try:
        yield
    except Exception as error:
        if (sentence := _explain(error, path, doing)) is None:
            raise
        raise InputError(sentence) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file or a folder at; rename it to `path` when the block ends.

    An existing `path` is replaced only once its successor is complete. When the block fails, whatever the cause,
    the temporary is removed and an existing `path` is as it was. All files get the rights that new files have there.
    What is old and cannot be removed, as files that another machine holds open, is left for the next time.

    Raises:
        InputError: if the operating system refuses to write (disk full, no permission); names `path`.
    """
    path = Path(path).resolve()
    temporary = _sibling(path, f"{uuid.uuid4().hex[:8]}.tmp")
    try:
        with explained(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _give_rights(temporary)
            _exchange(temporary, path)
    finally:
        _remove(temporary)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` at `path`, whole or not at all.

    Pictures and arrays go through here too: numpy and Pillow do not report every failure when they write themselves.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 at `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def restore(path: str | Path) -> None:
    """Clear up after a crash: bring a folder back that was cut between its two renames, and remove temporaries."""
    path = Path(path).resolve()
    for stale in _siblings(path, "*.tmp"):
        _remove(stale)
    previous = _siblings(path, _PREVIOUS)
    if previous and not path.exists():
        previous.pop().rename(path)
    for stale in previous:
        _remove(stale)


def require_empty(path: str | Path, argument: str, besides: str | None = None) -> None:
    """Raise an `InputError` unless `path` is an empty folder or can be made: to be asked before long work.

    Args:
        path: of the folder.
        argument: that named it, for the sentence.
        besides: the name of a file that may lie there.
    """
    path = Path(path).absolute()
    with explained(path, "write"):
        with suppress(FileNotFoundError):
            path.lstat()  # speaks up for a name that is too long or lies below a file
        if path.exists() and (not path.is_dir() or any(child.name != besides for child in path.iterdir())):
            raise InputError(f"{argument} {path} exists and holds something else; name an empty or new folder.")
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _sibling(path: Path, ending: str) -> Path:
    """A hidden path beside `path`, whose name is no longer than file systems allow."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{ending}")


def _siblings(path: Path, ending: str) -> list[Path]:
    """The hidden paths beside `path` with this ending, a pattern; in order of their names."""
    hidden = _sibling(path, "")
    return sorted(hidden.parent.glob(glob.escape(hidden.name) + ending))


def _exchange(temporary: Path, path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.is_dir():  # a file, or nothing: one atomic call
        os.replace(temporary, path)
        return
    previous = _sibling(path, f"{time.time_ns()}.previous")  # its own name: an earlier one may still stand
    path.rename(previous)
    try:
        temporary.rename(path)
    except OSError:
        previous.rename(path)
        raise
    for stale in _siblings(path, _PREVIOUS):
        _remove(stale)


def _remove(path: Path) -> None:
    """Remove what is there as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _give_rights(written: Path) -> None:
    """Give the files of a folder the rights that a new one has there: safetensors writes for the owner alone."""
    if not written.is_dir():
        return
    files = [path for path in written.rglob("*") if path.is_file() and not path.is_symlink()]
    new = written / ".new"
    new.touch()
    mode = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for path in files:
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _explain(error: Exception, path: str | Path | zipfile.Path | None, doing: str) -> str | None:
    """The sentence for what the system raised, or an archive or a damaged file that is read; of all else None."""
    wrapped = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    number = int(wrapped[1]) if wrapped else error.errno if isinstance(error, OSError) else None
    reason = str(error) or type(error).__name__
    if number in _ADVICE:
        named = _named(error)
        if path is None or (doing == "write" and named and not _is_at(named, Path(str(path)).absolute())):
            doing, path = "use", named  # not what is written, but something else that is needed
        elif doing == "read":
            path = named or path
        elif named is None and number == errno.ENOENT:  # nothing that writing could have met
            return None
        return f"Cannot {doing} {path} ({os.strerror(number)}); {_ADVICE[number]}." if path else None
    if path is None:
        return None
    if doing == "read" and isinstance(error, _DAMAGE):
        return f"Cannot read {path} ({reason}); it is damaged or cut short."
    closed = isinstance(error, RuntimeError) and "encrypted" in reason
    if doing == "read" and (closed or isinstance(error, NotImplementedError)):  # as zipfile says it
        return f"Cannot read {path} ({reason}); unpack the archive with another program and name the folder."
    return None


def _is_at(named: Path, path: Path) -> bool:
    """Whether a file lies at a path, below or beside it, or is one of its folders."""
    return path.parent in (named, *named.parents) or named in path.parents


def _named(error: Exception) -> Path | None:
    """The file that the system says it was about."""
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, os.PathLike)):
        return Path(os.fsdecode(error.filename)).absolute()
    return None
