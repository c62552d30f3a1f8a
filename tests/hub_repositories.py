"""What the small Hub of the tests keeps: accounts, repositories, their commits and files."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from functools import cached_property

import yaml


# What the Hub tracks with LFS in a new repository; data sets have their media on top.
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
).split()
MEDIA_PATTERNS = "*.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.jpeg *.webp *.mp4 *.webm".split()
LFS_THRESHOLD = 10 * 1024 * 1024
# A few of the Hub's licence identifiers.
LICENSES = (
    "apache-2.0 mit bsd-3-clause gpl-3.0 lgpl-3.0 agpl-3.0 cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 "
    "cc-by-nc-sa-4.0 openrail creativeml-openrail-m unknown other"
).split()


class Refusal(Exception):
    """An error as the Hub answers it; `fields` go into its JSON beside `error`."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None, **fields):
        line = " ".join(message.encode("ascii", "replace").decode().split())
        self.headers = {"X-Error-Message": line} | ({"X-Error-Code": code} if code else {}) | (headers or {})
        self.status, self.body = status, {"error": message, **fields}


@dataclass(frozen=True)
class Account:
    """Somebody with a token; reads and, if the token may write, writes the repositories under `name`."""

    name: str
    token: str
    can_write: bool


@dataclass(frozen=True)
class Blob:
    """A file's content; of one in LFS, git itself holds only the pointer."""

    data: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        lines = "version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.data)}", ""
        return "\n".join(lines).encode()

    @cached_property
    def git_id(self) -> str:
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def id(self) -> str:
        return self.sha256 if self.lfs else self.git_id

    def describe(self, id_key: str, sha256_key: str) -> dict:
        """Size and ids, whose names differ between the listings."""
        lfs = {sha256_key: self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return {"size": len(self.data), id_key: self.git_id} | ({"lfs": lfs} if self.lfs else {})


@dataclass(frozen=True)
class Commit:
    """A state of the files."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Blob]

    @property
    def header(self) -> dict[str, str]:
        return {"X-Repo-Commit": self.id}


@dataclass
class Repo:
    """A repository; pull request N is the branch `refs/pr/N`, `objects` are what LFS holds, by their sha256."""

    kind: str
    id: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, Blob] = field(default_factory=dict)

    def __post_init__(self):
        patterns = LFS_PATTERNS + (MEDIA_PATTERNS if self.kind == "dataset" else [])
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)
        self.add("main", None, {".gitattributes": Blob(attributes.encode())}, "initial commit", author=self.owner)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def path(self) -> str:
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag or a full commit id."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[commit]

    def history(self, revision: str) -> Iterator[Commit]:
        """The commit at a revision and all before it, newest first."""
        commit = self.at(revision)
        yield commit
        while commit.parent:
            commit = self.commits[commit.parent]
            yield commit

    def add(self, branch: str, parent: str | None, files: dict[str, Blob], title: str, message="", author="") -> str:
        """Commit a whole new state of the files to a branch."""
        date = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        seed = repr((self.kind, self.id, len(self.commits), parent, title, date))
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), parent, title, message, author, date, files)
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        self.objects |= {blob.sha256: blob for blob in files.values() if blob.lfs}
        return commit.id


def read_card(readme: Blob) -> tuple[dict, list[str], list[str]]:
    """The metadata of a card, and the errors and warnings that the Hub has about it."""
    found = re.match(r"\s*---\r?\n(.*?)^---\s*?$", readme.data.decode("utf-8", "replace"), re.DOTALL | re.MULTILINE)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return {}, [f"Invalid YAML: {error}"], []
    if metadata is None:
        return {}, [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return {}, ["The metadata must be a YAML mapping"], []
    errors = []
    named = metadata.get("license", [])
    if any(name not in LICENSES for name in (named if isinstance(named, list) else [named])):
        errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
    if not isinstance(metadata.get("model-index", []), list):
        errors.append('"model-index" must be an array')
    return metadata, errors, []


def wants_lfs(files: dict[str, Blob], path: str, size: int, sample: bytes) -> bool:
    """Whether a new file goes to LFS: by `.gitattributes`, or because it is large or binary."""
    attributes = files.get(".gitattributes", Blob(b"")).data.decode()
    patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
    tracked = any(fnmatchcase(path if "/" in pattern else path.split("/")[-1], pattern) for pattern in patterns)
    return tracked or size > LFS_THRESHOLD or b"\0" in sample


def folders_of(path: str) -> list[str]:
    """The folders that a file or folder lies in, from the root, which is empty."""
    pieces = path.split("/")
    return ["/".join(pieces[:depth]) for depth in range(len(pieces))]


def list_tree(files: dict[str, Blob]) -> dict[str, dict]:
    """A row for every file and folder, by path; the ids of folders are not git's."""
    rows = {}
    for path, blob in sorted(files.items()):
        for folder in filter(None, folders_of(path)):
            oid = hashlib.sha1(folder.encode()).hexdigest()
            rows[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
        rows[path] = {"type": "file", "path": path, **blob.describe("oid", "oid")}
    return rows


def take(planned: list[tuple[str, int]], path: str) -> int | None:
    """Remove the first fault that is planned for a path, and return its value."""
    for index, (part, value) in enumerate(planned):
        if part in path:
            del planned[index]
            return value
    return None


def is_private(settings: dict, default: bool) -> bool:
    """What the client says as `visibility`; older ones said `private`."""
    return settings["visibility"] == "private" if "visibility" in settings else settings.get("private", default)


class HubContent:
    """Everything that the Hub holds, and what tests do to it without a client.

    `repos` are by kind ("model", "dataset", "space") and id. `requests` are method, path (without query, nothing
    quoted) and authorization of each, in order; `ranges` are the `Range` of each download of a file's content.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.accounts: dict[str, Account] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every repository, planned fault and recorded request; the accounts stay."""
        with self.lock:
            self.repos: dict[tuple[str, str], Repo] = {}
            self.requests: list[tuple[str, str, str | None]] = []
            self.ranges: list[str | None] = []
            self.faults: list[tuple[str, int]] = []
            self.drops: list[tuple[str, int]] = []
            self.losses: list[tuple[str, int]] = []

    def add_account(self, name: str, token: str, can_write: bool = True) -> None:
        with self.lock:
            self.accounts[token] = Account(name, token, can_write)

    def fail(self, count: int, status: int, match: str = "") -> None:
        """Answer the next `count` requests whose path contains `match` with an error of that status."""
        with self.lock:
            self.faults += [(match, status)] * count

    def lose(self, count: int, match: str = "") -> None:
        """Do what the next `count` requests say whose path contains `match`, and let their answers get lost."""
        with self.lock:
            self.losses += [(match, 0)] * count

    def drop_after(self, path_part: str, n_bytes: int, times: int = 1) -> None:
        """Break the next `times` downloads of a file whose path contains `path_part`, `n_bytes` into the body."""
        with self.lock:
            self.drops += [(path_part, n_bytes)] * times

    def commit(
        self, kind: str, repo_id: str, files: dict[str, bytes], title="Plant", revision="main", **settings
    ) -> str:
        """Add files to a repository, unchecked, and return the commit's id.

        A missing repository is made, with the settings `private`, `gated`, `sdk`; a missing branch starts at `main`.
        """
        with self.lock:
            repo = self.repos.setdefault((kind, repo_id), Repo(kind, repo_id, **settings))
            head = repo.at(revision if revision in repo.branches else "main")
            lfs = {path: wants_lfs(head.files, path, len(data), data[:512]) for path, data in files.items()}
            blobs = {path: Blob(data, lfs[path]) for path, data in files.items()}
            return repo.add(revision, head.id, head.files | blobs, title, author=repo.owner)

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        with self.lock:
            return {path: blob.data for path, blob in self.repos[kind, repo_id].at(revision).files.items()}

    def commits(self, kind: str, repo_id: str, revision: str = "main") -> list[str]:
        """The titles, newest first."""
        with self.lock:
            return [commit.title for commit in self.repos[kind, repo_id].history(revision)]
