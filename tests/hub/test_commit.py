import os
import subprocess
import sys
import warnings

import pytest
from huggingface_hub import DatasetCard, HfApi, ModelCard

from hcm_hf.hub.commit import Target, is_signed, push, sign_card
from hcm_hf.utils.errors import InputError


CARD = "---\nlicense: mit\ntags:\n- hearts\n---\n\n# Hearts\n\nTen numbers.\n"
FILES = {"README.md": CARD.encode(), "a.json": b"{}\n", "b/weights.safetensors": b"\0\1\2"}
OWN = ("a.json", "b/*")
TARGET = Target("ada/hearts", "model")


def held(hub, kind="model", repo_id="ada/hearts", revision="main"):
    return {name: data for name, data in hub.files(kind, repo_id, revision).items() if name != ".gitattributes"}


def requests_to(hub, part):
    return [path for _, path, _ in hub.requests if part in path]


def test_the_same_push_is_one_commit_and_what_is_slow_is_made_for_it_alone(hub):
    made = []
    slow = {"samples.png": lambda: made.append(1) or b"png"}
    first = push(TARGET, FILES, "One", OWN, slow)
    assert push(TARGET, FILES, "Two", OWN, slow) == first and made == [1]
    assert hub.commits("model", "ada/hearts") == ["One", "initial commit"]
    second = push(TARGET, {**FILES, "a.json": b"[]\n"}, "Three", OWN, slow)
    assert second != first and made == [1, 1] and held(hub)["a.json"] == b"[]\n"
    del hub.requests[:]
    push(TARGET, {name: FILES[name] for name in ("README.md", "a.json")}, "Four", OWN)
    assert "b/weights.safetensors" not in held(hub) and "samples.png" in held(hub)
    assert not requests_to(hub, "validate-yaml")  # a card that is there already was checked


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("fault", ["fail", "lose"])
@pytest.mark.parametrize(
    "place",
    ["/repos/create", "/validate-yaml", "/preupload/", "/objects/batch", "/object/", "/lfs-verify", "/commit/"],
)
def test_what_a_push_says_of_a_fault_is_what_is_there(place, fault, exists, hub):
    """An answer that is an error, or that is lost after the work was done, at every step."""
    if exists:
        push(TARGET, {**FILES, "a.json": b"1\n", "b/weights.safetensors": b"\0"}, "Before", OWN)
    before = held(hub) if exists else None
    hub.fail(100, 500, place) if fault == "fail" else hub.lose(100, place)
    try:
        url, said = push(TARGET, FILES, "Now", OWN), ""
    except InputError as error:
        url, said = "", str(error)
    after = held(hub) if ("model", "ada/hearts") in hub.repos else None
    arrived = after is not None and set(after) == set(FILES)
    if arrived and after["a.json"] == FILES["a.json"]:
        assert url.endswith(hub.repos["model", "ada/hearts"].branches["main"])
    elif after == before:
        assert "Nothing was changed there" in said or place == "/validate-yaml"
    else:
        assert after == {} and "The model was made, and nothing is in it yet: push again, or delete it" in said
    assert "nothing was changed" not in said.lower() or after == before
    hub.faults.clear(), hub.losses.clear()
    push(TARGET, FILES, "Again", OWN)
    assert set(held(hub)) == set(FILES)


def test_a_repository_that_cannot_be_looked_at_afterwards_is_not_spoken_of(hub, monkeypatch):
    commit = HfApi.create_commit

    def cut_off(api, *arguments, **options):
        hub.lose(1, "/commit/")
        try:
            return commit(api, *arguments, **options)
        finally:
            hub.fail(100, 500, "/api/models")

    monkeypatch.setattr(HfApi, "create_commit", cut_off)
    with pytest.raises(InputError, match="Whether it has arrived cannot be seen; push again"):
        push(TARGET, FILES, "Now", OWN)


def test_a_pull_request_whose_answer_is_lost_is_found(hub):
    push(TARGET, FILES, "Before", OWN)
    target = Target("ada/hearts", "model", create_pr=True)
    hub.lose(1, "/commit/")
    assert push(target, {**FILES, "a.json": b"2\n"}, "Now", OWN).endswith("/ada/hearts/discussions/1")
    hub.fail(1, 500, "/commit/")
    with pytest.raises(InputError, match="Nothing was changed there"):
        push(target, {**FILES, "a.json": b"3\n"}, "Now", OWN)


def test_a_branch_that_was_made_is_spoken_of(hub):
    push(TARGET, FILES, "Before", OWN)
    hub.fail(1, 500, "/commit/")
    with pytest.raises(InputError, match="The branch other was made; nothing else was changed there"):
        push(Target("ada/hearts", "model", revision="other"), {**FILES, "a.json": b"2\n"}, "Now", OWN)


def test_a_rejected_card_leaves_no_repository(hub):
    bad = {**FILES, "README.md": b"---\nlicense: all-mine\n---\n# Hearts\n"}
    made = []
    with pytest.raises(
        InputError, match='rejects the card of ada/hearts ."license" must be one of .*nothing was pushed'
    ):
        push(TARGET, bad, "Now", OWN, {"samples.png": lambda: made.append(1) or b""})
    assert hub.repos == {} and made == []


