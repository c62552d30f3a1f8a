import json

import numpy as np
import pytest
import torch
from tiny import build_tiny

from hcm_hf import HCMPipeline
from hcm_hf.pipelines.paired_latent import PairedLatentPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError


@pytest.fixture
def pipeline():
    objective = build_tiny("acgan", recipe="paired")
    objective.label_counts[6:18] = torch.arange(12)
    objective.wall_range.copy_(torch.tensor([6.0, 28.0]))
    for parameter in objective.generator.embed.parameters():  # as though it had learnt to listen
        torch.nn.init.normal_(parameter)
    return objective.pipeline()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_images_and_masks_have_their_kinds(pipeline):
    made = pipeline(3, seeded(), output_type="np")
    assert made.images.shape == (3, 16, 16, 1) and 0 <= made.images.min() <= made.images.max() <= 1
    assert made.masks.shape == (3, 16, 16) and made.masks.dtype == np.uint8 and made.masks.max() <= 3
    pictures = pipeline(2, seeded())
    assert [one.mode for one in (*pictures.images, *pictures.masks)] == ["L"] * 4
    images, masks, shown = pipeline(2, seeded(), output_type="pt", return_dict=False)
    assert images.shape == (2, 1, 16, 16) and masks.dtype == torch.int64 and len(shown) == 2


def test_what_is_asked_for_is_shown(pipeline):
    asked = {"group": "NOR", "phase": "ED", "level": "mid", "wall_thickness": 9.5}
    assert pipeline(2, seeded(), conditions=asked).conditions == [asked] * 2
    shown = pipeline(40, seeded()).conditions
    assert {one["group"] for one in shown} == {"HCM"} and {one["phase"] for one in shown} == {"ED", "ES"}
    assert {one["wall_thickness"] for one in shown} == {None}
    each = [{"wall_thickness": 8}, {"group": "DCM"}]
    assert [one["wall_thickness"] for one in pipeline(2, seeded(), conditions=each).conditions] == [8.0, None]


def test_a_wall_that_is_asked_for_changes_the_slice(pipeline):
    def images(**asked):
        return pipeline(2, seeded(), output_type="np", conditions={"phase": "ED", "level": "mid", **asked}).images

    assert (images(wall_thickness=10) != images(wall_thickness=20)).any()
    assert (images(wall_thickness=10) != images()).any()
    assert (images(wall_thickness="any") == images()).all()


def test_walls_beyond_the_trained_range_are_refused(pipeline):
    with pytest.raises(InputError, match="wall_thickness is 40; this model was trained on 6 to 28"):
        pipeline(1, conditions={"wall_thickness": 40})
    with pytest.raises(InputError, match="wall_thickness is 40"):
        Sampling(conditions={"wall_thickness": 40}).applied_to(pipeline)


def test_an_image_does_not_depend_on_its_batch(pipeline):
    together = pipeline(3, [seeded(i) for i in range(3)], output_type="np")
    alone = pipeline(1, [seeded(2)], output_type="np")
    np.testing.assert_allclose(together.images[2:], alone.images, atol=1e-6)
    assert (together.masks[2:] == alone.masks).all() and together.conditions[2:] == alone.conditions


def test_saved_and_loaded_is_equal(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = HCMPipeline.from_pretrained(tmp_path)
    assert type(loaded) is PairedLatentPipeline and loaded.conditions == pipeline.conditions
    before, after = (one(2, seeded(), output_type="np") for one in (pipeline, loaded))
    assert (before.images == after.images).all() and (before.masks == after.masks).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ranges": {"wall_thickness": [28, 6]}}, "its range of wall_thickness"),
        ({"ranges": {"brightness": [0, 1]}}, "its ranges name 'brightness'"),
        ({"ranges": [1, 2]}, "cannot be loaded"),
        ({"axes": [["group", ["HCM"]]], "frequencies": [1], "defaults": {}}, "takes 30 labels, its axes make 1"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_loaded(pipeline, tmp_path, change, message):
    pipeline.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(InputError, match=message):
        HCMPipeline.from_pretrained(tmp_path)
