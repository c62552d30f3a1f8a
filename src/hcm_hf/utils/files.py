"""Write files and folders whole or not at all, and explain errors of the file system in one sentence."""

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
from pathlib import Path, PureWindowsPath

from safetensors import SafetensorError

from hcm_hf.utils.errors import InputError


# Error numbers of the file system, and what a user can do.
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
# What the readers of damaged or truncated files raise.
_DAMAGE = (
    *(EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile),
    *(UnicodeDecodeError, json.JSONDecodeError, SafetensorError),
)
SUMS_FILE = "SHA256SUMS"
MOST_JSON_BYTES = 8 * 2**20
_PREVIOUS = "*previous"  # ending of a folder's name between the two renames that replace it
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_LONGEST = 100  # most bytes of a name to keep in that of a hidden sibling; some file systems allow 143 in all


@contextmanager
def explained(path: str | Path | zipfile.Path | None = None, doing: str = "read") -> Iterator[None]:
    """Turn errors of the operating system, a damaged file or an archive in the block into one sentence.

    `path` is what the block is `doing`: to "read" or to "write" it; by default what the system names.

    Raises:
        InputError: names the path or the other file that failed, the reason and what to do.
    """
    try:
        yield
    except Exception as error:
        if (sentence := _explain(error, path, doing)) is None:
            raise
        raise InputError(sentence) from error


def read_json(path: Path) -> dict:
    """The object that a JSON file of bounded size holds.

    Raises:
        InputError: if it cannot be read, or holds something else.
    """
    with explained(path), open(path, "rb") as file:
        data = file.read(MOST_JSON_BYTES + 1)
    if len(data) > MOST_JSON_BYTES:
        raise InputError(f"{path} is larger than {MOST_JSON_BYTES / 2**20:g} MiB; copy it again.")
    return _parse(data, str(path))


def read_json_lines(path: Path) -> list[dict]:
    """The objects that a file of JSON lines holds, which may have any number of them.

    A last line without its end is left out: whatever wrote it was killed.

    Raises:
        InputError: if it cannot be read, or a line holds something else; names the line.
    """
    with explained(path):
        lines = path.read_bytes().split(b"\n")[:-1]
    return [_parse(line, f"{path}, line {number},") for number, line in enumerate(lines, 1)]


def _parse(data: bytes, name: str) -> dict:
    """The object in JSON; an `InputError` that names it if it is none, or holds text that no file can hold."""
    try:
        value = json.loads(data)
        if b"\\u" in data:  # half of a pair of surrogates
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"Cannot read {name} ({error}); it is damaged: copy it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{name} holds no JSON object; it is damaged: copy it again.")
    return value


