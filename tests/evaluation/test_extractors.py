import hashlib
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from tiny import random_images
from torch import nn

from hcm_hf.evaluation import extractors as features
from hcm_hf.evaluation.extractors import load_extractor
from hcm_hf.utils.errors import InputError


REPO, REVISION = "tiny/dinov2", "0123456789" * 4


class FileServer(SimpleHTTPRequestHandler):
    """A folder over HTTP, with the headers of a Hub repository; `drop` cuts every file short."""

    drop = False

    def end_headers(self):
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        super().end_headers()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(100) if self.drop else source.read())

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def server(served, cache, monkeypatch):
    """A server of the folder `served`, in the place of the internet; its cache is empty."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FileServer, directory=served)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(features, "INCEPTION_URL", f"{address}/inception.pt")
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HOME", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return folder


class TinyInception(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, kernel_size=3)
        self.dropout = nn.Dropout()

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.dtype == torch.uint8
        found = self.dropout(self.layer(img.to(torch.float32))).mean(dim=(2, 3))
        return found if return_features else found.softmax(1)


@pytest.fixture
def inception(served, monkeypatch):
    """A network in the place of Inception, to be downloaded, in eval mode."""
    torch.manual_seed(0)
    network = TinyInception()
    torch.jit.script(network).save(served / "inception.pt")
    monkeypatch.setattr(features, "INCEPTION_SHA256", sha256(served / "inception.pt"))
    return network.eval()


@pytest.fixture
def dinov2(served, monkeypatch):
    """A random network in the place of DINOv2, to be downloaded, in eval mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, drop_path_rate=0.5))
    folder = served / REPO / "resolve" / REVISION
    network.save_pretrained(folder)
    monkeypatch.setattr(features, "DINOV2_REPO", REPO)
    monkeypatch.setattr(features, "DINOV2_REVISION", REVISION)
    monkeypatch.setattr(features, "DINOV2_SHA256", sha256(folder / "model.safetensors"))
    return network.eval()


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def close(server):
    server.shutdown()
    server.server_close()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_refused(name, *words):
    """The extractor cannot be loaded, and one sentence says why."""
    with pytest.raises(InputError) as caught:
        load_extractor(name)
    message = str(caught.value)
    assert name in message and message.endswith(".") and "\n" not in message and ". " not in message
    for word in words:
        assert word in message


def test_inception_is_the_downloaded_network_on_8_bit_rgb(server, inception, served, cache):
    images = random_images(70)  # more than a batch
    extractor = load_extractor("inception")
    found = extractor(images)

    rgb = np.rint(images * 255).astype(np.uint8)[:, None].repeat(3, axis=1)
    with torch.no_grad():
        expected = inception(torch.from_numpy(rgb), return_features=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (70, 5) and found.dtype == np.float32
    assert (extractor.name, extractor.version) == ("inception", "inception-2015-12-05.pt")
    assert extractor.hash == sha256(served / "inception.pt")[:16]

    close(server)  # from now on, from the cache
    np.testing.assert_array_equal(load_extractor("inception")(images.astype(np.float64)), found)
    assert [path.name for path in files(cache)] == ["inception-2015-12-05.pt"]


def test_a_damaged_inception_in_the_cache_is_downloaded_again(server, inception, cache):
    load_extractor("inception")
    (cached,) = files(cache)
    cached.write_bytes(cached.read_bytes()[:-1])
    load_extractor("inception")
    assert sha256(cached) == features.INCEPTION_SHA256


def test_inception_that_cannot_be_had_is_one_sentence_and_leaves_no_file(
    server, inception, served, cache, monkeypatch
):
    monkeypatch.setattr(FileServer, "drop", True)
    assert_refused("inception", features.INCEPTION_URL, "incomplete", "SHA-256")
    monkeypatch.setattr(FileServer, "drop", False)
    (served / "inception.pt").write_text("<html>moved</html>")
    assert_refused("inception", features.INCEPTION_URL, "SHA-256")
    (served / "inception.pt").unlink()
    assert_refused("inception", features.INCEPTION_URL, "404", str(cache))
    close(server)
    assert_refused("inception", features.INCEPTION_URL, "refused")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_refused("inception", features.INCEPTION_URL, "offline")
    assert not files(cache)


def test_dinov2_is_the_class_token_of_the_normalised_image(server, dinov2, served):
    images = random_images(3)
    extractor = load_extractor("dinov2")
    found = extractor(images)

    rgb = torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1)
    rgb = nn.functional.interpolate(rgb, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = (rgb - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = dinov2(rgb).pooler_output
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (3, 8) and found.dtype == np.float32
    assert extractor.version == f"{REPO}@{REVISION}"
    assert extractor.hash == sha256(served / REPO / "resolve" / REVISION / "model.safetensors")[:16]

    close(server)  # from now on, from the cache
    np.testing.assert_array_equal(load_extractor("dinov2")(images), found)


def test_dinov2_that_cannot_be_had_is_one_sentence(server, dinov2, served, cache, monkeypatch):
    weights = served / REPO / "resolve" / REVISION / "model.safetensors"
    complete = weights.read_bytes()
    weights.write_bytes(complete[:-1] + b"x")
    assert_refused("dinov2", REPO, "damaged")
    weights.unlink()
    assert_refused("dinov2", REPO, "404")
    weights.write_bytes(complete)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the Hub's client waits before it tries again
    monkeypatch.setattr(FileServer, "drop", True)
    assert_refused("dinov2", REPO)
    monkeypatch.setattr(FileServer, "drop", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_refused("dinov2", REPO, "offline")
    assert not [path for path in files(cache) if path.name == weights.name or path.suffix == ".incomplete"]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load_extractor("dinov2")  # what was damaged is replaced


def test_dinov2_without_a_connection_is_one_sentence(server, dinov2, monkeypatch):
    close(server)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the Hub's client waits before it tries again
    assert_refused("dinov2", REPO, "refused")


def test_dinov2_needs_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert_refused("dinov2", "transformers", "pip install transformers")


def test_unknown_extractor_is_refused():
    with pytest.raises(InputError, match="'vgg'.*inception, dinov2"):
        load_extractor("vgg")


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 1)), np.zeros((0, 8, 8)), np.zeros((2, 8, 8), np.uint8), np.full((2, 8, 8), -1.0)]
    + [np.full((2, 8, 8), np.nan)],
)
def test_images_of_another_kind_are_refused(images):
    extractor = features.Extractor("flat", "1", "0" * 16, torch.flatten, "cpu")
    with pytest.raises(InputError, match="images"):
        extractor(images)
