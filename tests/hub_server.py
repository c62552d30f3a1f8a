"""A small Hugging Face Hub on 127.0.0.1, which the unmodified clients use over real HTTP.

It keeps everything in memory and speaks what the clients speak with `HF_HUB_DISABLE_XET=1`: repositories, branches,
tags and pull requests, uploads through git-LFS, downloads through a redirect to another origin, and the Hub's errors.

It is more lenient than the real Hub: passing here proves the client's side, not hf.co's policy. It does not check
repository names, organisations and roles, quotas and rate limits, a card's fields other than `license` and
`model-index`, `.gitignore`, paths in a commit, or whether a large file comes as a regular one. It infers no library or
task that the card does not name. It has no Xet, multipart uploads, listings in pages or with each file's last commit,
discussions, lists of repositories, renaming, deleting of branches and tags, or git itself. Unknown addresses: 404.

Nothing here imports a client: they read their environment when imported, so `environment` has to be in place before.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import socket
import threading
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import Response


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


def environment(url: str, home: str | Path, token: str = "") -> dict[str, str]:
    """What makes the clients use the Hub at `url`, with their caches in `home`."""
    return {
        **{"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"},
        **{"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
        **{f"HF_HUB_DISABLE_{what}": "1" for what in ("XET", "TELEMETRY", "PROGRESS_BARS", "UPDATE_CHECK")},
    }


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


@dataclass
class Call:
    """A request, by somebody or by nobody."""

    request: Request
    body: bytes
    account: Account | None

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def asks(self, option: str) -> bool:
        return self.request.query_params.get(option, "").lower() in ("1", "true")

    def writer(self, owner: str | None = None) -> Account:
        """Who calls, if he may write at all, and under the name of `owner`."""
        if self.account is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.account.can_write or owner not in (None, self.account.name):
            raise Refusal(403, f"This token has no right to write under {owner or self.account.name}")
        return self.account


class CutShort(Response):
    """Promises its whole body, sends the first `kept` bytes and stops, whereupon uvicorn closes the connection."""

    def __init__(self, content: bytes, status: int, headers: dict, kept: int):
        super().__init__(content, status, headers)
        self.kept = kept

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: self.kept], "more_body": True})


def reply(value: Any, status: int = 200, headers: dict | None = None) -> Response:
    return Response(json.dumps(value, default=str), status, headers, media_type="application/json")


def take(planned: list[tuple[str, int]], path: str) -> int | None:
    """Remove the first fault that is planned for a path, and return its value."""
    for index, (part, value) in enumerate(planned):
        if part in path:
            del planned[index]
            return value
    return None


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


def is_private(settings: dict, default: bool) -> bool:
    """What the client says as `visibility`; older ones said `private`."""
    return settings["visibility"] == "private" if "visibility" in settings else settings.get("private", default)


class HubServer:
    """The Hub: `start` it, give its `url` to the clients as their endpoint, `stop` it.

    `repos` are by kind ("model", "dataset", "space") and id. `requests` are method, path (without query, nothing
    quoted) and authorization of each, in order; `ranges` are the `Range` of each download of a file's content.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.accounts: dict[str, Account] = {}
        self.key = secrets.token_bytes()
        self.reset()

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for its body
        port = listener.getsockname()[1]
        self.url, self.cdn_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}/cdn"
        options = {"interface": "asgi3", "lifespan": "off", "ws": "none", "log_config": None, "log_level": "critical"}
        self.server = uvicorn.Server(uvicorn.Config(self.respond, timeout_graceful_shutdown=1, **options))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    # What tests do without a client.

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

    # The way of a request.

    async def respond(self, scope, receive, send) -> None:
        """The ASGI application. A request is answered under the lock: what it changes, it changes at once."""
        request = Request(scope, receive)
        body = await request.body()
        with self.lock:
            try:
                response = self.answer(request, body)
            except Refusal as refusal:
                response = reply(refusal.body, refusal.status, refusal.headers)
            except Exception:  # a mistake of this server; the clients do not try again after this status
                response = reply({"error": traceback.format_exc()}, 501)
            if (kept := take(self.losses, scope["path"])) is not None:
                response = CutShort(response.body or b" ", 200, {}, kept)
        response.headers["X-Request-Id"] = str(uuid.uuid4())
        await response(scope, receive, send)

    def answer(self, request: Request, body: bytes) -> Response:
        path, authorization = request.scope["path"], request.headers.get("authorization")
        self.requests.append((request.method, path, authorization))
        if status := take(self.faults, path):
            raise Refusal(status, "Injected failure")
        account = self.accounts.get(authorization.removeprefix("Bearer ")) if authorization else None
        if authorization and account is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        call = Call(request, body, account)
        if handler := self.ROUTES.get(f"{request.method} {path}"):
            return handler(self, call)
        raw_path = request.scope["raw_path"].decode().replace(".git/info/lfs/objects/batch", "/lfs-batch")
        kinds = "models|datasets|spaces"
        found = re.fullmatch(rf"/(?:(api|cdn)/(?=(?:{kinds})/))?(?:({kinds})/)?(.*)", raw_path)
        return self.answer_about_repo(call, found[1] or "", (found[2] or "models")[:-1], found[3].split("/"))

    def answer_about_repo(self, call: Call, area: str, kind: str, quoted: list[str]) -> Response:
        """Route an id of one or two pieces, an action and its arguments."""
        pieces = [unquote(piece) for piece in quoted]
        end = next((end for end in (1, 2) if pieces[end:] and pieces[end] in self.ACTIONS), len(pieces))
        repo_id, (action, *arguments) = "/".join(pieces[:end]), pieces[end:] or [""]
        handler = self.ROUTES.get(f"{call.request.method} {area}/{action}")
        if handler is None or end > 2:
            raise Refusal(404, "Not found")
        repo = self.repos.get((kind, repo_id))
        hidden = repo and repo.private and area != "cdn" and not (call.account and call.account.name == repo.owner)
        if repo is None or hidden:
            raise Refusal(404 if call.account else 401, "Repository not found", "RepoNotFound")
        return handler(self, call, repo, *arguments)

    # What concerns no one repository, or whether there is one.

    def whoami(self, call: Call) -> Response:
        if call.account is None:
            raise Refusal(401, "Invalid username or password.")
        name, role = call.account.name, "write" if call.account.can_write else "read"
        auth = {"type": "access_token", "accessToken": {"displayName": name, "role": role}}
        return reply({"type": "user", "name": name, "fullname": name, "orgs": [], "auth": auth})

    def validate_yaml(self, call: Call) -> Response:
        _, errors, warnings = read_card(Blob(call.json["content"].encode()))
        found = {
            "errors": [{"message": line} for line in errors],
            "warnings": [{"message": line} for line in warnings],
        }
        if errors:
            raise Refusal(400, "Invalid metadata in README.md", **found)
        return reply(found)

    def create(self, call: Call) -> Response:
        owner = call.writer(call.json.get("organization")).name
        key = call.json.get("type", "model"), f"{owner}/{call.json['name']}"
        if key in self.repos:
            raise Refusal(409, f"You already created this {key[0]} repo", url=f"{self.url}/{self.repos[key].path}")
        if key[0] == "space" and "sdk" not in call.json:
            raise Refusal(400, "A Space needs an sdk")
        self.repos[key] = Repo(*key, private=is_private(call.json, False), sdk=call.json.get("sdk"))
        return reply({"name": key[1], "url": f"{self.url}/{self.repos[key].path}"})

    def delete(self, call: Call) -> Response:
        owner = call.writer(call.json.get("organization")).name
        if self.repos.pop((call.json.get("type", "model"), f"{owner}/{call.json['name']}"), None) is None:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return reply({})

    # Looking at a repository.

    def info(self, call: Call, repo: Repo, revision: str = "main") -> Response:
        commit, first = repo.at(revision), list(repo.history("main"))[-1]
        card = read_card(commit.files.get("README.md", Blob(b"")))[0]
        tags = card["tags"] if isinstance(card.get("tags"), list) else []
        licenses = [f"license:{card['license']}"] if "license" in card else []
        value = {"_id": first.id[:24], "id": repo.id, "modelId": repo.id, "author": repo.owner, "sha": commit.id}
        value |= {"lastModified": commit.date, "createdAt": first.date, "disabled": False, "downloads": 0, "likes": 0}
        value |= {"private": repo.private, "gated": repo.gated} | ({"sdk": repo.sdk} if repo.sdk else {})
        value |= {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
        value |= {"cardData": card, "tags": tags + licenses}
        value["siblings"] = [
            {"rfilename": path} | (blob.describe("blobId", "sha256") if call.asks("blobs") else {})
            for path, blob in sorted(commit.files.items())
        ]
        expand = call.request.query_params.getlist("expand")
        return reply({key: value[key] for key in value if not expand or key in {"_id", "id", *expand}})

    def tree(self, call: Call, repo: Repo, revision: str, *pieces: str) -> Response:
        folder, commit = "/".join(pieces), repo.at(revision)
        depths = slice(None if call.asks("recursive") else -1, None)
        rows = [row for path, row in list_tree(commit.files).items() if folder in folders_of(path)[depths]]
        if folder and not rows:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit.header)
        return reply(rows)

    def paths_info(self, call: Call, repo: Repo, revision: str) -> Response:
        rows = list_tree(repo.at(revision).files)
        return reply([rows[path] for path in parse_qs(call.body.decode())["paths"] if path in rows])

    def refs(self, call: Call, repo: Repo) -> Response:
        value = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for name, commit in repo.branches.items():
            key, prefix = ("pullRequests", "") if name.startswith("refs/pr/") else ("branches", "refs/heads/")
            value[key].append({"name": name, "ref": prefix + name, "targetCommit": commit})
        for name, commit in repo.tags.items():
            value["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit})
        return reply(value)

    def log(self, call: Call, repo: Repo, revision: str) -> Response:
        rows = [
            {"id": commit.id, "title": commit.title, "message": commit.message, "date": commit.date}
            | {"authors": [{"user": commit.author}]}
            for commit in repo.history(revision)
        ]
        return reply(rows)

    # Changing a repository.

    def settings(self, call: Call, repo: Repo) -> Response:
        call.writer(repo.owner)
        repo.private, repo.gated = is_private(call.json, repo.private), call.json.get("gated", repo.gated)
        return reply({"private": repo.private, "gated": repo.gated})

    def check_rights(self, call: Call, repo: Repo, right: str = "read") -> Response:
        if right == "write":
            call.writer(repo.owner)
        return reply({})

    def create_branch(self, call: Call, repo: Repo, name: str) -> Response:
        return self.create_ref(call, repo, repo.branches, name, call.json.get("startingPoint", "main"))

    def create_tag(self, call: Call, repo: Repo, revision: str) -> Response:
        return self.create_ref(call, repo, repo.tags, call.json["tag"], revision)

    def create_ref(self, call: Call, repo: Repo, refs: dict[str, str], name: str, revision: str) -> Response:
        call.writer(repo.owner)
        if name in refs:
            raise Refusal(409, f"Reference {name} already exists")
        refs[name] = repo.at(revision).id
        return reply({})

    def preupload(self, call: Call, repo: Repo, revision: str) -> Response:
        call.writer(None if call.asks("create_pr") else repo.owner)
        files, answers = repo.at(revision).files, []
        for file in call.json["files"]:
            lfs = wants_lfs(files, file["path"], file["size"], base64.b64decode(file["sample"]))
            held = files[file["path"]].id if file["path"] in files else None
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular"}
            answers.append(answer | {"shouldIgnore": False, "oid": held})
        return reply({"files": answers})

    def lfs_batch(self, call: Call, repo: Repo) -> Response:
        """Where to put what is not there yet. Anybody who may write at all may ask: it may be for a pull request."""
        call.writer()
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in call.json["objects"]]
        verify = {"href": f"{self.url}/api/{repo.kind}s/{repo.id}/lfs-verify", "header": {}}
        for wanted in objects:
            if wanted["oid"] not in repo.objects:
                upload = {"href": self.signed("PUT", repo, wanted["oid"]), "header": {}}
                wanted["actions"] = {"upload": upload, "verify": verify}
        return reply({"transfer": "basic", "objects": objects})

    def lfs_verify(self, call: Call, repo: Repo) -> Response:
        if len(repo.objects.get(call.json["oid"], Blob(b"")).data) != call.json["size"]:
            raise Refusal(404, "The object is not there, or of another size")
        return reply({})

    def receive_commit(self, call: Call, repo: Repo, revision: str) -> Response:
        create_pr, head = call.asks("create_pr"), repo.at(revision)
        author = call.writer(None if create_pr else repo.owner).name
        header, *changes = (json.loads(line) for line in call.body.splitlines())
        if revision not in repo.branches:
            raise Refusal(404, f"{revision} is no branch", "RevisionNotFound")
        if header["value"].get("parentCommit") not in (None, head.id):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for change in changes:
            self.apply(change["key"], change["value"], files, repo.objects)
        readme = files.get("README.md", Blob(b""))
        if readme != head.files.get("README.md") and (errors := read_card(readme)[1]):
            raise Refusal(400, f"Invalid metadata in README.md: {errors[0]}")
        number = 1 + sum(name.startswith("refs/pr/") for name in repo.branches)
        branch = f"refs/pr/{number}" if create_pr else revision
        commit = repo.add(branch, head.id, files, header["value"]["summary"], header["value"]["description"], author)
        page = f"{self.url}/{repo.path}"
        pull = {"pullRequestUrl": f"{page}/discussions/{number}"} if create_pr else {}
        return reply({"success": True, "commitOid": commit, "commitUrl": f"{page}/commit/{commit}"} | pull)

    def apply(self, key: str, value: dict, files: dict[str, Blob], objects: dict[str, Blob]) -> None:
        """Do to `files` what one line of a commit says."""
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in objects:
                raise Refusal(400, f"The content of {path} was not uploaded")
            files[path] = objects[value["oid"]]
        else:  # deletedFile, deletedFolder
            gone = [name for name in files if name == path or name.startswith(f"{path.rstrip('/')}/")]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]

    # The content of files.

    def resolve(self, call: Call, repo: Repo, revision: str, *pieces: str) -> Response:
        commit, path = repo.at(revision), "/".join(pieces)
        if repo.gated and not (call.account and call.account.name == repo.owner):
            status = 403 if call.account else 401
            raise Refusal(status, f"Access to {repo.id} is restricted", "GatedRepo", commit.header)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", commit.header)
        blob = commit.files[path]
        if not blob.lfs:
            return self.send(call, blob, commit.header)
        linked = {"X-Linked-Etag": f'"{blob.id}"', "X-Linked-Size": str(len(blob.data))}
        location = {"Location": self.signed("GET", repo, blob.id, f"/{quote(path)}")}
        return Response(status_code=302, headers=commit.header | linked | location)

    def signed(self, method: str, repo: Repo, oid: str, name: str = "") -> str:
        """An address at the other origin, where no token is needed; a file's name is only there to be recognised."""
        signature = self.signature(method, repo, oid)
        return f"{self.cdn_url}/{repo.kind}s/{repo.id}/object/{oid}{name}?signature={signature}"

    def signature(self, method: str, repo: Repo, oid: str) -> str:
        return hmac.new(self.key, f"{method} {repo.path} {oid}".encode(), "sha256").hexdigest()

    def stored_object(self, call: Call, repo: Repo, oid: str, *name: str) -> Response:
        if call.request.query_params.get("signature") != self.signature(call.request.method, repo, oid):
            raise Refusal(403, "The signature does not match")
        if call.request.method == "GET":
            return self.send(call, repo.objects[oid], {})
        blob = Blob(call.body, lfs=True)
        if blob.sha256 != oid:
            raise Refusal(400, "The content is not what was announced")
        repo.objects[oid] = blob
        return Response()

    def send(self, call: Call, blob: Blob, headers: dict) -> Response:
        """The content or a range of it, broken off where a test has planned that."""
        data, size, wanted = blob.data, len(blob.data), call.request.headers.get("range")
        status, headers = 200, headers | {"ETag": f'"{blob.id}"', "Accept-Ranges": "bytes"}
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or ""):
            first, last = int(span[1]), min(int(span[2] or size), size - 1)
            if first > last:
                raise Refusal(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
            status, data = 206, data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        if call.request.method == "HEAD":
            return Response(data, status, headers)
        self.ranges.append(wanted)
        kept = take(self.drops, call.request.scope["path"])
        return Response(data, status, headers) if kept is None else CutShort(data, status, headers, kept)

    # Whole paths; and area and action of those with a repository in between.
    ROUTES = {
        "GET /api/whoami-v2": whoami,
        "POST /api/validate-yaml": validate_yaml,
        "POST /api/repos/create": create,
        "DELETE /api/repos/delete": delete,
        "GET api/": info,
        "GET api/revision": info,
        "GET api/tree": tree,
        "POST api/paths-info": paths_info,
        "GET api/refs": refs,
        "GET api/auth-check": check_rights,
        "GET api/commits": log,
        "PUT api/settings": settings,
        "POST api/branch": create_branch,
        "POST api/tag": create_tag,
        "POST api/preupload": preupload,
        "POST /lfs-batch": lfs_batch,
        "PUT cdn/object": stored_object,
        "POST api/lfs-verify": lfs_verify,
        "POST api/commit": receive_commit,
        "HEAD /resolve": resolve,
        "GET /resolve": resolve,
        "GET cdn/object": stored_object,
    }
    ACTIONS = {route.split("/")[1] for route in ROUTES} - {"", "api"}