def test_a_token_is_in_no_target_that_is_printed():
    assert "hf_secret" not in repr(Target("ada/hearts", "model", token="hf_secret"))


def test_text_that_somebody_wrote_there_is_kept_and_facts_are_new(hub):
    push(TARGET, FILES, "One", OWN)
    assert is_signed(held(hub)["README.md"].decode())
    edited = (
        held(hub)["README.md"].decode().replace("Ten numbers.", "Ten numbers. Ask Eve.").replace("- hearts", "- x")
    )
    hub.commit("model", "ada/hearts", {"README.md": edited.replace("mit", "apache-2.0").encode()})
    with pytest.warns(
        UserWarning, match="README.md of ada/hearts was edited there: its text is kept, its fields license"
    ):
        push(TARGET, {**FILES, "a.json": b"2\n"}, "Two", OWN)
    card = held(hub)["README.md"].decode()
    assert (
        "Ask Eve." in card and ModelCard(card).data.license == "mit" and ModelCard(card).data.tags == ["hearts", "x"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        url = push(TARGET, {**FILES, "a.json": b"2\n"}, "Three", OWN)
    assert (
        url.endswith(hub.repos["model", "ada/hearts"].branches["main"])
        and len(hub.commits("model", "ada/hearts")) == 4
    )
    with pytest.warns(UserWarning, match="its text is kept"):
        push(TARGET, {**FILES, "a.json": b"3\n"}, "Four", OWN)  # still somebody's
    assert "Ask Eve." in held(hub)["README.md"].decode()


@pytest.mark.parametrize(
    ("kind", "there", "kept"),
    [
        ("model", "# Mine\n", "# Mine"),
        ("model", "---\nlicense: [\n---\n# Mine\n", "# Mine"),
        ("model", "---\n- 1\n---\n# Mine\n", "# Mine"),
        ("model", "---\nlicense: apache-2.0\n---\n", "Ten numbers."),  # as the Hub makes a model's
        ("model", sign_card("---\nlicense: mit\n---\n\n# Before\n").replace("\n", "\r\n"), "Ten numbers."),
        (
            "space",
            "---\ntitle: X\nsdk: gradio\n---\n\nCheck out the configuration reference at "
            "https://huggingface.co/docs/hub/spaces-config-reference\n",
            "Ten numbers.",
        ),
    ],
)
def test_cards_of_others_are_kept_and_templates_are_not(kind, there, kept, hub):
    hub.commit(kind, "ada/hearts", {"README.md": there.encode()}, **({"sdk": "gradio"} if kind == "space" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        push(Target("ada/hearts", kind), FILES, "One", OWN)
    assert kept in held(hub, kind)["README.md"].decode() and held(hub, kind)["a.json"] == b"{}\n"
    assert ("# Mine" in there) != is_signed(held(hub, kind)["README.md"].decode())


def test_numbers_of_an_evaluation_that_is_gone_go_from_an_edited_card(hub):
    numbers = "model-index:\n- name: x\n  results: []\nmetrics:\n- ssim\n"
    push(TARGET, {"README.md": f"---\n{numbers}---\n\n# Hearts\n".encode()}, "One", OWN)
    hub.commit("model", "ada/hearts", {"README.md": f"---\n{numbers}language: en\n---\n\n# Mine\n".encode()})
    with pytest.warns(UserWarning, match="its fields metrics, model-index are written anew"):
        push(TARGET, FILES, "Two", OWN)
    card = held(hub)["README.md"].decode()
    assert "ssim" not in card and "model-index" not in card and "language: en" in card and "# Mine" in card


def test_an_edited_dataset_card_still_says_how_many_rows_there_are(hub):
    def card(rows):
        splits = f"dataset_info:\n  splits:\n  - name: train\n    num_examples: {rows}\n"
        return f"---\nlicense: mit\n{splits}---\n\n# Hearts\n"

    target = Target("ada/slices", "dataset")
    push(target, {"README.md": card(1).encode()}, "One", OWN)
    hub.commit("dataset", "ada/slices", {"README.md": (card(1) + "Ask Eve.\n").encode()})
    with pytest.warns(UserWarning, match="its fields dataset_info are written anew"):
        push(target, {"README.md": card(2).encode()}, "Two", OWN)
    there = held(hub, "dataset", "ada/slices")["README.md"].decode()
    assert DatasetCard(there).data.to_dict()["dataset_info"]["splits"][0]["num_examples"] == 2 and "Ask Eve." in there


def test_a_hub_without_xet_is_named(hub, tmp_path):
    code = (
        "from hcm_hf.utils.errors import InputError\n"
        "from hcm_hf.hub.commit import Target, push\n"
        "try: push(Target('ada/hearts', 'model'), {'README.md': b'# x', 'w.safetensors': bytes(2000)}, 'One', ())\n"
        "except InputError as error: print(error)\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert "set HF_HUB_DISABLE_XET=1" in said.stdout and "nothing is in it yet" in said.stdout, said.stderr
