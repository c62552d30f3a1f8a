"""Files and folders that are written whole or not at all."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcm_hf.errors import InputError


# What the operating system says when it will not write, or not rename onto a mount point.
_REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.EBUSY, errno.EXDEV, errno.ENOTDIR),
}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file or a folder at; rename it to `path` when the block ends.

    An existing `path` is replaced only once its successor is complete. When the block fails, whatever the cause,
    the temporary is removed and an existing `path` is as it was.

    Raises:
        InputError: if the operating system refuses to write (disk full, no permission); names `path`.
    """
    path = Path(path).resolve()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _exchange(temporary, path)
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise InputError(
            f"Cannot write {path} ({cause}); nothing was changed there, free space or name another."
        ) from error
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
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        _remove(stale)
    previous = _previous(path)
    if previous.exists():
        if path.exists():
            _remove(previous)
        else:
            previous.rename(path)


def require_empty(path: str | Path, argument: str) -> None:
    """Raise an `InputError` that names `argument` if `path` exists and is anything but an empty folder."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{argument} {path} exists and holds something else; name an empty or new folder.")


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _exchange(temporary: Path, path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.is_dir():  # a file, or nothing: one atomic call
        os.replace(temporary, path)
        return
    previous = _previous(path)
    path.rename(previous)
    try:
        temporary.rename(path)
    except OSError:
        previous.rename(path)
        raise
    _remove(previous)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _system_error(error: Exception) -> str | None:
    """What the operating system said, also where a library wraps it: safetensors raises its own class."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return os.strerror(error.errno)
    if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
        return str(error)
    return None
