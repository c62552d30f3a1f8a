"""What a user of diffusers expects of the call of any pipeline; after diffusers' own tests of pipelines."""

import diffusers
import numpy as np
import pytest
import torch
from contract import DIFFUSION, KINDS, call, every_kind
from tiny import build_tiny, network_of

from hcm_hf.utils.errors import InputError


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


def test_a_stock_pipeline_makes_the_same_images(load, kinds):
    stock = diffusers.DDPMPipeline.from_pretrained(kinds / "ddpm")
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
