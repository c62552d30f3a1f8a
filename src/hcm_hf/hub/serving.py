"""What a page for everybody needs on top of gradio: a folder of its own, and bounds that no visitor can pass.

Import it before gradio, which notes the place of its files when it is imported.
"""

import ipaddress
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


COPY_SECONDS = 600  # after which gradio has its own copy of a file
_OWN = tempfile.TemporaryDirectory(prefix="hcm-generator-")
# The default, /tmp/gradio, may belong to another user of the machine.
os.environ.setdefault("GRADIO_TEMP_DIR", f"{_OWN.name}/gradio")

import gradio as gr  # noqa: E402
from gradio import route_utils  # noqa: E402
from gradio.i18n import I18nData  # noqa: E402
from gradio.queueing import Event, Queue  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.types import ASGIApp, Message, Receive, Scope, Send  # noqa: E402


SLOW = "slow"  # the `concurrency_id` of slow work
LONGEST_SENTENCE = 400
KEPT_SESSIONS = 500  # what visitors have made last is kept for so many of them
# Addresses of proxies between a Space and its visitors; elsewhere whoever connects is the visitor.
_PROXIES = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"


@dataclass(frozen=True)
class Bound:
    """How many requests may wait or run at once.

    Attributes:
        in_all: of all visitors.
        per_visitor: of one visitor.
    """

    in_all: int
    per_visitor: int


BOUNDS = {SLOW: Bound(16, 3), None: Bound(200, 40)}


class BoundedQueue(Queue):
    """gradio's queue with a short line for slow work, and a bound for each visitor."""

    async def push(self, body: Any, request: gr.Request, username: str | None) -> Any:  # noqa: D102
        if body.fn_index is not None:
            kind = _kind(route_utils.get_fn(self.blocks, None, body))
            waiting = [event for line in self.event_queue_per_concurrency_id.values() for event in line.queue]
            running = [event for job in self.active_jobs if job for event in job]
            visitors = [_visitor(event.request) for event in waiting + running if _kind(event.fn) == kind]
            bound, slow = BOUNDS[kind], f"{SLOW} " if kind else ""
            if visitors.count(_visitor(request)) >= bound.per_visitor:
                sentence = f"You have {bound.per_visitor} {slow}requests under way; wait for one of them."
                return False, sentence, "queue_full"
            if len(visitors) >= bound.in_all:
                sentence = f"{bound.in_all} {slow}requests are under way already; try again in a while."
                return False, sentence, "queue_full"
        return await super().push(body, request, username)


class BodyLimit:
    """Refuses requests with a body that is larger than the page has a use for.

    Args:
        app: what answers the others.
        most_bytes: of a body.
        upload_bytes: of a body with files.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, upload_bytes: int):
        self.app, self.most_bytes, self.upload_bytes = app, most_bytes, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before more than the limit has been read."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        most = self.upload_bytes if scope["path"].rstrip("/").endswith("/upload") else self.most_bytes
        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"The request is larger than {most} bytes.")
            return message

        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            response = PlainTextResponse(f"The request is larger than {most} bytes.", status_code=413)
            return await response(scope, receive, send)
        if "/gradio_api/mcp" in scope["path"] and b"x-forwarded-for" not in headers and scope.get("client"):
            # gradio hands an agent's request on to itself with its headers: its sender is to be counted, not gradio.
            scope["headers"] = [*scope["headers"], (b"x-forwarded-for", scope["client"][0].encode())]
        return await self.app(scope, receive_bounded, send)


class Page(gr.Blocks):
    """A page whose work, bodies and sessions are bounded, and whose API has names in plain English.

    Args:
        texts: what keys of translated labels mean in English.
        most_bytes: of a request's body.
        upload_bytes: of a request with files, and of each file; by default the page takes none.
        options: of `gradio.Blocks`.
    """

    _queue: Queue

    def __init__(
        self, texts: dict[str, str] | None = None, most_bytes: int = 2**16, upload_bytes: int = 1, **options: Any
    ):
        self.texts, self.most_bytes, self.upload_bytes = texts or {}, most_bytes, upload_bytes
        super().__init__(**options)

    def queue(self, *arguments: Any, **options: Any) -> "Page":
        """As gradio's, with `BOUNDS`; nothing gets past it."""
        super().queue(*arguments, **{"api_open": False} | options)
        plain = self._queue
        self._queue = BoundedQueue(
            live_updates=plain.live_updates,
            concurrency_count=plain.max_thread_count,
            update_intervals=plain.update_intervals,
            max_size=plain.max_size,
            blocks=self,
            default_concurrency_limit=plain.default_concurrency_limit,
        )
        return self

    def launch(self, **options: Any) -> tuple:
        """As gradio's, with the limits in place."""
        if gr.utils.get_space():
            os.environ.setdefault("FORWARDED_ALLOW_IPS", _PROXIES)
        limit = Middleware(BodyLimit, most_bytes=self.most_bytes, upload_bytes=self.upload_bytes)
        limits = {
            "max_file_size": self.upload_bytes,
            "state_session_capacity": KEPT_SESSIONS,
            "app_kwargs": {"middleware": [limit]},
            "ssr_mode": False,
        }
        return super().launch(**limits | options)

    def get_api_info(self, *arguments: Any, **options: Any) -> dict:
        """As gradio's, which calls every translated output `key`."""
        info = super().get_api_info(*arguments, **options)
        for endpoint in info["named_endpoints"].values():
            for part in (*endpoint["parameters"], *endpoint["returns"]):
                if isinstance(part["label"], I18nData):
                    part["label"] = self.texts[part["label"].key]
        return info


def new_folder() -> Path:
    """A folder for files that gradio copies to its own cache at once."""
    made = Path(_OWN.name, "made")
    for folder in (made.parent, made):  # which somebody may have cleaned away
        folder.mkdir(mode=0o700, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=made))


def tidy() -> None:
    """Remove the folders of earlier requests."""
    for old in Path(_OWN.name, "made").glob("*"):
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > COPY_SECONDS:
                shutil.rmtree(old, ignore_errors=True)


def keep_tidy() -> None:
    """Tidy for as long as the page is served."""
    while True:
        time.sleep(COPY_SECONDS)
        tidy()


def hide_folders(sentence: str) -> str:
    """A sentence with the names of files, but not the folders of this machine that they lie in."""
    return re.sub(r"(?<![\w.:/~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])+", "", sentence)


def one_line(text: str) -> str:
    """A text of somebody else as part of a log: printable, on one line, and not too long."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_SENTENCE else text[: LONGEST_SENTENCE - 1] + "…"


def as_markdown(text: str) -> str:
    """Markdown that shows a text as it is, whatever it holds."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", one_line(text))


def _kind(fn: gr.blocks.BlockFunction) -> str | None:
    return SLOW if fn.concurrency_id == SLOW else None


def _visitor(request: gr.Request | Event) -> str | None:
    """Who sends a request: an IPv4 address, or the network that one subscriber has of IPv6."""
    if request.client is None:
        return None
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return request.client.host
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))
