"""A model in a repository of the Hub: named, found, downloaded, kept, used."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DiffusionPipeline
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from pushes import pushed
from tiny import sample

from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.push import push_model
from hcm_hf.models import DCGANGenerator
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.utils.errors import InputError


def test_private_repositories_open_with_a_token_alone(run, hub, fresh, tmp_path):
    push_model(run("gan"), "ada/hearts", private=True)
    assert hub.repos["model", "ada/hearts"].private
    assert HCMPipeline.from_pretrained("ada/hearts", **fresh)
    for token in ("bob-writes", False):
        with pytest.raises(
            InputError, match="There is no folder ada/hearts here; Hub: no model ada/hearts is there that you may see"
        ):
            HCMPipeline.from_pretrained("ada/hearts", token=token, cache_dir=tmp_path / "other")
    with pytest.raises(InputError, match="the Hub does not accept the token .*`hf auth login`, or unset HF_TOKEN"):
        HCMPipeline.from_pretrained("ada/hearts", token="hf_wrong", cache_dir=tmp_path / "other")
    assert HCMPipeline.from_pretrained("ada/hearts", token="ada-reads", cache_dir=tmp_path / "other")


def test_what_is_not_there_is_named(run, hub, fresh):
    with pytest.raises(InputError, match="There is no folder runs/none here; Hub: no model runs/none is there"):
        HCMPipeline.from_pretrained("runs/none", **fresh)
    push_model(run("gan"), "ada/hearts")
    for name, revision in (("ada/hearts", "v9"), ("ada/hearts@v9", None)):
        with pytest.raises(InputError, match="the model ada/hearts has no revision 'v9'"):
            HCMPipeline.from_pretrained(name, revision=revision, **fresh)
    hub.commit("model", "ada/empty", {"README.md": b"# Nothing"})
    with pytest.raises(InputError, match="The model ada/empty holds no pipeline"):
        HCMPipeline.from_pretrained("ada/empty", **fresh)
    hub.commit("model", "ada/gated", {"model_index.json": b"{}"}, gated="manual")
    with pytest.raises(InputError, match=f"ada/gated is gated; ask for access on {hub.url}/ada/gated"):
        HCMPipeline.from_pretrained("ada/gated", token="bob-writes", **fresh)


def test_revisions_and_pull_requests(run, hub, fresh):
    push_model(run("gan"), "ada/hearts")
    push_model(run("vae"), "ada/hearts", revision="second")
    assert "LatentPipeline" in HCMPipeline.from_pretrained("ada/hearts", revision="second", **fresh).__class__.__name__
    assert HCMPipeline.from_pretrained("ada/hearts@second", **fresh).network.__class__.__name__ == "VAE"
    assert HCMPipeline.from_pretrained("ada/hearts", **fresh).network.__class__.__name__ == "GANGenerator"
    before = pushed(hub)
    url = push_model(run("dcgan"), "ada/hearts", create_pr=True, token="bob-writes")
    assert "/discussions/" in url and pushed(hub) == before
    network = HCMPipeline.from_pretrained("ada/hearts", revision="refs/pr/1", **fresh).network
    assert network.__class__.__name__ == "DCGANGenerator"


def test_a_server_that_is_busy_twice_is_asked_again(run, hub, fresh):
    push_model(run("gan"), "ada/hearts")
    hub.fail(2, 503, "model_index.json")
    assert HCMPipeline.from_pretrained("ada/hearts", **fresh)
    assert sum(path.endswith("model_index.json") for _, path, _ in hub.requests) >= 3


def test_a_download_that_breaks_is_resumed(hub, fresh):
    torch.manual_seed(0)
    big = DCGANGenerator(16, latent_dim=6, base_channels=640)
    LatentPipeline(big).save_pretrained(fresh["cache_dir"].parent / "big")
    folder = fresh["cache_dir"].parent / "big"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files["network/diffusion_pytorch_model.safetensors"]) > 20 * 2**20
    hub.commit("model", "ada/big", files)
    hub.drop_after("safetensors", 12 * 2**20)
    loaded = HCMPipeline.from_pretrained("ada/big", **fresh).network.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in big.state_dict().items())
    assert "bytes=10485760-" in hub.ranges


def test_a_filled_cache_serves_offline(run, hub, tmp_path, monkeypatch):
    push_model(run("vae"), "ada/hearts")
    cached = {"cache_dir": tmp_path / "cache"}
    HCMPipeline.from_pretrained("ada/hearts", **cached)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert HCMPipeline.from_pretrained("ada/hearts", **cached)(batch_size=1).images[0].size == (16, 16)
    with pytest.raises(InputError) as refused:
        HCMPipeline.from_pretrained("ada/other", **cached)
    said = str(refused.value)
    assert "There is no folder ada/other here; Hub: the model ada/other is not in the cache" in said
    assert "the Hub cannot be reached (offline mode)" in said
    assert hub.requests == []


def test_the_generic_paths_of_diffusers(run, hub, fresh):
    push_model(run("dcgan"), "ada/hearts")
    push_model(run("ddpm"), "ada/ddpm")
    stock = DDPMPipeline.from_pretrained("ada/ddpm", **fresh)
    np.testing.assert_allclose(
        sample("ddpm", stock), sample("ddpm", HCMPipeline.from_pretrained(run("ddpm"))), atol=1e-6
    )
    assert isinstance(LatentPipeline.from_pretrained("ada/hearts", **fresh), LatentPipeline)
    with pytest.raises(InputError, match="ada/ddpm holds a DDPMPipeline; load it with HCMPipeline"):
        LatentPipeline.from_pretrained("ada/ddpm", **fresh)
    with pytest.raises((AttributeError, ValueError, OSError)):  # as the card says
        DiffusionPipeline.from_pretrained("ada/hearts", **fresh)
    with pytest.raises(OSError, match="not fully cached locally") as vague:  # what explains itself with us
        DDPMPipeline.from_pretrained("ada/ddpm", token="hf_wrong", cache_dir=fresh["cache_dir"] / "other")
    assert isinstance(vague.value.__cause__, HfHubHTTPError)
    with pytest.raises(InputError, match="the Hub does not accept the token with which ada/ddpm was asked for"):
        HCMPipeline.from_pretrained("ada/ddpm", token="hf_wrong", cache_dir=fresh["cache_dir"] / "other")


def test_a_repository_generates_and_is_scored(run, hub, dataset_dir, tmp_path):
    push_model(run("dcgan"), "ada/hearts")
    images = generate_images("ada/hearts", tmp_path / "images", num_images=20)
    local = generate_images(run("dcgan"), tmp_path / "local", num_images=20)
    for path in images.glob("*.png"):
        assert path.read_bytes() == (local / path.name).read_bytes()
    found = score(tmp_path / "report", images=images, model="ada/hearts", dataset=dataset_dir)
    assert found.generator.model == "ada/hearts"
    push_model(run("dcgan"), "ada/hearts", tmp_path / "report")


def test_a_run_that_was_uploaded_as_it_is_loads(run, hub, fresh, tmp_path):
    HfApi().create_repo("ada/run")
    HfApi().upload_folder(repo_id="ada/run", folder_path=run("dcgan"))  # hf upload RUN .
    loaded = HCMPipeline.from_pretrained("ada/run", **fresh)
    np.testing.assert_allclose(sample("dcgan", loaded), sample("dcgan", HCMPipeline.from_pretrained(run("dcgan"))))
    images = generate_images("ada/run", tmp_path / "images", num_images=2)
    seen = json.loads((run("dcgan") / "training_config.json").read_text())["train_patients"]
    assert json.loads((images / "generation.json").read_text())["train_patients"] == seen


@pytest.mark.parametrize(
    "name", ["{url}/ada/hearts", "hf://ada/hearts@main", "hf://models/ada/hearts/model_index.json"]
)
def test_other_ways_of_naming_a_repository(name, run, hub, fresh):
    push_model(run("gan"), name.format(url=hub.url).removesuffix("@main"))
    assert HCMPipeline.from_pretrained(name.format(url=hub.url), **fresh).network.__class__.__name__ == "GANGenerator"


def test_images_of_a_repository_are_not_scored_against_what_it_has_seen(run, hub, dataset_dir, tmp_path):
    push_model(run("dcgan"), "ada/hearts")
    images = generate_images("ada/hearts", tmp_path / "images", num_images=20)
    with pytest.raises(InputError, match="was trained on patient"):
        score(tmp_path / "report", images=images, dataset=dataset_dir, split="train")


def test_the_hash_of_a_model_is_that_of_its_pipeline(run, hub, fresh):
    push_model(run("gan"), "ada/hearts")
    hub.commit("model", "ada/hearts", {"extra/config.json": b"{}"})
    before = hash_model(find_pipeline("ada/hearts", **fresh))
    snapshot_download("ada/hearts", **fresh)
    assert hash_model(find_pipeline("ada/hearts", **fresh)) == before == hash_model(run("gan"))


def test_a_model_goes_where_it_is_sent(run):
    assert HCMPipeline.from_pretrained(run("gan"), device="meta").device.type == "meta"
