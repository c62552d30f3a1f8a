import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image
from tiny import TINY, build_tiny, sample

import hcm_hf
from hcm_hf.errors import InputError
from hcm_hf.families import FAMILIES
from hcm_hf.models import LATENT_MODELS, DCGANGenerator
from hcm_hf.models.ddpm import SAMPLERS, build_scheduler, convert_scheduler
from hcm_hf.pipeline import HCMPipeline, LatentPipeline, sampling_arguments


every_family = pytest.mark.parametrize("family", FAMILIES)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    return LatentPipeline(DCGANGenerator(16, **TINY["dcgan"]).eval())


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
    code = """
import sys, torch
from diffusers import DDPMPipeline
pipe = DDPMPipeline.from_pretrained(sys.argv[1])
assert "hcm_hf" not in sys.modules and pipe.scheduler.config.num_train_timesteps == 1000
image = pipe(generator=torch.Generator().manual_seed(0), num_inference_steps=3, output_type="np").images
print(image.mean())
"""
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert float(result.stdout) == pytest.approx(sample("ddpm", before, 1).mean(), abs=1e-6)
    assert type(HCMPipeline.from_pretrained(tmp_path)) is DDPMPipeline


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_scheduler_denoises_and_repeats_itself(name):
    pipeline = build_tiny("ddpm").pipeline()
    arguments = sampling_arguments(pipeline, scheduler=name, num_inference_steps=4)
    assert type(pipeline.scheduler) is SAMPLERS[name].scheduler
    assert pipeline.scheduler.config.beta_end == 0.02 and arguments == {"num_inference_steps": 4}
    generators = [[torch.Generator().manual_seed(i) for i in range(3)] for _ in range(2)]
    images = [pipeline(3, generator=each, output_type="np", **arguments).images for each in generators]
    np.testing.assert_array_equal(*images)
    assert len(pipeline.scheduler.timesteps) == 4 and pipeline.scheduler.timesteps[0] == 999
    alone = pipeline(1, generator=torch.Generator().manual_seed(2), output_type="np", **arguments).images[0]
    np.testing.assert_allclose(images[0][2], alone, atol=1e-5)


def test_default_steps_are_the_schedulers():
    pipeline = build_tiny("ddpm").pipeline()
    assert sampling_arguments(pipeline) == {}
    assert sampling_arguments(pipeline, scheduler="ddim") == {"num_inference_steps": 50}


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmsolver++", "unipc"])
def test_schedulers_bring_a_known_distribution_back(name):
    """For data of one constant image x the best noise prediction is known; each solver then ends at x."""

    trained = build_scheduler()
    scheduler, steps = convert_scheduler(trained, name)
    scheduler.set_timesteps(steps)
    noisy = torch.randn(4, 1, 8, 8, generator=seeded())
    for timestep in scheduler.timesteps:
        alpha = trained.alphas_cumprod[int(timestep)]
        predicted = (noisy - alpha.sqrt() * 0.3) / (1 - alpha).sqrt()
        noisy = scheduler.step(predicted, timestep, noisy, generator=seeded()).prev_sample
    torch.testing.assert_close(noisy, torch.full_like(noisy, 0.3), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("ddpm", {"scheduler": "euler"}, "Unknown --scheduler 'euler'; choose among ddpm, ddim, dpmsolver"),
        ("ddpm", {"num_inference_steps": 0}, "--num_inference_steps is 0; choose from 1 to 1000"),
        ("ddpm", {"num_inference_steps": 1001}, "--num_inference_steps is 1001; choose from 1 to 1000"),
        ("ddpm", {"class_labels": "HCM"}, "class_labels HCM given, but a DDPMPipeline has no classes"),
        ("vae", {"scheduler": "ddim"}, "--scheduler ddim given, but this model is no diffusion model"),
        ("gan", {"num_inference_steps": 5}, "--num_inference_steps 5 given, but this model is no diffusion model"),
    ],
)
def test_arguments_of_another_family_are_refused(family, arguments, message):
    with pytest.raises(InputError, match=message):
        sampling_arguments(build_tiny(family).pipeline(), **arguments)


@pytest.mark.parametrize("library", ["os", "hcm_hf.models.dcgan"])
def test_no_class_is_taken_from_the_folder(folder, library):
    index = json.loads((folder / "model_index.json").read_text())
    index["network"] = [library, "system"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="LatentPipeline of system, which is not a model of this package"):
        HCMPipeline.from_pretrained(folder)


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
    with pytest.raises(InputError, match="The model in .* cannot be loaded"):
        HCMPipeline.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(InputError, match="The model in .* cannot be loaded"):
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
