import json

import numpy as np
import pytest
import torch
from tiny import build_tiny

from hcm_hf.pipelines.auto import HCMPipeline, hash_model
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.schedulers import SAMPLERS, FineDPMSolverScheduler, convert_scheduler, cosine_schedule
from hcm_hf.utils.errors import InputError


@pytest.fixture
def pipeline():
    objective = build_tiny("ddpm", recipe="tuned")
    objective.label_counts[6:18] = torch.arange(12)
    return objective.pipeline()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_saved_and_loaded_is_equal(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = HCMPipeline.from_pretrained(tmp_path)
    assert type(loaded) is PairedDDPMPipeline and type(loaded.scheduler) is FineDPMSolverScheduler
    assert loaded.conditions == pipeline.conditions and loaded.sample_size == 16
    first, second = (one(4, seeded(), num_inference_steps=3, output_type="np") for one in (pipeline, loaded))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.masks, second.masks)
    assert first.conditions == second.conditions
    assert [path.suffix for path in tmp_path.rglob("*pytorch_model*")] == [".safetensors"]
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert [axis for axis, _ in index["axes"]] == ["group", "phase", "level"]  # labels follow this order


def test_the_model_is_known_by_its_weights_and_by_what_it_has_met(pipeline, tmp_path):
    hashes = []
    for change in (
        lambda: None,
        lambda: next(pipeline.unet.parameters()).data.add_(1),
        lambda: pipeline.register_to_config(frequencies=[1.0] * 30),
    ):
        change()
        pipeline.save_pretrained(tmp_path)
        hashes.append(hash_model(tmp_path))
    assert len(set(hashes)) == 3


def test_images_and_masks_have_their_kinds(pipeline):
    arrays = pipeline(3, seeded(), num_inference_steps=2, output_type="np")
    assert arrays.images.shape == (3, 16, 16, 1) and arrays.masks.shape == (3, 16, 16)
    assert 0 <= arrays.images.min() <= arrays.images.max() <= 1
    assert arrays.masks.dtype == np.uint8 and set(np.unique(arrays.masks)) <= {0, 1, 2, 3}
    pictures = pipeline(3, seeded(), num_inference_steps=2)
    assert {picture.mode for picture in pictures.images + pictures.masks} == {"L"}
    np.testing.assert_array_equal(np.stack(pictures.masks), arrays.masks)
    tensors = pipeline(3, seeded(), num_inference_steps=2, output_type="pt", return_dict=False)
    assert tensors[0].shape == (3, 1, 16, 16) and tensors[1].shape == (3, 16, 16) and len(tensors[2]) == 3


def test_what_is_asked_for_is_shown_and_the_group_is_hcm_by_default(pipeline):
    conditions = pipeline(2, seeded(), 1, class_labels=["NOR ES apex", "ED mid"], output_type="np").conditions
    assert conditions[0] == {"group": "NOR", "phase": "ES", "level": "apex"}
    assert conditions[1] == {"group": "HCM", "phase": "ED", "level": "mid"}
    assert {one["group"] for one in pipeline(8, seeded(), 1, output_type="np").conditions} == {"HCM"}


def test_labels_change_images(pipeline):
    first, second = (
        pipeline(1, seeded(), 2, class_labels=label, output_type="np").images for label in ("HCM ED mid", "NOR ED mid")
    )
    assert np.abs(first - second).max() > 1e-4


def test_an_image_does_not_depend_on_its_batch(pipeline):
    together = pipeline(3, [seeded(index) for index in range(3)], 4, output_type="np")
    for index in range(3):
        alone = pipeline(1, [seeded(index)], 4, output_type="np")
        np.testing.assert_allclose(together.images[index], alone.images[0], atol=1e-5)
        assert together.conditions[index] == alone.conditions[0]


def test_guidance_of_one_is_none_and_other_scales_are_the_papers_formula(pipeline):
    plain = pipeline(2, seeded(), 3, output_type="pt").images
    assert torch.equal(plain, pipeline(2, seeded(), 3, guidance_scale=1, output_type="pt").images)
    assert not torch.equal(plain, pipeline(2, seeded(), 3, guidance_scale=3, output_type="pt").images)
    noisy, timestep, labels = torch.randn(2, 4, 16, 16, generator=seeded()), torch.tensor(500), torch.tensor([7, 8])
    with torch.no_grad():
        labelled = pipeline.unet(noisy, timestep, class_labels=labels).sample
        unlabelled = pipeline.unet(noisy, timestep, class_labels=torch.tensor([30, 30])).sample
        for scale, expected in ((1, labelled), (0, unlabelled), (3, 3 * labelled - 2 * unlabelled)):
            torch.testing.assert_close(pipeline._predict(noisy, timestep, labels, scale), expected, atol=1e-5, rtol=0)


