"""A push that is refused, interrupted or killed leaves the repository as it was."""

import json
import multiprocessing
import threading
import time
import traceback

import pytest
from huggingface_hub import HfApi
from pushes import ROOT, pushed

from hcm_hf.hub.push import push_dataset, push_model, push_space
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import SUMS_FILE


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


def test_a_killed_push_leaves_the_repository_as_it_was(run, hub):
    push_model(run("gan"), "ada/hearts")
    before = pushed(hub)
    process = multiprocessing.get_context("fork").Process(target=push_model, args=(run("vae"), "ada/hearts"))
    process.start()
    deadline = time.monotonic() + 60
    while not [path for _, path, _ in hub.requests if "preupload" in path][1:] and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert time.monotonic() < deadline and process.is_alive()
    process.kill()
    process.join()
    assert pushed(hub) == before or len(hub.commits("model", "ada/hearts")) == 3  # whole or not at all
    assert HCMPipeline.from_pretrained("ada/hearts", cache_dir=run("gan").parent / "cache")


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


@pytest.mark.parametrize(
    ("status", "said"), [(402, "answered 402"), (429, "try again later"), (503, "try again later")]
)
def test_what_the_hub_gives_as_its_reason_is_passed_on(status, said, run, hub):
    push_model(run("gan"), "ada/hearts")
    hub.fail(100, status, "/commit/")
    with pytest.raises(InputError, match=said):
        push_model(run("vae"), "ada/hearts")


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
