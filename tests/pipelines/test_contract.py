"""What a user of diffusers expects of any pipeline, asked of all of ours; after diffusers' own tests of pipelines."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny import build_tiny, notes

from hcm_hf.data.identity import shared_patients
from hcm_hf.pipelines.auto import HCMPipeline, hash_model, read_training
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.utils.errors import InputError


KINDS = {
    "dcgan": ("dcgan", "paper"),
    "acgan": ("acgan", "paper"),
    "ddpm": ("ddpm", "paper"),
    "tuned": ("ddpm", "tuned"),
}
CLASSES = dict(zip(KINDS, (LatentPipeline, LatentPipeline, DDPMPipeline, PairedDDPMPipeline), strict=True))
DIFFUSION = ("ddpm", "tuned")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for kind, (family, recipe) in KINDS.items():
        build_tiny(family, recipe=recipe).pipeline().save_pretrained(folder / kind)
    return folder


@pytest.fixture
def load(saved):
    def load(kind, **options):
        pipeline = HCMPipeline.from_pretrained(saved / kind, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def call(pipeline, batch_size=2, seed=0, output_type="np", **arguments):
    steps = {"num_inference_steps": 3} if pipeline.denoises else {}
    generator = torch.Generator().manual_seed(seed)
    return pipeline(batch_size, generator=generator, output_type=output_type, **steps | arguments)


def network_of(pipeline):
    return pipeline.components[pipeline.network_name]


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Loading.


@every_kind
def test_each_class_loads_its_own_from_a_folder_and_from_the_hub(kind, saved, load, hub, tmp_path):
    expected = call(load(kind)).images
    hub.commit("model", "bob/hearts", files_of(saved / kind))
    for kwargs in ({}, {"revision": "main", "token": "ada-reads"}, {"local_files_only": True}):
        for name in (saved / kind, "bob/hearts"):
            loaded = type(load(kind)).from_pretrained(name, cache_dir=tmp_path / "cache", **kwargs)
            assert type(loaded) is CLASSES[kind]
            np.testing.assert_array_equal(call(loaded).images, expected)


@every_kind
def test_a_class_refuses_what_is_not_its_own(kind, saved):
    for other in {LatentPipeline, DDPMPipeline, PairedDDPMPipeline} - {CLASSES[kind]}:
        sentence = f"holds a {CLASSES[kind].__name__}; load it with HCMPipeline."
        with pytest.raises(InputError, match=sentence):
            other.from_pretrained(saved / kind)


def test_without_the_hub_only_what_is_in_the_cache_is_loaded(saved, hub, tmp_path):
    hub.commit("model", "bob/hearts", files_of(saved / "dcgan"))
    where = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    asked = len(hub.requests)
    with pytest.raises(InputError, match="bob/hearts is not in the cache"):
        HCMPipeline.from_pretrained("bob/hearts", **where)
    assert len(hub.requests) == asked
    HCMPipeline.from_pretrained("bob/hearts", cache_dir=tmp_path / "cache")
    asked = len(hub.requests)
    assert HCMPipeline.from_pretrained("bob/hearts", **where) and len(hub.requests) == asked


@every_kind
@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_weights_have_the_type_that_is_asked_for(kind, load, argument):
    assert load(kind).dtype == torch.float32
    name = load(kind).network_name
    for dtype, expected in [
        (torch.bfloat16, torch.bfloat16),
        ({name: torch.bfloat16, "default": torch.float16}, torch.bfloat16),
        ({"default": torch.float16}, torch.float16),
        ({"vae": torch.float16}, torch.float32),
    ]:
        assert load(kind, **{argument: dtype}).dtype == expected
    images = call(load(kind, **{argument: torch.bfloat16}))
    assert images.images.dtype == np.float32 and np.isfinite(images.images).all()
    assert load(kind).to(torch.float64).dtype == torch.float64


def test_types_that_are_none_are_refused(load):
    with pytest.raises(InputError, match="dtype and torch_dtype are both given; give dtype"):
        load("dcgan", dtype=torch.float16, torch_dtype=torch.float16)
    for dtype in ("half", torch.int64, {"network": "half"}):
        with pytest.raises(InputError, match="give a floating-point type such as torch.float16"):
            load("dcgan", dtype=dtype)


@every_kind
def test_variants_are_loaded_and_wrong_ones_named(kind, saved, load, tmp_path, hub):
    load(kind, dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    (weights,) = tmp_path.rglob("*.safetensors")
    assert weights.name == "diffusion_pytorch_model.fp16.safetensors"
    hub.commit("model", "bob/half", files_of(tmp_path))
    for name in (tmp_path, "bob/half"):
        loaded = CLASSES[kind].from_pretrained(name, variant="fp16", dtype=torch.float16, cache_dir=tmp_path / "cache")
        assert loaded.dtype == torch.float16
        state = network_of(loaded).state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(weights).items())
    sentence = "You are trying to load the model files of the `variant=fp8`, but no such modeling files are available"
    for name in (tmp_path, saved / kind):
        with pytest.raises(ValueError, match=sentence):
            HCMPipeline.from_pretrained(name, variant="fp8")
    with pytest.raises(InputError, match="its weights are not in one file, .*/diffusion_pytorch_model.safetensors"):
        HCMPipeline.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="variant is '../x'; give a word such as fp16"):
        HCMPipeline.from_pretrained(tmp_path, variant="../x")


@pytest.mark.parametrize("device_map", ["cpu", "balanced"])
def test_a_map_of_devices_is_that_of_the_one_network(load, device_map):
    expected = torch.accelerator.current_accelerator() if device_map == "balanced" else None
    assert load("dcgan", device_map=device_map).device.type == (expected.type if expected else "cpu")


@every_kind
def test_pickles_are_not_written(kind, load, tmp_path):
    with pytest.raises(InputError, match="safe_serialization is False; weights are saved as safetensors alone"):
        load(kind).save_pretrained(tmp_path / "model", safe_serialization=False)
    assert not (tmp_path / "model").exists()


@every_kind
def test_a_pipeline_is_made_from_the_components_of_another(kind, load):
    pipeline = load(kind)
    options = {name: pipeline.config[name] for name in pipeline.saved_options}
    again = type(pipeline)(**pipeline.components, **options)
    np.testing.assert_array_equal(call(again).images, call(pipeline).images)


# What the training run noted.


@pytest.fixture
def run(saved, tmp_path):
    """A run with notes that name folders of this machine."""
    shutil.copytree(saved / "tuned", tmp_path / "run" / "best")
    written = notes(
        family="ddpm",
        recipe="tuned",
        dataset="/home/ada/acdc-16",
        output_dir="/home/ada/run",
        teacher="/home/ada/teacher/best",
        dataset_license="cc-by-nc-sa-4.0",
        token="/home/ada/token",
    )
    (tmp_path / "run" / "training_config.json").write_text(json.dumps(written))
    return tmp_path / "run"


def test_a_loaded_run_keeps_its_notes_where_it_is_saved(run, tmp_path):
    pipeline = HCMPipeline.from_pretrained(run)
    assert pipeline.training_config == read_training(run)
    pipeline.save_pretrained(tmp_path / "copy")
    kept = read_training(tmp_path / "copy")
    assert kept == HCMPipeline.from_pretrained(tmp_path / "copy").training_config
    assert shared_patients(kept["train_patients"], read_training(run)["train_patients"]) == ["patient001"]
    assert kept["dataset"] == "acdc-16" and kept["teacher"] == "teacher" and "/home/ada" not in json.dumps(kept)
    assert hash_model(tmp_path / "copy") == hash_model(run)


def test_notes_and_licence_go_to_the_hub_with_the_pipeline(run, hub, tmp_path):
    pipeline = HCMPipeline.from_pretrained(run)
    pipeline.push_to_hub("ada/hearts", token="ada-writes")
    pipeline.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id="ada/again", token="ada-writes")
    for name in ("ada/hearts", "ada/again"):
        files = hub.files("model", name)
        assert (
            json.loads(files["training_config.json"])["train_patients"] == pipeline.training_config["train_patients"]
        )
        assert b"/home/ada" not in b"".join(data for path, data in files.items() if path.endswith((".json", ".md")))
        assert ModelCard(files["README.md"].decode()).data.license == "cc-by-nc-sa-4.0"
        loaded = PairedDDPMPipeline.from_pretrained(name, cache_dir=tmp_path / "cache")
        assert loaded.training_config["groups"] == ["HCM"]


def test_damaged_notes_are_not_lost_silently(run, tmp_path):
    (run / "training_config.json").write_text("{}")
    pipeline = HCMPipeline.from_pretrained(run)  # the images are its own
    with pytest.raises(InputError, match="training_config.json lacks 'family'"):
        pipeline.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_pipeline_without_a_run_has_no_notes(load, tmp_path):
    assert load("dcgan").training_config == {}
    load("dcgan").save_pretrained(tmp_path)
    assert not (tmp_path / "training_config.json").exists()


# Calls.


@every_kind
def test_networks_are_called_so_that_hooks_see_them(kind, load):
    pipeline, seen = load(kind), []
    network_of(pipeline).register_forward_hook(lambda *_: seen.append(True))
    call(pipeline)
    assert len(seen) == (3 if kind in DIFFUSION else 1)


def test_a_compiled_network_is_called(load):
    pipeline, compiled = load("dcgan"), []
    expected = call(pipeline).images
    backend = lambda module, inputs: compiled.append(True) or module.forward  # noqa: E731
    pipeline.network = torch.compile(pipeline.network, backend=backend)
    np.testing.assert_allclose(call(pipeline).images, expected, atol=1e-5)
    assert compiled


@every_kind
def test_a_pipeline_can_leave_its_network_where_memory_is(kind, load):
    pipeline = load(kind)
    expected = call(pipeline).images
    pipeline.enable_model_cpu_offload(device="cpu")  # there is no other device here, but the hooks are the same
    assert hasattr(network_of(pipeline), "_hf_hook") and pipeline._execution_device.type == "cpu"
    for _ in range(2):
        np.testing.assert_array_equal(call(pipeline).images, expected)


@every_kind
def test_a_tuple_holds_what_the_output_does(kind, load):
    output, parts = call(load(kind)), call(load(kind), return_dict=False)
    np.testing.assert_array_equal(parts[0], output.images)
    assert len(parts) == len(output.keys())


@every_kind
def test_images_of_a_generator_each_do_not_depend_on_their_batch(kind, load):
    pipeline = load(kind)
    steps = {"num_inference_steps": 3} if pipeline.denoises else {}
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = pipeline(3, generators, output_type="np", **steps).images
    alone = [call(pipeline, 1, seed).images[0] for seed in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    with pytest.raises(InputError, match="generator has 1 entries for a batch_size of 2"):
        pipeline(2, generators[:1], **steps)


def test_a_stock_pipeline_makes_the_same_images(load, saved):
    stock = diffusers.DDPMPipeline.from_pretrained(saved / "ddpm")
    np.testing.assert_array_equal(call(load("ddpm")).images, call_stock(stock))


def call_stock(stock):
    return stock(2, torch.Generator().manual_seed(0), num_inference_steps=3, output_type="np").images


@pytest.mark.parametrize("kind", DIFFUSION)
def test_a_callback_sees_each_step_and_may_change_it(kind, load):
    pipeline, seen = load(kind), []

    def blank(pipe, step, timestep, tensors):
        assert pipe is pipeline and set(tensors) == {"latents"}
        seen.append((step, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == pipe.num_timesteps - 1 else tensors

    latents = call(pipeline, output_type="latent", callback_on_step_end=blank).images
    assert isinstance(latents, torch.Tensor) and not latents.any()
    assert seen == list(enumerate(pipeline.scheduler.timesteps.tolist())) and len(seen) == 3
    plain = call(pipeline).images
    options = {"callback_on_step_end": lambda *_: {}, "callback_on_step_end_tensor_inputs": []}
    np.testing.assert_array_equal(call(pipeline, **options).images, plain)
    with pytest.raises(InputError, match="callback_on_step_end_tensor_inputs names 'noise'; choose among latents"):
        call(pipeline, callback_on_step_end=blank, callback_on_step_end_tensor_inputs=["noise"])


@pytest.mark.parametrize("kind", DIFFUSION)
def test_a_network_in_training_goes_on_training_also_after_a_fault(kind, load):
    pipeline = load(kind)
    pipeline.unet.train()

    def fault(*_):
        assert not pipeline.unet.training
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(pipeline, callback_on_step_end=fault)
    assert pipeline.unet.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; ask for one image or more"),
        ({"output_type": "jpg"}, "Unknown output_type 'jpg'; choose among pil, np, pt, latent"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; choose from 1 to 1000"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5; choose from 1 to 1000"),
    ],
)
def test_arguments_that_the_ddpm_does_not_take_are_named(load, arguments, message):
    with pytest.raises(InputError, match=message):
        load("ddpm")(**arguments)


# What a pipeline can do, and be asked for.


def test_what_a_pipeline_can_do_is_said_by_the_pipeline(load):
    able = {kind: load(kind) for kind in KINDS}
    assert [kind for kind, one in able.items() if one.makes_masks] == ["tuned"]
    assert [kind for kind, one in able.items() if one.denoises] == ["ddpm", "tuned"]
    assert [kind for kind, one in able.items() if one.predicts_noise] == ["ddpm"]
    assert {kind: list(one.conditions.axes) for kind, one in able.items()} == {
        **{"dcgan": [], "acgan": ["group"], "ddpm": [], "tuned": ["group", "phase", "level"]}
    }
    assert {one.sample_size for one in able.values()} == {16}
    assert [one.sampling_defaults.num_inference_steps for one in able.values()] == [None, None, 1000, 20]
    assert [one.preview_steps for one in able.values()] == [None, None, 50, 20]
    infogan = build_tiny("infogan").pipeline()
    assert infogan.num_codes == (3, 2) and {one.num_codes for one in able.values()} == {(0, 0)}


@pytest.mark.parametrize("kind", ["acgan", "tuned"])
def test_words_and_labels_ask_for_the_same(kind, load):
    pipeline = load(kind)
    names = [list(pipeline.conditions.describe(label).values()) for label in (1, 3)]
    words = [dict(zip(pipeline.conditions.axes, name, strict=True)) for name in names]
    expected = call(pipeline, class_labels=[1, 3]).images
    assert not np.array_equal(expected, call(pipeline, class_labels=[1, 1]).images)
    for asked in (
        {"class_labels": np.array([1, 3])},
        {"class_labels": torch.tensor([1, 3])},
        {"class_labels": [np.int64(1), np.int64(3)]},
        {"class_labels": [" ".join(name) for name in names]},
        {"conditions": words},
    ):
        np.testing.assert_array_equal(call(pipeline, **asked).images, expected)
    same = call(pipeline, class_labels=np.array([3, 3])).images
    for asked in ({"conditions": words[1]}, {"class_labels": 3}):
        np.testing.assert_array_equal(call(pipeline, **asked).images, same)
    drawn = call(pipeline, 20, conditions={"group": "any"}).images
    assert len(np.unique(drawn, axis=0)) == 20


@pytest.mark.parametrize("kind", ["acgan", "tuned"])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"conditions": {"group": "HOCM"}}, "conditions: group is 'HOCM'; choose among any, DCM, HCM, MINF, NOR, RV"),
        ({"conditions": {"colour": "red"}}, "conditions name the unknown 'colour'; choose among group"),
        ({"conditions": [{"group": "HCM"}]}, "1 entries for"),
        ({"conditions": {"group": "HCM"}, "class_labels": 1}, "conditions and class_labels are both given"),
    ],
)
def test_conditions_that_do_not_exist_are_named(kind, asked, message, load):
    with pytest.raises(InputError, match=message):
        call(load(kind), **asked)


def test_a_model_without_conditions_takes_none(load):
    with pytest.raises(InputError, match="conditions name the unknown 'group'; this model takes no conditions"):
        call(load("dcgan"), conditions={"group": "HCM"})


def test_names_in_one_string_are_the_old_form(load):
    with pytest.warns(FutureWarning, match="give conditions"):
        old = call(load("tuned"), class_labels="NOR mid ED").images
    np.testing.assert_array_equal(
        old, call(load("tuned"), conditions={"group": "NOR", "phase": "ED", "level": "mid"}).images
    )


def test_the_names_in_files_are_pinned(saved):
    for kind, pipeline_class in CLASSES.items():
        index = json.loads(Path(saved, kind, "model_index.json").read_text())
        assert index["_class_name"] == pipeline_class.__name__
        assert index[pipeline_class.network_name][0].split(".")[0] == ("diffusers" if kind in DIFFUSION else "hcm_hf")
