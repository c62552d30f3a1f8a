import json

import numpy as np
import pytest
import torch
from tiny import build_tiny, save_encoder

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.models import SliceEncoder
from hcm_hf.study.walls import examine_walls, follow
from hcm_hf.utils.errors import InputError


def test_walls_that_are_what_was_asked_for_have_no_error():
    walls = [8.0, 12.0, 16.0]
    exact = follow(walls, np.repeat(np.array(walls)[:, None], 5, axis=1), wanted=True)
    assert (exact.n, exact.n_asked) == (15, 15)
    assert (exact.r, exact.slope, exact.error) == pytest.approx((1, 1, 0))


def test_the_numbers_are_those_of_a_hand():
    measured = np.array([[9.0, np.nan], [11.0, 13.0]])  # asked for 8, 8, 12, 12
    found = follow([8.0, 12.0], measured, wanted=True)
    assert (found.n, found.n_asked) == (3, 4)
    assert found.error == pytest.approx((1 + 1 + 1) / 3) and found.slope == pytest.approx((12 - 9) / 4)
    assert found.r == pytest.approx(0.866, abs=1e-3)
    assert follow([8.0, 12.0], measured, wanted=False).error is None
    assert follow([8.0, 12.0], np.full((2, 4), np.nan), wanted=True).r is None


@pytest.fixture
def model(tmp_path):
    objective = build_tiny("acgan", recipe="paired")
    objective.wall_range[:] = torch.tensor([6.0, 19.0])
    objective.pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_asked_as_far_as_it_was_trained(model, tmp_path):
    encoder = save_encoder(tmp_path / "encoder", SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (4, 8)).eval())
    found = examine_walls(model, tmp_path / "out", encoder, num_images=3)
    assert list(found) == ["HCM", "NOR"]
    assert list(found["HCM"]) == ["mask", "left_cavity", "brightness", "segmenter"]
    assert found["NOR"]["brightness"].n_asked == 6 * 3  # 8 to 18 mm
    record = json.loads((tmp_path / "out" / "walls.json").read_text())
    assert record["walls"] == [8, 10, 12, 14, 16, 18]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("walls.json", "walls.md", "walls.png", "pairs.png"),
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"walls": (8.0, 30.0)}, "wall_thickness is 30.0; this model was trained on 6 to 19"),
        ({"walls": (8.0,)}, "walls has fewer than two thicknesses from 6 to 19 mm"),
        ({"groups": ("HOCM",)}, "group is 'HOCM'"),
        ({"num_images": 1}, "num_images is 1"),
    ],
)
def test_requests_beyond_the_training_are_refused_before_anything_is_drawn(model, tmp_path, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        examine_walls(model, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_model_without_walls_is_named(tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="model .*/model cannot be asked for a wall thickness"):
        examine_walls(tmp_path / "model", tmp_path / "out")
