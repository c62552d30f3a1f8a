import json
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file
from tiny import TINY, build_tiny, sample

import hcm_hf
from hcm_hf.models import LATENT_MODELS, DCGANGenerator
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.schedulers import SAMPLERS, convert_scheduler, linear_schedule
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


every_family = pytest.mark.parametrize("family", FAMILIES)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    return LatentPipeline(DCGANGenerator(16, **TINY["dcgan"]["generator"]).eval())


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@every_family
def test_saved_and_loaded_is_equal(family, tmp_path):
    before = build_tiny(family).pipeline()
    before.save_pretrained(tmp_path)
    after = HCMPipeline.from_pretrained(tmp_path)
    assert type(after) is type(before)
    states = [
        next(part for part in pipe.components.values() if isinstance(part, torch.nn.Module)).state_dict()
        for pipe in (before, after)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    np.testing.assert_allclose(sample(family, before), sample(family, after), atol=1e-6)
    assert [path.suffix for path in tmp_path.rglob("*pytorch_model*")] == [".safetensors"]


def test_the_network_alone_loads(pipeline, folder):
    network = DCGANGenerator.from_pretrained(folder, subfolder="network")
    latents = torch.randn(2, 6)
    torch.testing.assert_close(network.decode(latents), pipeline.network.decode(latents))
    assert not network.training and network.config.sample_size == 16


def test_the_recorded_names_are_pinned(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "LatentPipeline"
    assert index["network"] == ["hcm_hf.models.dcgan", "DCGANGenerator"]
    assert "DCGANGenerator" in LATENT_MODELS


def test_plain_diffusers_loads_the_ddpm(tmp_path):
    before = build_tiny("ddpm").pipeline()
    before.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert {value[0] for value in index.values() if isinstance(value, list)} == {"diffusers"}
    after = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert type(after) is diffusers.DDPMPipeline
    assert after.scheduler.config.num_train_timesteps == 1000
    np.testing.assert_allclose(sample("ddpm", after), sample("ddpm", before), atol=1e-6)
    assert type(HCMPipeline.from_pretrained(tmp_path)) is DDPMPipeline


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_scheduler_denoises_and_repeats_itself(name):
    pipeline = build_tiny("ddpm").pipeline()
    own = pipeline.scheduler
    pipeline, sampling = Sampling(scheduler=name, num_inference_steps=4).applied_to(given := pipeline)
    assert given.scheduler is own and given.unet is pipeline.unet
    arguments = sampling.arguments
    assert type(pipeline.scheduler) is SAMPLERS[name].scheduler
    assert pipeline.scheduler.config.beta_end == 0.02 and arguments == {"num_inference_steps": 4}
    assert sampling.noted == {"class": None, "scheduler": name, "num_inference_steps": 4}
    generators = [[torch.Generator().manual_seed(i) for i in range(3)] for _ in range(2)]
    images = [pipeline(3, generator=each, output_type="np", **arguments).images for each in generators]
    np.testing.assert_array_equal(*images)
    assert len(pipeline.scheduler.timesteps) == 4 and pipeline.scheduler.timesteps[0] == 999
    alone = pipeline(1, generator=torch.Generator().manual_seed(2), output_type="np", **arguments).images[0]
    np.testing.assert_allclose(images[0][2], alone, atol=1e-5)


def test_what_is_sampled_with_is_the_same_whether_it_was_asked_for_or_not():
    pipeline = build_tiny("ddpm").pipeline()
    asked = Sampling(scheduler="ddpm", num_inference_steps=1000)
    assert Sampling().applied_to(pipeline)[1] == asked.applied_to(pipeline)[1] == asked
    images = []
    for scheduler in (None, "ddpm"):
        bound, sampling = Sampling(scheduler=scheduler, num_inference_steps=7).applied_to(pipeline)
        images.append(bound(2, generator=seeded(), output_type="np", **sampling.arguments).images)
    np.testing.assert_array_equal(*images)
    assert Sampling(scheduler="ddim").applied_to(pipeline)[1].arguments == {"num_inference_steps": 50}
    acgan = build_tiny("acgan").pipeline()
    for asked in (Sampling(), Sampling({"group": "HCM"}), Sampling(class_labels="HCM"), Sampling(class_labels=1)):
        sampling = asked.applied_to(acgan)[1]
        assert (sampling.arguments, sampling.noted) == ({"conditions": {"group": "HCM"}}, {"class": "HCM"})


def denoise(name, steps, mean, variance):
    """What a scheduler makes of noise with the best prediction for data from N(mean, variance)."""
    trained = linear_schedule()
    scheduler, _ = convert_scheduler(trained, name)
    scheduler.set_timesteps(steps)
    noisy = torch.randn(4, 1, 16, 16, generator=seeded())
    for timestep in scheduler.timesteps:
        alpha = trained.alphas_cumprod[int(timestep)]
        predicted = (1 - alpha).sqrt() * (noisy - alpha.sqrt() * mean) / (alpha * variance + 1 - alpha)
        noisy = scheduler.step(
            predicted, timestep, noisy, generator=torch.Generator().manual_seed(int(timestep))
        ).prev_sample
    return noisy


@pytest.mark.parametrize("name", SAMPLERS)
def test_schedulers_bring_a_known_image_back(name):
    torch.testing.assert_close(
        denoise(name, SAMPLERS[name].num_inference_steps, 0.3, 0.0), torch.full((4, 1, 16, 16), 0.3), atol=0.02, rtol=0
    )


@pytest.mark.parametrize("steps", [300, 600])  # which do not divide 1000
@pytest.mark.parametrize("name", SAMPLERS)
def test_schedulers_bring_a_known_distribution_back(name, steps):
    images = denoise(name, steps, 0.1, 0.2**2)
    assert images.mean().item() == pytest.approx(0.1, abs=0.03) and images.std().item() == pytest.approx(0.2, abs=0.02)


def test_ddim_is_diffusers_ddim_with_the_noise_that_fits_the_clipped_image():
    pipeline = build_tiny("ddpm").pipeline()
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    expected = torch.randn(2, 1, 16, 16, generator=seeded())
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            predicted = pipeline.unet(expected, timestep).sample
        expected = scheduler.step(predicted, timestep, expected, use_clipped_model_output=True).prev_sample
    pipeline, sampling = Sampling(scheduler="ddim").applied_to(pipeline)
    images = pipeline(2, generator=seeded(), output_type="pt", **sampling.arguments).images
    torch.testing.assert_close(images, (expected / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("ddpm", {"scheduler": "euler"}, "Unknown scheduler 'euler'; choose among ddpm, ddim, dpmsolver"),
        ("ddpm", {"num_inference_steps": 0}, "num_inference_steps is 0; choose from 1 to 1000"),
        ("ddpm", {"num_inference_steps": 1001}, "num_inference_steps is 1001; choose from 1 to 1000"),
        ("ddpm", {"class_labels": "HCM"}, "class_labels HCM given, but this model has no classes"),
        ("vae", {"scheduler": "ddim"}, "scheduler ddim given, but this model is no diffusion model"),
        ("gan", {"num_inference_steps": 5}, "num_inference_steps 5 given, but this model is no diffusion model"),
    ],
)
def test_arguments_of_another_family_are_refused(family, arguments, message):
    with pytest.raises(InputError, match=message):
        Sampling(**arguments).applied_to(build_tiny(family).pipeline())


@every_family
@pytest.mark.parametrize(("library", "name"), [("os", "system"), ("diffusers", "UNet2DConditionModel")])
def test_no_class_is_taken_from_the_folder(family, library, name, tmp_path):
    pipeline = build_tiny(family).pipeline()
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    component = next(iter(set(index) & {"network", "unet"}))
    (tmp_path / "model_index.json").write_text(json.dumps(index | {component: [library, name]}))
    with pytest.raises(InputError, match=f"Pipeline of {name}, which is not a model of this package"):
        HCMPipeline.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps(index | {component: None}))
    with pytest.raises(InputError, match="model_index.json is damaged"):
        HCMPipeline.from_pretrained(tmp_path)


@every_family
def test_pickled_weights_are_refused(family, tmp_path):
    build_tiny(family).pipeline().save_pretrained(tmp_path)
    (weights,) = tmp_path.rglob("*.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match="has no safetensors weights; others, as pickles, are not loaded"):
        HCMPipeline.from_pretrained(tmp_path)


def test_output_types_agree(pipeline):
    outputs = {kind: pipeline(2, generator=seeded(), output_type=kind).images for kind in ("pil", "np", "pt")}
    assert outputs["np"].shape == (2, 16, 16, 1) and outputs["pt"].shape == (2, 1, 16, 16)
    np.testing.assert_array_equal(outputs["pt"].numpy()[:, 0], outputs["np"][..., 0])
    assert all(isinstance(image, Image.Image) and image.mode == "L" for image in outputs["pil"])
    rounded = np.round(outputs["np"][0, ..., 0] * 255)
    np.testing.assert_array_equal(np.asarray(outputs["pil"][0]), rounded)
    (images,) = pipeline(2, generator=seeded(), output_type="np", return_dict=False)
    np.testing.assert_array_equal(images, outputs["np"])


def test_latents_decide_the_images(pipeline):
    latents = pipeline.network.sample_latents(3, seeded())
    assert latents.shape == (3, 6)
    given = pipeline(latents=latents, output_type="np").images
    np.testing.assert_array_equal(given, pipeline(3, generator=seeded(), output_type="np").images)


def test_a_generator_each_makes_images_independent_of_their_batch(pipeline):
    together = pipeline(3, generator=[torch.Generator().manual_seed(i) for i in range(3)], output_type="np").images
    alone = [pipeline(1, generator=torch.Generator().manual_seed(i), output_type="np").images[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_network_in_training_samples_in_eval_mode_and_goes_on_training(pipeline):
    expected = pipeline(2, generator=seeded(), output_type="np").images
    pipeline.network.train()
    before = pipeline.network.norm.running_mean.clone()
    np.testing.assert_array_equal(pipeline(2, generator=seeded(), output_type="np").images, expected)
    assert pipeline.network.training and torch.equal(pipeline.network.norm.running_mean, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"output_type": "jpeg"}, "Unknown output_type 'jpeg'; choose among pil, np, pt"),
        ({"latents": torch.zeros(2, 5)}, r"latents have shape \(2, 5\); this model takes \(batch, 6\)"),
        ({"latents": torch.zeros(0, 6)}, r"latents have shape \(0, 6\)"),
        ({"latents": torch.tensor(1.0)}, r"latents have shape \(\)"),
        ({"latents": np.zeros((2, 6))}, "latents are a ndarray; give a torch.Tensor"),
        ({"class_labels": "HCM"}, "class_labels HCM given, but DCGANGenerator has no classes"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "generator has 1 entries for a batch_size of 2"),
    ],
)
def test_bad_arguments_are_named(pipeline, arguments, message):
    with pytest.raises(InputError, match=message):
        pipeline(**arguments)


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        HCMPipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no saved pipeline"):
        HCMPipeline.from_pretrained(tmp_path)
    weights = folder / "network" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="The model in .* cannot be used: Cannot read .*; it is damaged or cut short"):
        HCMPipeline.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(InputError, match="has no safetensors weights"):
        HCMPipeline.from_pretrained(folder)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="model_index.json is damaged"):
        HCMPipeline.from_pretrained(folder)


def test_public_names_exist_and_import_lazily():
    for name in hcm_hf.__all__:
        assert getattr(hcm_hf, name) is not None
    code = "import sys, hcm_hf; assert not {'torch', 'diffusers', 'datasets', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'DoesNotExist'"):
        hcm_hf.DoesNotExist  # noqa: B018
