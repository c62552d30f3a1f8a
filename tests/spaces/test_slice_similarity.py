"""The Spaces as their visitors reach them."""

import configparser
import resource
import runpy
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from PIL import Image

from hcm_hf.metrics.pixel import mse_matrix, ssim_matrix


SPACES = Path(__file__).parents[2] / "spaces"


def test_every_space_has_its_front_matter():
    for folder in SPACES.iterdir():
        front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
        assert front["sdk"] == "gradio" and (folder / front["app_file"]).is_file()
        assert len(front["short_description"]) <= 60 and (folder / "requirements.txt").is_file()


def test_spaces_need_the_versions_that_the_package_needs():
    package = configparser.ConfigParser(interpolation=None)
    package.read(SPACES.parent / "setup.cfg")
    options = package["options"]["install_requires"] + package["options.extras_require"]["space"]
    floors = {Requirement(line).name: Requirement(line).specifier for line in options.split("\n") if line}
    for folder in SPACES.iterdir():
        lines = (folder / "requirements.txt").read_text().splitlines()
        for needed in (Requirement(line) for line in lines if line[:1] not in "#-"):
            assert needed.specifier == floors.get(needed.name, needed.specifier), f"{folder.name}: {needed}"


@pytest.fixture(scope="module")
def metric_page():
    return runpy.run_path(str(SPACES / "slice-similarity" / "app.py"))


@pytest.fixture(scope="module")
def metric(metric_page):
    """The metric's page, being served."""
    demo = metric_page["build_demo"]()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield Client(url, verbose=False)
    demo.close()


def test_the_metric_in_the_browser(metric, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 20), np.uint8)
    files = []
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        files.append(handle_file(tmp_path / f"{index}.png"))
    first, second = images[:2].astype(np.float32) / 255, images[2:].astype(np.float32) / 255
    result = metric.predict(files[:2], files[2:], "all", api_name="/compare")
    assert result["ssim"] == pytest.approx(ssim_matrix(first, second).mean())
    result = metric.predict(files[:2], files[2:], "best", api_name="/compare")
    assert result["mse"] == pytest.approx(mse_matrix(first, second).min(1).mean())
    with pytest.raises(Exception, match="Add images to real images"):
        metric.predict(files[:2], [], "all", api_name="/compare")
    with pytest.raises(Exception, match="differ in number of images: 1 and 2"):
        metric.predict(files[:1], files[2:], "pairs", api_name="/compare")


def refused(metric, files, sentence):
    with pytest.raises(Exception, match=sentence) as error:
        metric.predict([handle_file(file) for file in files], [handle_file(files[0])], "all", api_name="/compare")
    assert "/tmp" not in str(error.value)


def test_a_small_file_with_many_pixels_costs_nothing(metric, tmp_path):
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    Image.new("1", (5_000, 5_000)).save(tmp_path / "large.png")
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(metric, [tmp_path / "bomb.png"], "pixels")
    refused(metric, [tmp_path / "large.png"], "more than 16777216 pixels in all")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_what_is_no_grey_image_of_8_bit_is_refused(metric, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("L", (20, 20)).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:50])
    refused(metric, [tmp_path / "text.png"], "a file is no image")
    refused(metric, [tmp_path / "drawing.eps"], "a file is no image|Invalid file type")
    refused(metric, [tmp_path / "deep.png"], "more than 8 bits")
    refused(metric, [tmp_path / "half.png"], "is damaged|is no image")


def test_pairs_and_uploads_are_bounded(metric, metric_page, tmp_path):
    Image.new("L", (380, 380)).save(tmp_path / "image.png")
    many = [str(tmp_path / "image.png")] * 110
    with pytest.raises(Exception, match="12100 pairs of such images take too long"):
        metric_page["compare"](many, many, "all")
    assert metric_page["compare"](many[:2], many[:2], "all")["mse"] == 0
    upload = {"files": ("a.png", bytes(40_000_000))}
    assert requests.post(f"{metric.src}gradio_api/upload", files=upload, timeout=60).status_code == 413
