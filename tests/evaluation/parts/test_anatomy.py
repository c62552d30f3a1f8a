from dataclasses import replace

import numpy as np
import pytest
import torch

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.evaluation.comparison import Comparison, Reference
from hcm_hf.evaluation.encoder import Encoder, Instrument
from hcm_hf.evaluation.images import GeneratedImages, GeneratedPairs, RealSlices
from hcm_hf.evaluation.parts import PARTS
from hcm_hf.evaluation.parts.anatomy import anatomy_rows
from hcm_hf.metrics.anatomy import chamber_areas
from hcm_hf.models import SliceEncoder


COUNT = 12
PIXEL = 8.0  # mm at 16 px


def instrument(seed: int, phase: int | None = None) -> Instrument:
    """A real network that has learnt nothing, or that takes every slice for one phase."""
    torch.manual_seed(seed)
    network = SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (4, 8)).eval()
    if phase is not None:
        network.to_phase.bias.data[phase] = 1e6
    return Instrument(network, "1", str(seed) * 16, {})


def slices(name: str) -> RealSlices:
    random = np.random.default_rng(len(name))
    patients = np.array([f"{name}{index // 2}" for index in range(COUNT)])
    return RealSlices(
        images=random.random((COUNT, 16, 16), np.float32),
        masks=random.integers(0, 4, (COUNT, 16, 16)).astype(np.int8),
        patients=patients,
        groups=np.full(COUNT, "HCM"),
        phases=np.arange(COUNT) % 2,
        positions=np.linspace(0, 1, COUNT, dtype=np.float32),
        identities={one: [one] for one in patients.tolist()},
    )


@pytest.fixture
def segmenter():
    """It takes all slices for end systole."""
    return instrument(2, PHASES.index("ES"))


def compare(segmenter: Instrument, phases=None, thirds=None) -> Comparison:
    """Images of which some phases and thirds were asked for."""
    nothing = np.full(COUNT, -1)
    pairs = None
    if phases is not None or thirds is not None:
        masks = np.zeros((COUNT, 16, 16), np.uint8)
        asked = (nothing if one is None else np.array(one) for one in (phases, thirds))
        pairs = GeneratedPairs(masks, np.full(COUNT, ""), *asked)
    images = np.random.default_rng(0).random((COUNT, 16, 16), np.float32)
    encoder = Encoder(instrument(1), segmenter, "tiny")
    return Comparison(GeneratedImages(images, pairs=pairs), Reference(slices("train"), slices("test")), encoder)


def count(numbers, phase):
    """How many slices count as one of a phase: every slice has areas."""
    return numbers[f"lv_area_{phase}"].n_generated


def test_the_phase_that_was_asked_for_counts_and_the_predicted_one_where_none_was(segmenter):
    asked = np.array([0] * 5 + [1] * 4 + [-1] * 3)
    comparison = compare(segmenter, asked)
    row = anatomy_rows(comparison, None)["generated"]
    assert (count(row, "ed"), count(row, "es")) == (5, 7)
    areas = chamber_areas(comparison.predictions["generated"].masks, PIXEL)
    assert row["lv_area_ed"].value == pytest.approx(areas[:5, 2].mean())
    assert row["lv_area_es"].value == pytest.approx(areas[5:, 2].mean())
    assert row["ed_share"].value == 0  # what the segmenter takes them for is a number of its own
    row = anatomy_rows(compare(segmenter), None)["generated"]
    assert (count(row, "ed"), count(row, "es")) == (0, COUNT)


def test_of_real_slices_the_true_phase_counts(segmenter):
    comparison = compare(segmenter)
    rows = anatomy_rows(comparison, None)
    for name, real in (("real", comparison.reference.heldout), ("training", comparison.reference.training)):
        areas = chamber_areas(comparison.predictions[name].masks, PIXEL)
        for phase, label in enumerate(("ed", "es")):
            assert rows[name][f"lv_area_{label}"].value == pytest.approx(areas[real.phases == phase, 2].mean())
        assert rows[name]["ed_share"].value == 0
    assert rows["true_masks"]["ed_share"].value == 0.5
    assert count(rows["mean_image"], "ed") == 0


def test_levels_are_those_asked_for_each_where_it_was(segmenter):
    asked, thirds = np.array([0, 1, -1] * 4), np.array([2] * 6 + [-1] * 6)
    comparison = compare(segmenter, asked, thirds)
    predicted = comparison.predictions["generated"].levels
    levels = comparison.levels
    np.testing.assert_array_equal(levels["generated"] // 3, np.where(asked >= 0, asked, 1))
    np.testing.assert_array_equal(levels["generated"] % 3, np.where(thirds >= 0, thirds, predicted % 3))
    np.testing.assert_array_equal(levels["real"], comparison.reference.heldout.levels)
    np.testing.assert_array_equal(compare(segmenter).levels["generated"], predicted)
    assert replace(comparison, encoder=None).levels == {"generated": None, "real": None}


def test_a_segmenter_of_other_groups_measures_all_but_the_diagnosis(segmenter):
    comparison = compare(segmenter)
    assert PARTS["anatomy"].partly(comparison) == ""
    other = replace(slices("test"), groups=np.array(["HCM", "athlete"] * (COUNT // 2)))
    unknown = replace(comparison, reference=replace(comparison.reference, all_heldout=other))
    reason = PARTS["anatomy"].partly(unknown)
    assert "the encoder tells DCM, HCM, MINF, NOR, RV apart, and the dataset has other groups" in reason
    known, rows = (anatomy_rows(one, None) for one in (comparison, unknown))
    for name in ("generated", "real", "training", "mean_image"):
        assert [label for label in known[name] if label != "group_share"] == list(rows[name])
        assert "group_share" in known[name]


def test_anatomy_is_of_the_segmenter_and_distances_are_of_the_feature_encoder(segmenter):
    comparison = compare(segmenter)
    for numbers in anatomy_rows(comparison, None).values():
        assert {number.encoder for number in numbers.values()} == {"2" * 16}
    features = comparison.encoder.features.predict(comparison.reference.heldout.images).features
    np.testing.assert_array_equal(comparison.features["real"], features)
    assert not np.array_equal(features, comparison.predictions["real"].features)
