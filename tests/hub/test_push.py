"""What a push of a model writes, and that it is loaded as it was."""

import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from pushes import ROOT, pushed
from tiny import network_of, sample

import hcm_hf
from hcm_hf.generation.images import image_generator
from hcm_hf.hub.push import push_dataset, push_model
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_pushed_and_loaded_is_equal(family, run, hub, fresh):
    before = HCMPipeline.from_pretrained(run(family))
    url = push_model(run(family), f"ada/hcm-{family}")
    assert url.startswith(f"{hub.url}/ada/hcm-{family}/commit/")
    assert hub.commits("model", f"ada/hcm-{family}")[0] == f"{family}, recipe paper, hcm_hf {hcm_hf.__version__}"
    assert len(hub.commits("model", f"ada/hcm-{family}")) == 2  # and the one that made the repository
    written = set(json.loads((run(family) / "training_config.json").read_text()))
    noted = set(json.loads(pushed(hub, f"ada/hcm-{family}")["training_config.json"]))
    assert written - noted == {"output_dir", "report_to"} and noted <= written
    after = HCMPipeline.from_pretrained(f"ada/hcm-{family}", **fresh)
    assert type(after) is type(before) and not network_of(after).training
    states = [network_of(pipeline).state_dict() for pipeline in (before, after)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    np.testing.assert_allclose(sample(family, before), sample(family, after), atol=1e-6)
    files = pushed(hub, f"ada/hcm-{family}")
    assert {"README.md", "model_index.json", "training_config.json", "losses.png", "samples.png"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    assert f'HCMPipeline.from_pretrained("ada/hcm-{family}")' in files["README.md"].decode()
    sources = [image_generator(0, index) for index in range(32)]
    with Image.open(io.BytesIO(files["samples.png"])) as grid:  # eight in a row, each pixel twice as large
        shown = np.asarray(grid)[:32:2, :32:2].astype(int)
    steps = {"num_inference_steps": 50} if family == "ddpm" else {}
    drawn, _ = Sampling(**steps).applied_to(HCMPipeline.from_pretrained(run(family)))
    first = drawn(32, generator=sources, output_type="np", **steps).images[0, ..., 0]
    assert np.abs(shown - np.rint(first * 255)).max() <= 1


def test_a_pushed_model_of_masks_is_loaded_equal_and_shows_them(paired_run, hub, fresh):
    push_model(paired_run, "ada/hearts")
    before, after = HCMPipeline.from_pretrained(paired_run), HCMPipeline.from_pretrained("ada/hearts", **fresh)
    assert type(after) is type(before) and after.conditions == before.conditions and not after.unet.training
    states = [pipeline.unet.state_dict() for pipeline in (before, after)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    sources = [[image_generator(0, index) for index in range(32)] for _ in range(2)]
    drawn, again = (
        pipeline(32, generator=source, output_type="np")
        for pipeline, source in zip((before, after), sources, strict=True)
    )
    np.testing.assert_array_equal(drawn.images, again.images)
    np.testing.assert_array_equal(drawn.masks, again.masks)

    files = pushed(hub)
    with Image.open(io.BytesIO(files["samples.png"])) as grid:  # four rows without and four with masks
        shown = np.asarray(grid).astype(int)
    assert shown.shape == (8 * 34 - 2, 8 * 34 - 2, 3)
    assert np.abs(shown[:32:2, :32:2, 0] - np.rint(drawn.images[0, ..., 0] * 255)).max() <= 1
    marked = (shown[34 : 34 + 32 : 2, :32:2] != shown[:32:2, :32:2]).any(-1)
    np.testing.assert_array_equal(marked, drawn.masks[0] > 0)
    card = files["README.md"].decode()
    assert "(class HCM; sde-dpmsolver++, 3 steps)" in card and "pipe(batch_size=4, conditions=shown," in card
    assert "DDPMPipeline.from_pretrained" not in card and ModelCard(card).data.library_name == "hcm_hf"
    assert "| teacher | tuned |" in card and str(paired_run.parent).encode() not in files["training_config.json"]
    assert f"ddpm, recipe distilled, hcm_hf {hcm_hf.__version__}" == hub.commits("model", "ada/hearts")[0]


def test_the_same_push_makes_no_second_commit(run, report, hub, fresh):
    first = push_model(run("dcgan"), "ada/hearts", report)
    assert push_model(run("dcgan"), "ada/hearts", report) == first
    assert len(hub.commits("model", "ada/hearts")) == 2
    push_model(run("dcgan"), "ada/hearts")  # without its report
    assert len(hub.commits("model", "ada/hearts")) == 3 and "metrics.json" not in pushed(hub)


def test_what_another_model_left_goes(run, hub, fresh):
    push_model(run("ddpm"), "ada/hearts")
    hub.commit("model", "ada/hearts", {"notes.txt": b"mine"})
    push_model(run("vae"), "ada/hearts")
    files = pushed(hub)
    assert not [name for name in files if name.startswith(("unet", "scheduler"))] and files["notes.txt"] == b"mine"
    assert HCMPipeline.from_pretrained("ada/hearts", **fresh).network.__class__.__name__ == "VAE"


def test_the_report_goes_with_its_model_and_no_other(run, report, hub):
    push_model(run("dcgan"), "ada/hearts", report)
    metrics = json.loads(pushed(hub)["metrics.json"])
    own = json.loads((report / "report.json").read_text())
    assert metrics["rows"] == own["rows"] and metrics["generator"]["model"] == "ada/hearts"
    card = ModelCard(pushed(hub)["README.md"].decode())
    assert card.data.eval_results is None and "| ssim_random |" in card.text  # no repository holds its dataset
    assert own["dataset"]["name"] != metrics["dataset"]["name"] == Path(own["dataset"]["name"]).name
    with pytest.raises(InputError, match="report .* is about another model"):
        push_model(run("vae"), "ada/other", report)
    with pytest.raises(InputError, match="report nowhere does not exist"):
        push_model(run("vae"), "ada/other", "nowhere")
    assert ("model", "ada/other") not in hub.repos  # refused before anything was made


def test_nothing_pushed_names_a_token_or_a_path_of_this_machine(run, report, hub, dataset_dir):
    push_model(run("dcgan"), "ada/hearts", report, token="ada-writes")
    push_dataset(dataset_dir, "ada/slices", token="ada-writes")
    texts = [*pushed(hub).values(), *pushed(hub, "ada/slices", "dataset").values()]
    texts += [path.read_bytes() for path in (*run("dcgan").rglob("*"), *report.rglob("*")) if path.is_file()]
    assert not [text for text in texts if b"ada-writes" in text]
    shown = [text for name, text in pushed(hub).items() if name.endswith((".json", ".md"))]
    assert not [text for text in shown if str(ROOT.parent).encode() in text or b"/tmp" in text or b"pytest-" in text]


def test_nothing_is_drawn_where_nothing_is_new(run, report, hub, monkeypatch):
    push_model(run("ddpm"), "ada/hearts")

    def drawn(*arguments, **options):
        raise AssertionError("samples were drawn")

    monkeypatch.setattr(DDPMPipeline, "__call__", drawn)
    push_model(run("ddpm"), "ada/hearts")
    assert len(hub.commits("model", "ada/hearts")) == 2


def test_a_repository_of_its_own_classes_has_what_the_hub_counts(run, hub, fresh):
    push_model(run("gan"), "ada/hearts")
    HCMPipeline.from_pretrained("ada/hearts", **fresh)
    assert json.loads(pushed(hub)["config.json"]) == {
        "library_name": "hcm_hf",
        "family": "gan",
        "recipe": "paper",
        "resolution": 16,
    }
    assert [path for method, path, _ in hub.requests if method == "GET" and path.endswith("/config.json")]
    push_model(run("ddpm"), "ada/ddpm")
    assert "config.json" not in pushed(hub, "ada/ddpm")  # diffusers has its own rule


def test_a_student_names_its_teacher_s_repository_if_there_is_one(paired_run, run, hub, tmp_path, monkeypatch):
    path = paired_run / "training_config.json"
    written = json.loads(path.read_text())
    for teacher, expected in (("ada/none", None), ("ada/tuned", "ada/tuned"), (str(tmp_path / "tuned"), None)):
        hub.commit("model", "ada/tuned", {"README.md": b"# Teacher"})
        path.write_text(json.dumps(written | {"teacher": teacher, "dataset_repository": "ada/gone"}))
        push_model(paired_run, "ada/hearts")
        data = ModelCard(pushed(hub)["README.md"].decode()).data
        assert data.base_model == expected and data.datasets is None  # that repository is not there any more


def test_names_without_an_account_are_completed(run, hub):
    url = push_model(run("gan"), "hearts")
    assert "/ada/hearts/" in url and 'from_pretrained("ada/hearts")' in pushed(hub)["README.md"].decode()
    assert HfApi().model_info("ada/hearts").library_name == "hcm_hf"


def test_files_of_others_stay_and_what_would_break_the_model_goes(run, hub, fresh):
    theirs = {
        "checkpoints/step-1/model.safetensors": b"1",
        "adapters/a.safetensors": b"2",
        "onnx/config.json": b"{}",
        "scheduler/notes.txt": b"3",
    }
    stale = {"unet/diffusion_pytorch_model.safetensors.index.json": b"{}", "unet/diffusion_pytorch_model.bin": b"4"}
    hub.commit("model", "ada/hearts", theirs | stale)
    push_model(run("ddpm"), "ada/hearts")
    files = pushed(hub)
    assert {name: files[name] for name in theirs} == theirs and not set(stale) & set(files)
    assert isinstance(HCMPipeline.from_pretrained("ada/hearts", **fresh), DDPMPipeline)


def test_a_pipeline_saved_again_does_not_say_where_it_came_from(run, hub, tmp_path):
    HCMPipeline.from_pretrained(run("gan")).save_pretrained(tmp_path / "again")
    written = (run("gan") / "best" / "training_config.json").read_bytes()
    (tmp_path / "again" / "training_config.json").write_bytes(written)
    push_model(tmp_path / "again", "ada/hearts")
    assert not [name for name, data in pushed(hub).items() if name.endswith(".json") and b"_name_or_path" in data]


def test_one_process_of_several_pushes(hub, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("hcm_hf.training.loop.train", lambda config: tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--family", "gan", "--push_to_hub"])
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert hub.requests == []
