import ast
import importlib.util
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from tiny import random_images
from torchmetrics.functional.image import structural_similarity_index_measure

import hcm_hf
from hcm_hf.metrics import SLICE_SIMILARITY
from hcm_hf.metrics.pixel import cc_matrix, compare_images, mse_matrix, ssim_matrix


GENERATED, REAL = random_images(6, seed=0), random_images(9, seed=1)


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(SLICE_SIMILARITY)


def test_the_library_gives_the_numbers_of_the_package(metric):
    values = metric.compute(predictions=GENERATED, references=REAL)
    assert values == {
        "ssim": ssim_matrix(GENERATED, REAL).mean(),
        "cc": cc_matrix(GENERATED, REAL).mean(),
        "mse": mse_matrix(GENERATED, REAL).mean(),
    }


@pytest.mark.parametrize("protocol", ["pairs", "all", "best"])
@pytest.mark.parametrize("ranges", [{}, {"data_range": 255.0, "value_range": (-1.0, 1.0)}])
def test_the_numbers_of_reports_are_those_of_the_library_bit_for_bit(metric, protocol, ranges):
    images = {"predictions": GENERATED, "references": REAL[:6]}
    theirs = metric.compute(**images, protocol=protocol, average=False, **ranges)
    ours = compare_images(GENERATED, REAL[:6], protocol, **ranges)
    assert list(ours) == list(theirs) == ["ssim", "cc", "mse"]
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])


def test_reports_do_without_the_library_and_its_folders(monkeypatch):
    """One module of the package imports `evaluate`, and only where that loads it."""
    package = Path(hcm_hf.__file__).parent
    importing = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if "evaluate" in imports(path)}
    assert importing == {"metrics/slice_similarity/slice_similarity.py"}
    monkeypatch.delitem(sys.modules, "evaluate")
    assert "SliceSimilarity" not in vars(load_source()) and "evaluate" not in sys.modules


def imports(path):
    """The modules that a file imports, anywhere in it, and the packages that they are in."""
    tree = ast.parse(path.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)}


def test_best_is_the_most_alike_by_each_metric(metric):
    values = metric.compute(predictions=GENERATED, references=REAL, protocol="best", average=False)
    np.testing.assert_array_equal(values["ssim"], ssim_matrix(GENERATED, REAL).max(1))
    np.testing.assert_array_equal(values["mse"], mse_matrix(GENERATED, REAL).min(1))


def test_without_torch_numpy_gives_the_same(monkeypatch):
    with monkeypatch.context() as patch:  # while the module is loaded, and no longer: others import torch late
        patch.setitem(sys.modules, "torch", None)
        metric = load_source().SliceSimilarity()
    values = metric.compute(predictions=GENERATED, references=REAL, average=False)
    for name, matrix in {"ssim": ssim_matrix, "cc": cc_matrix, "mse": mse_matrix}.items():
        np.testing.assert_allclose(values[name], matrix(GENERATED, REAL), atol=1e-6)
    with pytest.raises(ValueError, match="device is cuda, which needs torch"):
        metric.compute(predictions=GENERATED, references=REAL, device="cuda")


def load_source():
    """The module once more, as where it is alone."""
    path = Path(SLICE_SIMILARITY) / "slice_similarity.py"
    specification = importlib.util.spec_from_file_location("alone", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_module_imports_nothing_of_this_package():
    imported = imports(Path(SLICE_SIMILARITY) / "slice_similarity.py")
    outside = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "torch", "datasets", "evaluate"}


def test_pairs_agree_with_other_libraries(metric):
    first, second = GENERATED, REAL[:6]
    values = metric.compute(predictions=first, references=second, protocol="pairs", average=False)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [structural_similarity(x, y, **options) for x, y in zip(first, second, strict=True)]
    np.testing.assert_allclose(values["ssim"], expected, atol=1e-5)
    tensors = (torch.from_numpy(images)[:, None].double() for images in (first, second))
    _, full = structural_similarity_index_measure(*tensors, data_range=1.0, return_full_image=True)
    theirs = full[:, 0, 5:-5, 5:-5].mean((1, 2))  # of its own mean the border, where it mirrors images, is part
    np.testing.assert_allclose(values["ssim"], theirs.numpy(), atol=1e-5)
    np.testing.assert_allclose(values["mse"], np.square(first - second).mean((1, 2)), atol=1e-7)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(first, second, strict=True)]
    np.testing.assert_allclose(values["cc"], expected, atol=1e-6)


def test_images_can_be_added_one_by_one(metric):
    for x, y in zip(GENERATED, REAL[:6], strict=True):
        metric.add(prediction=x, reference=y)
    values = metric.compute(protocol="pairs")
    assert values == pytest.approx(metric.compute(predictions=GENERATED, references=REAL[:6], protocol="pairs"))


def test_one_side_alone_is_refused_and_never_replaced_by_what_was_added(metric):
    first, second = (np.random.default_rng(seed).random((3, 16, 16), np.float32) for seed in (0, 1))
    metric.add_batch(predictions=first, references=second)
    for side in ("predictions", "references"):
        with pytest.raises(ValueError, match="give both"):
            metric.compute(**{side: first})
    assert metric.compute(protocol="pairs") == metric.compute(predictions=first, references=second, protocol="pairs")


def test_a_wrong_data_range_makes_any_two_images_alike(metric):
    first, second = 2 * GENERATED - 1, 2 * REAL - 1
    wrong = metric.compute(predictions=first, references=second, data_range=255.0, value_range=(-1.0, 1.0))
    assert wrong["ssim"] > 0.95 > 0.5 > metric.compute(predictions=GENERATED, references=REAL)["ssim"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "closest"}, "protocol is 'closest'; choose 'pairs', 'all' or 'best'"),
        ({"protocol": "pairs"}, "differ in number"),
        ({"references": 255 * REAL}, "255"),
        ({"references": REAL[:, :20]}, "differ in image size"),
        ({"predictions": np.full_like(GENERATED, np.nan)}, "nan"),
    ],
)
def test_bad_input_is_refused(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(**{"predictions": GENERATED, "references": REAL} | arguments)
