"""The generators' Space as the tests open it, and a page of it that is served."""

import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from tiny import build_tiny
from tiny import notes as noted


SPACE = Path(__file__).parents[1] / "spaces" / "hcm-generator"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split() + [
    *("--disable-component-update", "--disable-sync")
]
PAIRED, PAIRED_GAN = "ddpm-tuned", "acgan-paired"
NAMES = ("vae", "gan", "dcgan", "acgan", PAIRED_GAN, "infogan", "ddpm", PAIRED)  # of the tests' models, as listed
MODULES = ("hcm_hf.hub.serving", "notes", "scores", "generators", "catalogue", "copies", "studio", "handlers")


@contextmanager
def opened_space() -> Iterator[dict]:
    """The names of the Space's modules, as Python finds them beside `app.py`."""
    sys.path.insert(0, str(SPACE))
    page = runpy.run_path(str(SPACE / "app.py"))
    yield {name: value for module in MODULES for name, value in vars(sys.modules[module]).items()} | page
    sys.path.remove(str(SPACE))


@contextmanager
def served(app: dict, demo, **options) -> Iterator[str]:
    """The address of a page while it is served as `app.py` does it."""
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, i18n=app["t"], css=app["CSS"], **options)
    try:
        yield url
    finally:
        demo.close()


@contextmanager
def chromium_started():
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def save_model(folder: Path, family: str, recipe: str = "paper", notes: dict | str | None = None) -> Path:
    """An untrained model at its tiny size, with what a run would say of it."""
    build_tiny(family, recipe=recipe).pipeline().save_pretrained(folder)
    text = notes if isinstance(notes, str) else json.dumps(noted(family=family, recipe=recipe) | (notes or {}))
    (folder / "training_config.json").write_text(text)
    return folder


class From(HTTPAdapter):
    """Requests that come from another address of this machine."""

    def __init__(self, address: str):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, **options, source_address=(self.address, 0))


def visitor(address: str) -> requests.Session:
    """Somebody who visits from that address."""
    session = requests.Session()
    session.mount("http://", From(address))
    return session
