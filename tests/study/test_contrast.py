import csv

import numpy as np
import pytest
from PIL import Image
from tiny import build_tiny

from hcm_hf.metrics.anatomy import closed_wall_thickness
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.study.contrast import Contrast, contrast_groups
from hcm_hf.study.walls import draw_request
from hcm_hf.utils.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tuned"
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(folder)
    return folder


def test_walls_are_those_of_the_pairs_that_the_model_draws(model, tmp_path):
    contrast = contrast_groups(tmp_path / "out", model, ("NOR", "DCM"), num_images=10, seed=3)
    pipeline = HCMPipeline.from_pretrained(model)
    for group, walls in contrast.walls.items():
        _, masks = draw_request(pipeline, {"group": group, "phase": "ED", "level": "mid"}, 10, 3)
        np.testing.assert_array_equal(walls, closed_wall_thickness(masks, 8.0))
    rows = list(csv.DictReader(contrast.table.read_text().splitlines()))
    assert [row["group"] for row in rows] == ["NOR"] * 10 + ["DCM"] * 10
    for row, wall in zip(rows, np.concatenate(list(contrast.walls.values())), strict=True):
        assert row["wall_mm"] == (f"{wall:.2f}" if np.isfinite(wall) else "")
    picture = np.asarray(Image.open(contrast.figure).convert("RGB")).astype(int)
    assert (np.ptp(picture, axis=-1) > 40).any()  # colours of outlines


def test_the_summary_counts_closed_rings_alone(tmp_path):
    contrast = Contrast({"HCM": np.array([14.0, 15.0, 18.0, np.nan]), "NOR": np.array([np.nan])}, tmp_path, tmp_path)
    first, second, *_ = str(contrast).splitlines()
    assert first == "HCM: 3 of 4 walls are closed rings, 15.0 mm thick in the median, 67% of 15 mm or more"
    assert second == "NOR: 0 of 1 walls are closed rings"


def test_bad_arguments_leave_nothing(model, tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "dcgan")
    for arguments, sentence in [
        ({"groups": ("HCM", "HOCM")}, "group is 'HOCM'; choose among"),
        ({"groups": ()}, "groups must name one or more"),
        ({"num_images": 0}, "num_images"),
        ({"model": tmp_path / "dcgan"}, "makes no segmentations"),
        ({"model": "hcm-nothing"}, "hcm-nothing"),
    ]:
        with pytest.raises(InputError, match=sentence):
            contrast_groups(tmp_path / "out", **{"model": model} | arguments)
    assert not (tmp_path / "out").exists()
