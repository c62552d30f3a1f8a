"""A page's bounds, over real HTTP."""

import shutil
import socket
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from gradio_client import Client
from space import opened_space, save_model, served, visitor

from hcm_hf.hub import serving
from hcm_hf.hub.serving import BOUNDS, SLOW, as_markdown, hide_folders


@pytest.fixture(scope="module")
def app():
    with opened_space() as names:
        yield names


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "vae", "vae")
    save_model(folder / "ddpm", "ddpm")
    return folder


@pytest.fixture
def url(app, models):
    with served(app, app["build_demo"](app["find_generators"](models)[0])) as url:
        yield url


LONG = ["ddpm", 64, 0, "ddpm", 50, None, None, None, 1, False, 0]


def test_one_visitor_cannot_fill_the_line_for_slow_work(url):
    def ask(who):
        return who.post(f"{url}gradio_api/call/denoise", json={"data": LONG}, timeout=30)

    one, bound = visitor("127.0.0.1"), BOUNDS[SLOW]
    answers = [ask(one) for _ in range(50)]
    assert [answer.status_code for answer in answers].count(200) == bound.per_visitor
    assert "wait for one of them" in answers[-1].json()["detail"]
    started = time.monotonic()
    assert len(Client(url, verbose=False).predict("vae", 2, 0, api_name="/generate")[0]) == 2  # not behind slow work
    assert time.monotonic() - started < 20
    others = [ask(visitor(f"127.0.0.{2 + i // bound.per_visitor}")) for i in range(30)]
    accepted = [answer.status_code for answer in others].count(200)
    assert others[0].status_code == 200 and bound.in_all - bound.per_visitor <= accepted <= bound.in_all
    assert "try again" in others[-1].json()["detail"]


def test_nobody_goes_around_the_line(url):
    assert requests.post(f"{url}gradio_api/run/denoise", json={"data": LONG}, timeout=30).status_code == 404


def test_the_page_takes_no_uploads_and_no_large_bodies(url):
    def send(route, **what):
        return requests.post(f"{url}gradio_api/{route}", timeout=30, **what).status_code

    assert send("upload", files={"files": ("a.png", b"x" * 1000)}) == 413
    assert send("call/generate", data=b'{"data": ["' + b"x" * 10**6 + b'"]}') == 413
    chunks = (b"x" * 2**16 for _ in range(100))  # of a length that is not said before
    assert send("call/generate", data=chunks, headers={"Content-Type": "application/json"}) == 413
    assert send("call/generate", json={"data": ["vae", 2, 0, None, False, 0, 0, 0]}) == 200


def test_a_large_body_is_refused_before_it_is_sent(url):
    host, port = url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = "POST /gradio_api/call/generate HTTP/1.1\r\nHost: page\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 200000000\r\n\r\n".encode())
        assert b" 413 " in connection.recv(100)


def test_the_page_works_after_a_cleaner_and_says_no_path(url):
    client = Client(url, verbose=False)
    for _ in range(2):
        assert len(client.predict("vae", 2, 0, api_name="/generate")[0]) == 2
        own = Path(serving._OWN.name)
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        shutil.rmtree(own)
        serving.tidy()


def test_what_nobody_foresaw_is_told_without_a_path(url, monkeypatch):
    monkeypatch.setattr(serving, "_OWN", SimpleNamespace(name="/proc/nowhere"))
    with pytest.raises(Exception, match="could not do this") as error:
        Client(url, verbose=False).predict("vae", 2, 0, api_name="/generate")
    assert "/proc" not in str(error.value)


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("The model in /srv/runs/gan cannot be loaded.", "The model in gan cannot be loaded."),
        ("It lies in '/home/ada/.cache/x/config.json'.", "It lies in 'config.json'."),
        ("It lies in ~/runs/gan (see C:\\runs\\a).", "It lies in gan (see a)."),
        ("See https://huggingface.co/ada/hearts and ada/hearts, runs/gan.",) * 2,
    ],
)
def test_folders_of_the_machine_are_hidden(sentence, shown):
    assert hide_folders(sentence) == shown


def test_markdown_shows_a_text_as_it_is():
    assert as_markdown("<form action='x'>\n![a](http://b)") == r"\<form action\=\'x\'\> \!\[a\]\(http\:\/\/b\)"