def test_steps_end_in_what_a_call_returns(pipeline):
    steps = []

    def note(pipe, step, timestep, tensors):
        assert pipe is pipeline and step == len(steps) and timestep == pipe.scheduler.timesteps[step]
        steps.append(tensors)
        return {}

    options = {"callback_on_step_end": note, "callback_on_step_end_tensor_inputs": ["latents", "labels"]}
    called = pipeline(2, seeded(), 5, output_type="pt", **options)
    last = steps[-1]["latents"]
    assert len(steps) == pipeline.num_timesteps == 5 and last.shape == (2, 4, 16, 16)
    assert torch.equal((last[:, :1] / 2 + 0.5).clamp(0, 1), called.images)
    images, masks = pipeline.decode(last)
    assert torch.equal(images, called.images) and torch.equal(masks, called.masks)
    shown = [pipeline.conditions.describe(label) for label in steps[-1]["labels"].tolist()]
    assert shown == called.conditions


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_scheduler_samples_in_few_steps(pipeline, name):
    own = pipeline.scheduler
    pipeline, sampling = Sampling({"group": "NOR"}, None, name, 4, 2.0).applied_to(given := pipeline)
    assert given.scheduler is own
    assert type(pipeline.scheduler) is SAMPLERS[name].scheduler
    fresh, _ = convert_scheduler(cosine_schedule(), name)
    for option in ("algorithm_type", "solver_order", "thresholding", "prediction_type", "timestep_spacing"):
        if option in fresh.config:  # whatever it was saved with
            assert pipeline.scheduler.config[option] == fresh.config[option]
    assert sampling.noted == {"class": "NOR", "scheduler": name, "num_inference_steps": 4, "guidance_scale": 2.0}
    output = pipeline(2, seeded(), output_type="np", **sampling.arguments)
    assert np.isfinite(output.images).all() and [one["group"] for one in output.conditions] == ["NOR", "NOR"]
    assert pipeline.scheduler.timesteps[0] == 999


def test_the_models_own_sampler_is_the_default(pipeline):
    as_saved = pipeline(2, seeded(), output_type="np").images
    bound, sampling = Sampling().applied_to(pipeline)
    noted = {"class": "HCM", "scheduler": "sde-dpmsolver++", "num_inference_steps": 20, "guidance_scale": 1.0}
    assert sampling.noted == noted
    np.testing.assert_array_equal(as_saved, bound(2, seeded(), output_type="np", **sampling.arguments).images)
    assert Sampling(scheduler="ddpm").applied_to(pipeline)[1].num_inference_steps == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; ask for one image or more"),
        ({"output_type": "jpg"}, "Unknown output_type 'jpg'; choose among pil, np, pt"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; choose from 1 to 1000"),
        ({"guidance_scale": -1}, "guidance_scale is -1; give 0 or more, 1 for none"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; give 0 or more"),
        ({"class_labels": "HOCM"}, "unknown 'HOCM'; choose among group: DCM, HCM"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "generator has 1 entries for a batch_size of 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(pipeline, arguments, message):
    with pytest.raises(InputError, match=message):
        pipeline(**arguments)


def test_arguments_of_the_scripts_are_refused_before_anything_is_made(pipeline):
    for arguments, message in [
        ({"class_labels": "HOCM"}, "unknown 'HOCM'"),
        ({"scheduler": "euler"}, "Unknown scheduler 'euler'"),
        ({"guidance_scale": -2}, "guidance_scale is -2; give 0 or more"),
    ]:
        with pytest.raises(InputError, match=message):
            Sampling(**arguments).applied_to(pipeline)
    with pytest.raises(InputError, match="guidance_scale 2 given, but this diffusion model has no classes"):
        Sampling(guidance_scale=2).applied_to(build_tiny("ddpm").pipeline())
    with pytest.raises(InputError, match="guidance_scale 2 given, but this model is no diffusion model"):
        Sampling(guidance_scale=2).applied_to(build_tiny("dcgan").pipeline())


def test_the_floor_and_the_last_call_are_settings_of_one_sampler(pipeline):
    fine, full = Sampling(stochastic_floor=0.2, last_sigma=0.03).applied_to(pipeline)
    assert (fine.scheduler.stochastic_floor, fine.scheduler.last_sigma) == (0.2, 0.03)
    assert (pipeline.scheduler.stochastic_floor, pipeline.scheduler.last_sigma) == (0, 0)
    assert full.noted["stochastic_floor"] == 0.2 and "stochastic_floor" not in full.arguments
    before, after = (one(2, seeded(), output_type="np", **full.arguments).images for one in (pipeline, fine))
    assert (before != after).any()
    for arguments, message in [
        ({"stochastic_floor": -1}, "stochastic_floor is -1; give 0 for none"),
        ({"last_sigma": float("nan")}, "last_sigma is nan"),
        ({"last_sigma": 0.1, "scheduler": "unipc"}, r"last_sigma is for the scheduler sde-dpmsolver\+\+, not unipc"),
    ]:
        with pytest.raises(InputError, match=message):
            Sampling(**arguments).applied_to(pipeline)
    with pytest.raises(InputError, match="stochastic_floor 0.1 given, but this model is no diffusion model"):
        Sampling(stochastic_floor=0.1).applied_to(build_tiny("dcgan").pipeline())
