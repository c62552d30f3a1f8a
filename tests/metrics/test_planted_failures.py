"""Sets of images with a known fault, which some of the distances have to show."""

import numpy as np
import pytest
from samples import describe, scenes, spectra_apart
from scipy import ndimage

from hcm_hf.metrics.distribution import frechet_distance, kernel_distance, neighbour_scores, principal_components


@pytest.fixture(scope="module")
def planted():
    """Image sets against held-out ones: Frechet distance on 8 components, spectrum distance, neighbour scores."""
    training, heldout = scenes(150, seed=1), scenes(150, seed=2)
    generator = np.random.default_rng(3)
    mean = np.tile(training.mean(0), (150, 1, 1))
    offered = {
        "other": scenes(150, seed=4),
        "copies": training,
        "noise": (training + 0.1 * generator.standard_normal(training.shape)).clip(0, 1),
        "blur": ndimage.gaussian_filter(training, (0, 1, 1)),
        "mean": mean,
        "one": np.repeat(training[:3], 50, axis=0),
    }
    components = principal_components(describe(heldout), 8)
    reference = components.project(describe(heldout))
    features = {name: components.project(describe(images)) for name, images in offered.items()}
    return {
        "frechet": {name: frechet_distance(x, reference) for name, x in features.items()},
        "kernel": {name: kernel_distance(x, reference) for name, x in features.items()},
        "spectrum": {name: spectra_apart(images, heldout) for name, images in offered.items()},
        "neighbours": {name: neighbour_scores(x, reference) for name, x in features.items()},
    }


def test_copies_score_as_well_as_other_images(planted):
    for name in ("frechet", "spectrum"):
        assert planted[name]["copies"] < 2 * planted[name]["other"]
    assert min(planted["neighbours"]["copies"]) > 0.7


@pytest.mark.parametrize(
    "failure, distances",
    [
        ("noise", ("frechet", "kernel", "spectrum")),
        ("blur", ("spectrum",)),
        ("mean", ("frechet", "kernel", "spectrum")),
        ("one", ("frechet", "kernel")),
    ],
)
def test_planted_failures_raise_the_distances(planted, failure, distances):
    for name in distances:
        sound = max(planted[name]["other"], planted[name]["copies"])
        assert planted[name][failure] > 5 * sound, name


def test_collapse_is_not_covered(planted):
    for failure in ("mean", "one"):
        assert planted["neighbours"][failure].recall < 0.1
        assert planted["neighbours"][failure].coverage < 0.3
