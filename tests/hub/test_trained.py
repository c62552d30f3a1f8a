import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny import shrink

from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.scoring import score
from hcm_hf.hub.trained import LICENSE_FILE, OUTPUTS_FILE, list_models, pack, push_trained, verify
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.encoder import train_encoder
from hcm_hf.training.loop import train
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import SUMS_FILE, write_sums
from hcm_hf.utils.shipped import VARIABLE, shipped_folder


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory):
    """A folder with two packed models, a generator of pairs and an encoder."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        run = train(
            TrainingConfig("acgan", "paired", dataset=str(dataset_dir), output_dir=str(folder / "run"), num_epochs=1)
        )
        encoder = train_encoder(folder / "encoder", str(dataset_dir), num_epochs=1)
    pack(run, folder / "pretrained" / "hcm-tiny")
    pack(encoder, folder / "pretrained" / "hcm-tiny-encoder")
    return folder / "pretrained"


@pytest.fixture
def copied(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "pretrained"))


def test_the_models_that_come_with_the_package_draw_what_they_drew():
    table = verify()
    names = sorted(path.name for path in shipped_folder().iterdir() if path.is_dir())
    assert names and all(f"| {name} |" in table for name in names)
    assert all(name in list_models() for name in names)


def test_a_name_without_a_slash_is_found(trained, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(trained))
    monkeypatch.chdir(tmp_path)
    assert HCMPipeline.from_pretrained("hcm-tiny")(1).images[0].size == (16, 16)
    assert load_encoder("hcm-tiny-encoder").features.hash == load_encoder(trained / "hcm-tiny-encoder").features.hash
    with pytest.raises(InputError, match="none of the trained models: hcm-tiny, hcm-tiny-encoder; name one of these"):
        HCMPipeline.from_pretrained("hcm-tinny")
    with pytest.raises(InputError, match="runs/none does not exist"):
        load_encoder(Path("/runs/none"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "away"))
    with pytest.raises(InputError, match=f"{VARIABLE} is {tmp_path / 'away'}, and there is no such folder"):
        HCMPipeline.from_pretrained("hcm-tiny")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("hcm_hf.utils.shipped._OF_CHECKOUT", tmp_path / "away")
    with pytest.raises(InputError, match=f"copy the folder pretrained/ of https://.* in the variable {VARIABLE}"):
        HCMPipeline.from_pretrained("hcm-tiny")


def test_a_packed_model_is_a_repository_and_takes_its_report(trained, dataset_dir, copied, tmp_path):
    model = copied / "hcm-tiny"
    assert {path.name for path in model.iterdir()} >= {"README.md", "samples.png", "model_index.json", SUMS_FILE}
    assert "Not evaluated." in (model / "README.md").read_text()
    assert Image.open(model / "samples.png").size[0] > 16
    assert not (model / LICENSE_FILE).exists()  # trained on drawn patients
    score(tmp_path / "report", model=model, dataset=dataset_dir, num_images=12)
    pack(model, model, tmp_path / "report")
    assert 'from_pretrained("hcm-tiny")' in (model / "README.md").read_text()
    assert "12 generated images" in (model / "README.md").read_text()
    assert "hcm-tiny" in list_models(copied) and "identical" in verify(model)
    drawn = load_file(model / OUTPUTS_FILE)["images"].tolist()
    pack(model, tmp_path / "again", tmp_path / "report")  # what was packed can be packed
    assert "8 identical" in verify(tmp_path / "again")
    assert load_file(tmp_path / "again" / OUTPUTS_FILE)["images"].tolist() == drawn


def test_what_cannot_be_packed_is_named_and_what_is_there_stays(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="mine exists and is no packed model; name a new folder"):
        pack(trained / "hcm-tiny", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    with pytest.raises(InputError, match="hcm-tiny-encoder is an encoder"):
        pack(trained / "hcm-tiny-encoder", tmp_path / "new", tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_model_that_lost_its_stored_outputs_is_not_passed_over(copied):
    (copied / "hcm-tiny" / OUTPUTS_FILE).unlink()
    with pytest.raises(InputError, match="hcm-tiny/verification.safetensors is missing; copy the model again"):
        verify(copied)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda model: (model / "samples.png").unlink(), "hcm-tiny/samples.png is missing; copy the model again"),
        (
            lambda model: (model / "README.md").write_text("Hello"),
            "hcm-tiny/README.md is not the file that was packed; copy the model again",
        ),
        (lambda model: (model / SUMS_FILE).write_text(""), "does not name verification.safetensors"),
        (lambda model: (model / SUMS_FILE).write_bytes(b"\xff"), "SHA256SUMS cannot be read"),
        (lambda model: (model / SUMS_FILE).unlink(), "holds no trained model with its SHA256SUMS"),
    ],
)
def test_a_damaged_model_is_one_sentence(damage, sentence, copied):
    damage(copied / "hcm-tiny")
    with pytest.raises(InputError, match=sentence):
        verify(copied / "hcm-tiny")


@pytest.mark.parametrize(
    ("levels", "outcome"), [(3, "8 equal to [45]e-05 .packed on another machine"), (30, "they differ by 4.[5-7]e-04")]
)
def test_other_machines_may_differ_by_a_little_and_no_more(levels, outcome, copied):
    model = copied / "hcm-tiny"
    stored = load_file(model / OUTPUTS_FILE)
    images = stored["images"].astype("int64")
    images[0, 0, 0] += levels if images[0, 0, 0] < 2**15 else -levels
    save_file(stored | {"images": images.astype("uint16")}, model / OUTPUTS_FILE, metadata={"sha256": "of another"})
    write_sums(model)
    try:
        said = verify(model)
    except InputError as error:
        said = str(error)
    assert re.search(outcome, said)


def test_all_are_pushed_each_in_one_commit(trained, hub, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(trained))
    pages = push_trained("ada").splitlines()
    assert [page.split("/")[-3] for page in pages] == ["hcm-tiny", "hcm-tiny-encoder"]
    assert push_trained("ada/").splitlines() == pages  # nothing is new
    cache = {"cache_dir": tmp_path / "cache"}
    pipeline = HCMPipeline.from_pretrained("ada/hcm-tiny", **cache)
    assert pipeline.makes_masks
    assert 'from_pretrained("ada/hcm-tiny")' in hub.files("model", "ada/hcm-tiny")["README.md"].decode()
    assert (
        load_encoder("ada/hcm-tiny-encoder").features.hash == load_encoder(trained / "hcm-tiny-encoder").features.hash
    )
    assert (Path(snapshot_download("ada/hcm-tiny", **cache)) / OUTPUTS_FILE).is_file()