@contextmanager
def replacing(path: str | Path, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file or a folder at; rename it to `path` when the block ends.

    An existing `path` is replaced only when its successor is complete. If the block fails, the temporary is removed
    and `path` stays as it was. All files get the permissions of new files. Old files that cannot be removed, because
    another machine holds them open for example, are left for the next call.

    What stands at `path` when the block ends outlives a power cut, which costs about a millisecond a file. One of many
    small files, which is checked before it is relied on, need not be `lasting`.

    Raises:
        InputError: if `path` cannot be written (disk full, no permission).
    """
    path = Path(path).resolve()
    temporary = _sibling(path, f"{uuid.uuid4().hex[:8]}.tmp")
    try:
        with explained(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _give_rights(temporary)
            if lasting:
                for written in (temporary, *(temporary.rglob("*") if temporary.is_dir() else ())):
                    sync(written)
            _exchange(temporary, path, lasting)
    finally:
        _remove(temporary)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk and outlive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows keeps names by itself, and opens no folder
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, data: bytes, lasting: bool = True) -> None:
    """Write `data` at `path`, whole or not at all; `lasting` is that of `replacing`.

    Pictures and arrays are written here too, because numpy and Pillow do not report every failure.
    """
    with replacing(path, lasting) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 at `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def restore(path: str | Path) -> None:
    """Clean up after a crash: restore a folder that was between its two renames, and remove temporaries."""
    path = Path(path).resolve()
    for stale in _siblings(path, "*.tmp"):
        _remove(stale)
    previous = sorted(_siblings(path, _PREVIOUS), key=_number)
    if previous and not path.exists():
        previous.pop().rename(path)
    for stale in previous:
        _remove(stale)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file of a folder into its `SHA256SUMS`, as `sha256sum` does, to be checked by it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    lines = (f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    write_text(folder / SUMS_FILE, "".join(lines))


def check_sums(folder: Path, *names: str) -> None:
    """Compare files of a folder with its `SHA256SUMS`, by default all; of one that it does not name nothing is known.

    Raises:
        InputError: if a file has changed since; names it.
    """
    path = folder / SUMS_FILE
    with explained(path):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if digests and not names:
        names = tuple(one.relative_to(folder).as_posix() for one in sorted(folder.rglob("*")))
    for name in names:
        if name in digests and (folder / name).is_file() and hash_file(folder / name) != digests[name]:
            raise InputError(
                f"{folder / name} has changed since it was written (its SHA-256 is not that of {SUMS_FILE}); copy it "
                f"again, or delete {SUMS_FILE} if it was changed on purpose."
            )


def last_part(path: str) -> str:
    r"""The last part of a path of any system: of C:\data\acdc and of /data/acdc it is acdc."""
    return PureWindowsPath(path).name  # takes both / and \


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with explained(path), open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def require_empty(path: str | Path, argument: str, besides: str | None = None) -> None:
    """Raise an `InputError` unless `path` is an empty folder or can be made; call it before long work.

    `argument` is what the user calls it; a file of the name `besides` may lie there, and what `replacing` leaves when
    its process is killed.
    """
    path = check_name(path, argument).absolute()
    with explained(path, "write"):
        with suppress(FileNotFoundError):
            path.lstat()  # fails for a name that is too long or lies below a file
        others = [child for child in path.iterdir() if child.name != besides] if path.is_dir() else []
        if (path.exists() and not path.is_dir()) or not all(map(_is_left, others)):
            raise InputError(f"{argument} {path} exists and holds something else; name an empty or new folder.")
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_name(path: str | Path, argument: str) -> Path:
    """The path, unless its name holds bytes that are no text here: libraries lose such files or write others.

    Raises:
        InputError: names the argument.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{argument} {ascii(str(path))} has a name that is not UTF-8; rename the folder.") from error
    return Path(path)


def _sibling(path: Path, ending: str) -> Path:
    """Return a hidden path beside `path`, with a name that is not too long for file systems."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{ending}")


def _is_left(path: Path) -> bool:
    """Whether this is a temporary file, of `_sibling`; a folder could be somebody's long work."""
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


def _siblings(path: Path, ending: str) -> list[Path]:
    """Return the hidden paths beside `path` whose ending fits a pattern, sorted by name."""
    hidden = _sibling(path, "")
    return sorted(hidden.parent.glob(glob.escape(hidden.name) + ending))


def _number(previous: Path) -> int:
    """When a folder gave way, from its name."""
    middle = previous.suffixes[-2][1:] if len(previous.suffixes) > 1 else ""
    return int(middle) if middle.isdigit() else 0


def _exchange(temporary: Path, path: Path, lasting: bool) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.is_dir():  # a file, or nothing: one atomic call
        os.replace(temporary, path)
    else:
        number = 1 + max([time.time_ns(), *map(_number, _siblings(path, _PREVIOUS))])  # though a clock be set back
        previous = _sibling(path, f"{number}.previous")  # its own name: an earlier one may still stand
        path.rename(previous)
        try:
            temporary.rename(path)
        except OSError:
            previous.rename(path)
            raise
    if lasting:
        sync(path.parent)
    for stale in _siblings(path, _PREVIOUS) if path.is_dir() else ():
        _remove(stale)


def _remove(path: Path) -> None:
    """Remove a file or folder as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _give_rights(written: Path) -> None:
    """Give the files of a folder the permissions of a new file; safetensors makes them readable for the owner only."""
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
    """Return the sentence for an error of the system, an archive or a damaged file; None for other errors."""
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
    """Whether a file is at, below or beside a path, or is one of its parent folders."""
    return path.parent in (named, *named.parents) or named in path.parents


def _named(error: Exception) -> Path | None:
    """Return the file that the error names."""
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, os.PathLike)):
        return Path(os.fsdecode(error.filename)).absolute()
    return None
