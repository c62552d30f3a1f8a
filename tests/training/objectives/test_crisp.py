import json
import math

import numpy as np
import pytest
import torch
from tiny import batch_of, build_tiny

from hcm_hf.models.unet import ConditionedUNet2DModel, join_pairs
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training.objectives.crisp import BANDS
from hcm_hf.utils.errors import InputError


SIZE = 16


def rings(count=8):
    """Slices with a closed wall of 2 pixels, of 8 mm each, around the cavity."""
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    masks[:, 4:12, 4:12] = 2
    masks[:, 6:10, 6:10] = 3
    return masks


@pytest.fixture
def crisp():
    torch.manual_seed(0)
    return build_tiny("ddpm", recipe="crisp")


@pytest.fixture
def batch():
    torch.manual_seed(1)
    slices = batch_of(torch.rand(8, 1, SIZE, SIZE) * 2 - 1)
    slices.masks = rings()
    return slices


def test_noise_levels_are_normal_in_their_logarithm(crisp):
    slices = batch_of(torch.zeros(4096, 1, SIZE, SIZE))
    logs = crisp.levels[crisp.draw_timesteps(slices)].log()
    assert logs.mean() == pytest.approx(-0.8, abs=0.05)
    assert logs.std() == pytest.approx(1.6, abs=0.08)
    for level in BANDS:
        expected = torch.special.ndtr(torch.tensor((math.log(level) + 0.8) / 1.6))
        assert (logs.exp() < level).float().mean() == pytest.approx(float(expected), abs=0.02)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_the_loss_is_its_closed_form(crisp, batch, monkeypatch, prediction_type):
    """For a network that says nothing: the square of the pair or of v, as an error of v up to the bound."""
    crisp.scheduler.register_to_config(prediction_type=prediction_type)
    pairs = join_pairs(batch.images, batch.masks, crisp.patch_size, 0.5)
    monkeypatch.setattr(crisp.unet, "forward", lambda noisy, *_, **__: type("Output", (), {"sample": 0 * noisy}))
    timesteps = torch.tensor([0, 1, 10, 100, 500, 900, 998, 999])
    walls, labels, noise = torch.full((8,), torch.nan), torch.zeros(8, dtype=torch.int64), torch.randn_like(pairs)
    errors = crisp.errors(pairs, batch.masks, labels, walls, noise, timesteps)
    variance = (1 - crisp.scheduler.alphas_cumprod[timesteps])[:, None, None, None]
    missed = {"sample": pairs, "v_prediction": variance * pairs - (variance * (1 - variance)).sqrt() * noise}
    squares = missed[prediction_type].square().unflatten(1, (4, -1)).mean((2, 3, 4))  # (8, 4)
    weight = (1 / variance[:, 0, 0, 0]).clamp(max=2500)
    torch.testing.assert_close(errors, weight * (3 * squares[:, 0] + squares[:, 1:].sum(1)) / 6)


def test_validation_is_the_same_twice_and_told_apart_by_noise(crisp, batch):
    crisp.eval()
    with torch.no_grad():
        first, details = crisp.validation_loss(batch), crisp.validation_details(batch)
        assert first == crisp.validation_loss(batch) and first > 0
    assert list(details)[0] == "noise 0 to 0.05" and list(details)[-1] == "noise 2 to inf"
    assert all(value > 0 for value in details.values())


def test_walls_of_training_are_what_can_be_asked_for(crisp, batch, tmp_path):
    for _ in range(4):
        for _, loss in crisp.losses(batch):
            loss.backward()
    pipeline = crisp.pipeline()
    thinnest, thickest = pipeline.conditions.ranges["wall_thickness"]
    assert 0 < thinnest < thickest < 60  # mm; augmentation makes them differ
    pipeline.save_pretrained(tmp_path)
    again = HCMPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.unet, ConditionedUNet2DModel) and again.config.mask_scale == 0.5
    assert (again.scheduler.config.stochastic_floor, again.scheduler.config.last_sigma) == (0.2, 0.03)
    asked = {"group": "HCM", "phase": "ED", "wall_thickness": (thinnest + thickest) / 2}

    def draw(conditions, **options):
        return again(2, torch.Generator().manual_seed(0), 3, conditions=conditions, output_type="np", **options)

    output = draw(asked)
    assert output.conditions[0] == asked | {"level": output.conditions[0]["level"]}
    assert set(np.unique(output.masks)) <= {0, 1, 2, 3}
    thicker = draw(asked | {"wall_thickness": thickest})
    assert not np.array_equal(output.images, thicker.images)
    np.testing.assert_array_equal(
        draw({"group": "HCM"}).images, draw({"group": "HCM", "wall_thickness": "any"}).images
    )
    assert np.isfinite(draw(asked, guidance_scale=2.0).images).all()
    with pytest.raises(InputError, match="wall_thickness is 99; this model was trained on"):
        draw({"wall_thickness": 99})


def test_guidance_leaves_label_and_wall_open_on_one_side(crisp):
    pipeline = crisp.pipeline()
    pipeline.register_to_config(ranges={"wall_thickness": [5.0, 20.0]})
    noisy, labels, walls = torch.randn(2, 4, SIZE, SIZE), torch.tensor([0, 3]), torch.tensor([8.0, 12.0])
    with torch.no_grad():
        labelled = pipeline._predict(noisy, torch.tensor(400), labels, 1.0, walls)
        nothing = torch.full_like(labels, pipeline.conditions.null_label)
        unlabelled = pipeline.unet(noisy, torch.tensor(400), nothing).sample
        guided = pipeline._predict(noisy, torch.tensor(400), labels, 1.5, walls)
    torch.testing.assert_close(guided, unlabelled + 1.5 * (labelled - unlabelled), atol=1e-5, rtol=1e-4)


def test_pipelines_that_were_saved_before_load(tmp_path):
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    for name in ("mask_scale", "ranges"):
        del index[name]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    pipeline = HCMPipeline.from_pretrained(tmp_path)
    assert pipeline.config.mask_scale == 1 and pipeline.conditions.ranges == {}


def test_a_range_without_a_network_for_it_is_refused(tmp_path):
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"ranges": {"wall_thickness": [5, 20]}}))
    with pytest.raises(InputError, match="its ranges name wall_thickness, which its network does not take"):
        HCMPipeline.from_pretrained(tmp_path)
