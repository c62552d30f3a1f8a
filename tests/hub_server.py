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
import hmac
import json
import re
import secrets
import socket
import threading
import traceback
import uuid
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import uvicorn
from hub_repositories import (
    Blob,
    HubContent,
    Refusal,
    Repo,
    folders_of,
    is_private,
    list_tree,
    read_card,
    take,
    wants_lfs,
)
from hub_requests import Call, CutShort, reply
from starlette.requests import Request
from starlette.responses import Response


def environment(url: str, home: str | Path, token: str = "") -> dict[str, str]:
    """What makes the clients use the Hub at `url`, with their caches in `home`."""
    return {
        **{"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"},
        **{"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
        **{f"HF_HUB_DISABLE_{what}": "1" for what in ("XET", "TELEMETRY", "PROGRESS_BARS", "UPDATE_CHECK")},
    }


class HubServer(HubContent):
    """The Hub: `start` it, give its `url` to the clients as their endpoint, `stop` it."""

    def __init__(self):
        super().__init__()
        self.key = secrets.token_bytes()

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
