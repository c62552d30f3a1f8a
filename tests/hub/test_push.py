import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DiffusionPipeline, UNet2DModel
from huggingface_hub import HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from tiny import build_tiny, sample, tiny_families

import hcm_hf
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images, image_generator
from hcm_hf.hub.push import push_dataset, push_model, push_space
from hcm_hf.models import DCGANGenerator
from hcm_hf.models.unet import build_unet
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.schedulers import linear_schedule
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.encoder import train_encoder
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import SUMS_FILE


ROOT = Path(__file__).parents[2]
# Of this package, in a Space that needs it: source, and what the source reads.
PACKAGE = {
    *("hcm_hf/hub/push.py", "hcm_hf/py.typed"),
    *("hcm_hf/model_cards/gan.md", "hcm_hf/model_cards/references.bib"),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def run(dataset_dir, tmp_path_factory):
    """A trained run of a family, each trained once."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def trained(family):
        if family not in runs:
            with pytest.MonkeyPatch.context() as patch:
                for name, tiny in tiny_families().items():
                    patch.setitem(FAMILIES, name, tiny)
                config = TrainingConfig(
                    family, dataset=str(dataset_dir), output_dir=str(folder / family), num_epochs=1
                )
                runs[family] = train(config)
        return runs[family]

    return trained


@pytest.fixture(scope="module")
def report(run, dataset_dir, tmp_path_factory):
    """A report on the DCGAN, with an encoder."""
    folder = tmp_path_factory.mktemp("report")
    encoder = train_encoder(folder / "judge", str(dataset_dir), num_epochs=1)
    score(folder / "out", model=run("dcgan"), dataset=dataset_dir, encoder=encoder, num_images=60)
    return folder / "out"


@pytest.fixture
def fresh(tmp_path):
    """Where nothing is cached."""
    return {"cache_dir": tmp_path / "cache"}


def network_of(pipeline):
    return next(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))


def pushed(hub, repo_id="ada/hearts", kind="model"):
    return hub.files(kind, repo_id)


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


@pytest.fixture
def paired_run(run, tmp_path):
    """A model that makes masks, untrained, in the run of a student whose teacher lies on this machine."""
    folder = tmp_path / "student"
    pipeline = build_tiny("ddpm", recipe="tuned").pipeline()
    pipeline.register_to_config(num_inference_steps=3)
    pipeline.save_pretrained(folder / "best")
    written = json.loads((run("ddpm") / "training_config.json").read_text())
    written |= {"recipe": "distilled", "teacher": str(tmp_path / "tuned" / "best"), "teacher_hash": "0123456789abcdef"}
    (folder / "training_config.json").write_text(json.dumps(written))
    return folder


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


def test_a_push_without_the_right_is_refused(run, hub, monkeypatch):
    with pytest.raises(InputError, match="The token may only read, so ada/hearts cannot be made"):
        push_model(run("gan"), "ada/hearts", token="ada-reads")
    with pytest.raises(InputError, match="There is no model bob/hearts, and you are ada: name one of your own"):
        push_model(run("gan"), "bob/hearts")
    assert hub.repos == {}
    with pytest.raises(InputError, match="The Hub does not accept the token with which ada/hearts was asked for"):
        push_model(run("gan"), "ada/hearts", token="hf_wrong")
    hub.commit("model", "ada/hearts", {"README.md": b"# Mine"})
    for token in ("ada-reads", "bob-writes"):
        with pytest.raises(
            InputError, match="The Hub does not let this token at ada/hearts .*log in with .* one that has the right"
        ):
            push_model(run("gan"), "ada/hearts", token=token)
    assert pushed(hub)["README.md"] == b"# Mine"
    with pytest.raises(InputError, match="ada/hearts is public, and it was to be private; make it private"):
        push_model(run("gan"), "ada/hearts", private=True)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(InputError, match="You are not logged in to the Hub, so ada/hearts cannot be written"):
        push_model(run("gan"), "ada/hearts")


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


def test_a_card_that_the_hub_rejects_leaves_the_repository_as_it_was(run, hub, tmp_path):
    hub.commit("model", "ada/hearts", {"README.md": b"# Mine"})
    copy = tmp_path / "run"
    copy.mkdir()
    for path in (run("gan") / "best").rglob("*"):
        target = copy / path.relative_to(run("gan") / "best")
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    (copy / SUMS_FILE).unlink()
    written = json.loads((copy / "training_config.json").read_text())
    (copy / "training_config.json").write_text(
        json.dumps(written | {"dataset_source": "other", "dataset_license": "all-mine"})
    )
    with pytest.raises(InputError, match="The Hub rejects the card of ada/hearts .*license.*; nothing was pushed"):
        push_model(copy, "ada/hearts")
    assert pushed(hub)["README.md"] == b"# Mine" and "model_index.json" not in pushed(hub)


def test_a_push_interrupted_before_its_commit_leaves_the_repository_as_it_was(run, hub):
    push_model(run("gan"), "ada/hearts")
    before, commits = pushed(hub), hub.commits("model", "ada/hearts")
    hub.fail(1, 500, "/commit/")
    with pytest.raises(InputError, match="The Hub answered 500 about ada/hearts .*try again later"):
        push_model(run("vae"), "ada/hearts")
    hub.fail(100, 500, "/object/")  # no large file can be uploaded
    with pytest.raises(InputError, match="The push to ada/hearts failed .*Nothing was changed there; push again"):
        push_model(run("dcgan"), "ada/hearts")
    assert pushed(hub) == before and hub.commits("model", "ada/hearts") == commits


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


def test_a_filled_cache_serves_offline(run, hub, tmp_path):
    push_model(run("vae"), "ada/hearts")
    code = (
        "from hcm_hf import HCMPipeline, InputError\n"
        "print(HCMPipeline.from_pretrained('ada/hearts', cache_dir='cache')(batch_size=1).images[0].size)\n"
        "try: HCMPipeline.from_pretrained('ada/other', cache_dir='cache')\n"
        "except InputError as error: print(error)"
    )

    HCMPipeline.from_pretrained("ada/hearts", cache_dir=tmp_path / "cache")
    hub.requests.clear()
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "(16, 16)" in said.stdout, said.stderr
    assert "There is no folder ada/other here; Hub: the model ada/other is not in the cache" in said.stdout
    assert "the Hub cannot be reached (offline mode)" in said.stdout
    assert hub.requests == []


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


def test_a_dataset_goes_to_the_hub_and_back(hub, dataset_dir, tmp_path, monkeypatch):
    url = push_dataset(dataset_dir, "ada/slices")
    assert "/datasets/ada/slices/commit/" in url and hub.repos["dataset", "ada/slices"].private
    assert push_dataset(dataset_dir, "ada/slices") == url
    files = pushed(hub, "ada/slices", "dataset")
    parquet = {f"data/{split}.parquet" for split in ("train", "validation", "test")}
    assert {*parquet, "README.md", "preparation.json"} == set(files) - {".gitattributes"}
    before, after = hcm_hf.load_dataset(dataset_dir), hcm_hf.load_dataset("ada/slices")
    plain = datasets.load_dataset("ada/slices", cache_dir=tmp_path / "plain")
    assert list(after) == list(plain) == ["train", "validation", "test"]
    for split in before:
        assert before[split].features == after[split].features == plain[split].features
        assert after[split].info.license == before[split].info.license == "apache-2.0"
        slices = [Slices(one[split], ("HCM", "NOR")) for one in (before, after, plain)]
        assert slices[0].fingerprint() == slices[1].fingerprint() == slices[2].fingerprint()
        assert torch.equal(slices[0].masks, slices[1].masks)
    with pytest.raises(InputError, match="There is no folder ada/none here; Hub: no dataset ada/none is there"):
        hcm_hf.load_dataset("ada/none")
    hub.commit("dataset", "ada/texts", {"a.csv": b"a,b\n1,2\n"})
    with pytest.raises(InputError, match="dataset ada/texts holds no data/.*parquet"):
        hcm_hf.load_dataset("ada/texts")


def test_a_repository_trains_and_the_card_names_it(hub, dataset_dir, tmp_path, monkeypatch):
    for name, tiny in tiny_families().items():
        monkeypatch.setitem(FAMILIES, name, tiny)
    push_dataset(dataset_dir, "ada/slices")
    config = TrainingConfig("gan", dataset="ada/slices", output_dir=str(tmp_path / "run"), num_epochs=1)
    output_dir = train(config)
    assert train(replace(config, dataset=str(dataset_dir))) == output_dir  # the same slices: the same run
    train(config)
    score(tmp_path / "report", model=output_dir, dataset="ada/slices", num_images=20)
    push_model(output_dir, "ada/hearts", tmp_path / "report")
    data = ModelCard(pushed(hub)["README.md"].decode()).data
    rows = json.loads(pushed(hub)["metrics.json"])["rows"]
    assert data.datasets == "ada/slices" and {one.dataset_type for one in data.eval_results} == {"ada/slices"}
    results = {one.metric_type: one.metric_value for one in data.eval_results}
    assert results["spectrum_distance"] == rows["generated"]["spectrum_distance"]["value"]
    assert results["spectrum_distance_real"] == rows["real"]["spectrum_distance"]["value"]
    assert rows["real"]["ssim_random"]["value"] is None and "ssim_random" not in results  # one patient meets no other


def test_real_patients_stay_private_unless_the_rights_are_claimed(hub, dataset_dir, tmp_path):
    folder = tmp_path / "acdc"
    hcm_hf.load_dataset(dataset_dir).save_to_disk(folder)
    written = json.loads((dataset_dir / "preparation.json").read_text())
    (folder / "preparation.json").write_text(json.dumps(written | {"source": "acdc"}))
    with pytest.raises(InputError, match="holds real patients .* say i_have_the_rights"):
        push_dataset(folder, "ada/acdc", private=False)
    assert ("dataset", "ada/acdc") not in hub.repos
    hub.commit("dataset", "ada/open", {"README.md": b"# Mine"})
    with pytest.raises(
        InputError,
        match="ada/open is public, .* push it as a public one .`public`, in Python private=F",
    ):
        push_dataset(folder, "ada/open")
    assert set(pushed(hub, "ada/open", "dataset")) - {".gitattributes"} == {"README.md"}
    push_dataset(folder, "ada/acdc")
    assert hub.repos["dataset", "ada/acdc"].private
    push_dataset(folder, "ada/published", private=False, i_have_the_rights=True)
    card = pushed(hub, "ada/published", "dataset")["README.md"].decode()
    assert not hub.repos["dataset", "ada/published"].private
    assert "license: cc-by-nc-sa-4.0" in card and "10.1109/TMI.2018.2837502" in card and "synthetic-data" not in card
    with pytest.raises(InputError, match="has no preparation.json"):
        (folder / "preparation.json").unlink()
        push_dataset(folder, "ada/acdc")


def test_the_metric_space_loads_from_the_hub_and_from_its_folder(hub, tmp_path):
    url = push_space(ROOT / "spaces" / "slice-similarity", "ada/slice-similarity")
    assert push_space(ROOT / "spaces" / "slice-similarity", "ada/slice-similarity") == url
    files = pushed(hub, "ada/slice-similarity", "space")
    own = {".gitattributes", "README.md", "app.py", "requirements.txt", "slice-similarity.py"}
    assert {name for name in files if not name.startswith("hcm_hf/")} == own  # the package is for the page alone
    module = ROOT / "src" / "hcm_hf" / "metrics" / "slice_similarity" / "slice_similarity.py"
    assert files["slice-similarity.py"] == module.read_bytes()
    code = (
        "import sys\n"
        "sys.modules['hcm_hf'] = None\n"  # as where this package is not installed
        "import evaluate, numpy as np\n"
        "a, b = np.random.default_rng(0).random((2, 3, 16, 16))\n"
        "one, other = (evaluate.load(name) for name in ('ada/slice-similarity', {!r}))\n"
        "found = one.compute(predictions=a, references=b)['ssim']\n"
        "del sys.modules['hcm_hf']\n"
        "from hcm_hf.metrics.pixel import ssim_matrix\n"
        "assert found == ssim_matrix(a, b).mean()\n"
        "assert other.compute(predictions=a, references=b, protocol='all', data_range=1.0)['ssim'] == found\n"
    ).format(str(ROOT / "spaces" / "slice-similarity"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_a_space_keeps_the_models_that_it_was_told_to_serve(run, hub, monkeypatch):
    folder, where = ROOT / "spaces" / "hcm-generator", ("space", "ada/hcm-generator")
    push_model(run("gan"), "ada/gan")
    with pytest.raises(InputError, match="No model ada/none is there that you may see"):
        push_space(folder, "ada/hcm-generator", ["ada/gan", "ada/none"])
    with pytest.raises(InputError, match="models hearts is no model of the Hub; give user/name"):
        push_space(folder, "ada/hcm-generator", ["hearts"])
    assert where not in hub.repos
    push_space(folder, "ada/hcm-generator", [f"{hub.url}/ada/gan", "ada/gan@main"])
    assert json.loads(hub.files(*where)["models.json"]) == ["ada/gan", "ada/gan@main"]
    monkeypatch.setattr(sys, "argv", ["push.py", "--space", str(folder), "--repo_id", "ada/hcm-generator"])
    runpy.run_path(str(ROOT / "scripts" / "push.py"), run_name="__main__")
    files = hub.files(*where)
    assert json.loads(files["models.json"]) == ["ada/gan", "ada/gan@main"] and len(hub.commits(*where)) == 2
    tracked = {path.name for path in folder.iterdir() if not path.name.startswith(("_", "."))}
    assert tracked <= set(files) and PACKAGE <= set(files)


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


def test_names_that_cannot_be_pushed_to_are_a_sentence(run, hub):
    with pytest.raises(InputError, match="is a dataset, not a model"):
        push_model(run("gan"), "hf://datasets/ada/slices")
    with pytest.raises(InputError, match="give ada/hearts, and v1 as `revision`"):
        push_model(run("gan"), "ada/hearts@v1")
    with pytest.raises(InputError, match="has a password in it; give user/name") as refused:
        push_model(run("gan"), "https://ada:hf_secret@huggingface.co/ada/hearts")
    assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["ada-writes\0", "ada writes", "", " \n", "ada-writes\u201c", "\nada-\nwrites"])
def test_a_token_that_cannot_be_one_is_refused_and_not_quoted(token, run, hub, fresh, dataset_dir, monkeypatch):
    calls = (
        lambda: push_model(run("gan"), "ada/hearts", token=token),
        lambda: push_dataset(dataset_dir, "ada/slices", token=token),
        lambda: push_space(ROOT / "spaces" / "slice-similarity", "ada/slice-similarity", token=token),
        lambda: HCMPipeline.from_pretrained("ada/hearts", token=token, **fresh),
        lambda: LatentPipeline.from_pretrained("ada/hearts", token=token, **fresh),
    )
    for call in calls:
        with pytest.raises(InputError, match="The token that was given (is empty|holds a character)") as refused:
            call()
        shown = "".join(traceback.format_exception(refused.value))
        assert "ada-" not in shown and "writes" not in shown.replace("ada/", "")
    assert hub.requests == [] and hub.repos == {}


def test_a_token_from_a_file_is_stripped_and_a_damaged_one_is_not_quoted(run, hub, fresh, tmp_path, monkeypatch):
    push_model(run("gan"), "ada/hearts", private=True, token=" ada-writes\n")
    assert HCMPipeline.from_pretrained("ada/hearts", token="ada-reads\r\n", **fresh)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("ada-writes\0")
    for call in (lambda: push_model(run("gan"), "ada/other"), lambda: HCMPipeline.from_pretrained("ada/hearts")):
        with pytest.raises(InputError, match="The token of `hf auth login` or HF_TOKEN holds a character") as refused:
            call()
        assert "ada-" not in "".join(traceback.format_exception(refused.value))


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


def test_a_folder_that_is_no_space_is_named(hub, tmp_path):
    with pytest.raises(InputError, match="holds no README.md; name a folder of spaces/"):
        push_space(tmp_path, "ada/space")


def test_a_killed_push_leaves_the_repository_as_it_was(run, hub):
    push_model(run("gan"), "ada/hearts")
    before = pushed(hub)
    code = f"import hcm_hf; hcm_hf.push_model({str(run('vae'))!r}, 'ada/hearts')"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not [path for _, path, _ in hub.requests if "preupload" in path][1:] and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert time.monotonic() < deadline and process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pushed(hub) == before or len(hub.commits("model", "ada/hearts")) == 3  # whole or not at all
    assert HCMPipeline.from_pretrained("ada/hearts", cache_dir=run("gan").parent / "cache")


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


def test_two_pushes_at_once_do_not_mix(run, hub, monkeypatch):
    push_model(run("gan"), "ada/hearts")
    listed = HfApi.repo_info

    def meanwhile(api, *arguments, **options):
        info = listed(api, *arguments, **options)
        hub.commit("model", "ada/hearts", {"other.txt": b"meanwhile"})
        return info

    monkeypatch.setattr(HfApi, "repo_info", meanwhile)
    with pytest.raises(InputError, match="Somebody else pushed to ada/hearts at the same moment; push again"):
        push_model(run("vae"), "ada/hearts")
    assert HCMPipeline.from_pretrained(run("gan")) and "other.txt" in pushed(hub)
    assert b"GANGenerator" in pushed(hub)["model_index.json"]


def test_a_pipeline_saved_again_does_not_say_where_it_came_from(run, hub, tmp_path):
    HCMPipeline.from_pretrained(run("gan")).save_pretrained(tmp_path / "again")
    written = (run("gan") / "best" / "training_config.json").read_bytes()
    (tmp_path / "again" / "training_config.json").write_bytes(written)
    push_model(tmp_path / "again", "ada/hearts")
    assert not [name for name, data in pushed(hub).items() if name.endswith(".json") and b"_name_or_path" in data]


def test_a_card_cannot_make_a_dataset_read_other_files(hub, dataset_dir, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("image\nSECRET\n")
    push_dataset(dataset_dir, "ada/slices")
    files = pushed(hub, "ada/slices", "dataset")
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {secret}\n---\n"
    hub.commit("dataset", "eve/slices", files | {"README.md": card.encode()})
    loaded = hcm_hf.load_dataset("eve/slices")["train"]
    assert len(loaded) == len(hcm_hf.load_dataset(dataset_dir)["train"])
    hub.commit("model", "eve/hearts", {"README.md": b"---\ntags: 5\n---\n", "model_index.json": b"{}"})
    with pytest.raises(InputError, match="There is no folder eve/hearts here; Hub: "):
        HCMPipeline.from_pretrained("eve/hearts", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("status", "said"), [(402, "answered 402"), (429, "try again later"), (503, "try again later")]
)
def test_what_the_hub_gives_as_its_reason_is_passed_on(status, said, run, hub):
    push_model(run("gan"), "ada/hearts")
    hub.fail(100, status, "/commit/")
    with pytest.raises(InputError, match=said):
        push_model(run("vae"), "ada/hearts")


def test_a_space_takes_no_secrets_and_a_metric_keeps_its_name(hub, tmp_path):
    folder = tmp_path / "space"
    (folder / ".git").mkdir(parents=True)
    for name in ("README.md", "app.py", ".env", ".git/config", "app.py~", "data.bin"):
        (folder / name).write_text("---\nsdk: gradio\n---\n" if name == "README.md" else "x = 1\n")
    (folder / "link.py").symlink_to("/etc/hostname")
    push_space(folder, "ada/space")
    own = {name for name in pushed(hub, "ada/space", "space") if not name.startswith(("hcm_hf/", ".gitattributes"))}
    assert own == {"README.md", "app.py"}
    with pytest.raises(InputError, match="call it slice-similarity"):
        push_space(ROOT / "spaces" / "slice-similarity", "ada/my-metric")


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


def test_what_was_pushed_before_goes_with_its_split(hub, dataset_dir):
    push_dataset(dataset_dir, "ada/slices")
    old = hub.files("dataset", "ada/slices")["data/train.parquet"]
    hub.commit("dataset", "ada/slices", {"data/train-00000-of-00001.parquet": old, "data/masks.csv": b"theirs"})
    push_dataset(dataset_dir, "ada/slices")
    files = pushed(hub, "ada/slices", "dataset")
    assert "data/train-00000-of-00001.parquet" not in files and files["data/masks.csv"] == b"theirs"
    assert len(hcm_hf.load_dataset("ada/slices")["train"]) == len(hcm_hf.load_dataset(dataset_dir)["train"])


def test_a_model_goes_where_it_is_sent(run):
    assert HCMPipeline.from_pretrained(run("gan"), device="meta").device.type == "meta"


def test_one_process_of_several_pushes(hub, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("hcm_hf.training.loop.train", lambda config: tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--family", "gan", "--push_to_hub"])
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert hub.requests == []
