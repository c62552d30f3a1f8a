"""The Spaces as their visitors reach them."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml
from gradio_client import Client, handle_file
from PIL import Image

from hcm_hf.metrics.pixel import mse_matrix, ssim_matrix


SPACES = Path(__file__).parents[1] / "spaces"


def test_every_space_has_its_front_matter():
    for folder in SPACES.iterdir():
        front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
        assert front["sdk"] == "gradio" and (folder / front["app_file"]).is_file()
        assert len(front["short_description"]) <= 60 and (folder / "requirements.txt").is_file()


@pytest.fixture(scope="module")
def metric():
    """The metric's page, being served."""
    demo = runpy.run_path(str(SPACES / "slice-similarity" / "app.py"))["build_demo"]()
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
