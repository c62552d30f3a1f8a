"""The Space under load: many requests of many clients, memory, and a restart while a request is under way."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests
from space import SPACE, From

from campaigns.outcomes import Outcomes


_MODELS = SPACE.parents[1] / "pretrained"
_MODEL = "hcm-dcgan-64"
_SECONDS = 300  # that an answer may take
_GROWTH = 1.1  # of the memory between the first and the last round
_NOTHING = (None, False, 0, 0, 0, None, None, 0, False)  # of what may be left open in a request


def load(folder: Path, outcomes: Outcomes, tries: int = 200, clients: int = 50, rounds: int = 4) -> None:
    """Ask the Space for images from many addresses at once, and count the answers.

    Args:
        folder: an empty one for the page's files.
        outcomes: get what becomes of the requests.
        tries: requests in a round.
        clients: how many ask at once, each from an address of its own.
        rounds: the same requests again; the page's memory may not grow over them.
    """
    with _space(folder) as (process, url):
        held = []
        for _ in range(rounds):
            with ThreadPoolExecutor(clients) as pool:
                asked = [pool.submit(_ask, url, number % clients, number) for number in range(tries)]
            for number, one in enumerate(asked):
                outcomes.record(f"{clients} clients at once", one.result, number, limits=False)
            held.append(_memory(process))

        def stays_flat() -> None:
            assert held[-1] <= _GROWTH * held[0], f"the page holds {[round(one / 2**20) for one in held]} MiB"

        outcomes.record(f"memory over {rounds} rounds of {tries} requests", stays_flat, limits=False)
        files = [path for one in asked for path in one.result()]

        def keeps_files_apart() -> None:
            for place in {Path(path).parent.parent for path in files} | {folder, Path("/etc/passwd")}:
                answer = requests.get(f"{url}gradio_api/file={place}", timeout=_SECONDS)
                assert answer.status_code in (403, 404), f"{place} is served: {answer.status_code}"

        outcomes.record("folders of the page's files", keeps_files_apart, limits=False)
        restarts = [ThreadPoolExecutor(1).submit(_ask, url, 0, number, 64) for number in range(3)]
        time.sleep(0.2)
        process.kill()

    def ends(one: object) -> None:
        try:
            one.result(timeout=_SECONDS)  # type: ignore[attr-defined]
        except (requests.RequestException, AssertionError):
            pass  # the client sees that the connection is gone

    for one in restarts:
        outcomes.record("a restart during a request", lambda one=one: ends(one), limits=False)
    with _space(folder) as (_, url):
        outcomes.record("a request after it", lambda: _ask(url, 0, 0), limits=False)


@contextmanager
def _space(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The page with the shipped models, in a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, str(SPACE / "app.py"), "--models", str(_MODELS)]
    with open(folder / "page.log", "wb") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in itertools.count():
            assert process.poll() is None, (folder / "page.log").read_text()[-2000:]
            try:
                requests.get(url, timeout=_SECONDS).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.5)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _ask(url: str, client: int, seed: int, count: int = 4) -> list[str]:
    """Ask for some images from an address of one's own, fetch them, and return their paths."""
    with requests.Session() as session:
        session.mount("http://", From(f"127.0.0.{client + 2}"))
        address = f"{url}gradio_api/call/generate"
        data = [_MODEL, count, seed, *_NOTHING]
        event = session.post(address, json={"data": data}, timeout=_SECONDS).json()["event_id"]
        lines = session.get(f"{address}/{event}", timeout=_SECONDS).text.splitlines()
        last = max(index for index, line in enumerate(lines) if line.startswith("event: "))
        assert lines[last] == "event: complete", lines[last:]
        gallery = json.loads(lines[last + 1].removeprefix("data: "))[0]
        paths = [one["image"]["path"] for one in gallery]
        assert len(paths) == count
        for path in paths:
            answer = session.get(f"{url}gradio_api/file={path}", timeout=_SECONDS)
            assert answer.ok and answer.content.startswith(b"\x89PNG")
        return paths


def _memory(process: subprocess.Popen) -> int:
    """Bytes that a process holds."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
