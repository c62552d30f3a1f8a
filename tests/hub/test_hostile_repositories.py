"""Models that are odd or hostile are refused in a sentence, and nothing of them is run."""

import json
import sys

import pytest
from diffusers import DDPMPipeline, UNet2DModel
from tiny import build_tiny

from hcm_hf.models.unet import build_unet
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.schedulers import linear_schedule
from hcm_hf.utils.errors import InputError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "which is not a model of this package"),
        ({"unet": ["diffusers", "UNet3DConditionModel"]}, "of UNet3DConditionModel, which is not a model of this"),
        ({"sampler": "euler"}, "names the sampler .euler."),
        ({"axes": 3}, "cannot be loaded"),
    ],
)
def test_a_model_of_masks_that_says_odd_things_of_itself_is_refused(changed, message, paired_run, fresh):
    path = paired_run / "best" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(InputError, match=message):
        HCMPipeline.from_pretrained(paired_run, **fresh)


@pytest.mark.parametrize("family", ["dcgan", "ddpm"])
def test_hostile_repositories_are_refused_and_nothing_of_them_is_run(family, hub, fresh, tmp_path):
    build_tiny(family).pipeline().save_pretrained(tmp_path / "model")
    folder, bomb = tmp_path / "model", b"raise SystemExit('run')"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (weights,) = (name for name in files if name.endswith(".safetensors"))
    component = weights.partition("/")[0]
    index = json.loads(files["model_index.json"])

    pickled = {name: data for name, data in files.items() if name != weights}
    pickled[weights.replace(".safetensors", ".bin")] = b"cos\nsystem\n(S'exit 1'\ntR."
    hub.commit("model", "eve/pickled", pickled)
    with pytest.raises(InputError, match="eve/pickled has no safetensors weights; others, as pickles, are not loaded"):
        HCMPipeline.from_pretrained("eve/pickled", **fresh)

    for library, name in (("os", "system"), ("evil", "Network"), ("diffusers", "UNet2DConditionModel")):
        planted = json.dumps(index | {component: [library, name]}).encode()
        hub.commit(
            "model", f"eve/{library}", files | {"model_index.json": planted, "evil.py": bomb, "pipeline.py": bomb}
        )
        with pytest.raises(InputError, match=f"of {name}, which is not a model of this package"):
            HCMPipeline.from_pretrained(f"eve/{library}", **fresh)
    foreign = json.dumps(index | {"_class_name": ["pipeline", "Evil"]}).encode()
    hub.commit("model", "eve/pipeline", files | {"model_index.json": foreign, "pipeline.py": bomb})
    with pytest.raises(InputError, match="which is not a model of this package|is damaged"):
        HCMPipeline.from_pretrained("eve/pipeline", **fresh)
    fetched = {path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
    assert not [path for path in fetched if path.endswith((".py", ".bin", ".safetensors"))]
    assert "evil" not in sys.modules and "pipeline" not in sys.modules


def test_colour_models_are_refused(hub, fresh, tmp_path):
    DDPMPipeline(build_unet(16, (4, 8)), linear_schedule()).save_pretrained(tmp_path / "grey")
    assert HCMPipeline.from_pretrained(tmp_path / "grey")
    colour = UNet2DModel.from_config({**build_unet(16, (4, 8)).config, "in_channels": 3, "out_channels": 3})
    DDPMPipeline(colour, linear_schedule()).save_pretrained(tmp_path / "colour")
    with pytest.raises(InputError, match="makes colour images; this package is for grey ones"):
        HCMPipeline.from_pretrained(tmp_path / "colour")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model_index.json", {"unet": ["diffusers", ["x"]]}),
        ("unet/config.json", {"block_out_channels": 5}),
        ("unet/config.json", {"norm_num_groups": 0}),
        ("scheduler/scheduler_config.json", {"trained_betas": "x"}),
    ],
)
def test_odd_files_are_one_sentence(file, change, tmp_path):
    build_tiny("ddpm").pipeline().save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="which is not a model of this package|cannot be loaded"):
        HCMPipeline.from_pretrained(tmp_path)
