import pytest

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import checked_token, download, parse_repository


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("ada/hearts", None, ("ada/hearts", None)),
        ("ada/hearts@v1", None, ("ada/hearts", "v1")),
        ("ada/hearts@refs/pr/1", None, ("ada/hearts", "refs/pr/1")),
        ("ada/hearts@v1", "v2", ("ada/hearts", "v2")),
        ("hearts", None, None),
        ("a/b/c", None, None),
        ("/ada/hearts", None, None),
        ("./hearts", None, None),
        ("../hearts", None, None),
        ("", None, None),
        ("ada/hearts/", None, ("ada/hearts", None)),
        ("hf://ada/hearts", None, ("ada/hearts", None)),
        ("hf://models/ada/hearts@v1", None, ("ada/hearts", "v1")),
        ("hf://datasets/ada/slices@refs/pr/1/data/train.parquet", None, ("ada/slices", "refs/pr/1")),
        ("https://huggingface.co/ada/hearts", None, ("ada/hearts", None)),
        ("https://huggingface.co/ada/hearts", "v2", ("ada/hearts", "v2")),
        ("huggingface.co/ada/hearts", None, ("ada/hearts", None)),
        ("https://hf.co/ada/hearts/tree/v1", None, ("ada/hearts", "v1")),
        ("https://huggingface.co/ada/hearts/tree/refs%2Fpr%2F1", None, ("ada/hearts", "refs/pr/1")),
        ("https://huggingface.co/ada/hearts/tree/refs/pr/1", None, ("ada/hearts", "refs/pr/1")),
        ("https://huggingface.co/datasets/ada/slices/blob/main/a/b.txt?x=1#y", None, ("ada/slices", "main")),
        ("HTTPS://HuggingFace.co/ada/hearts/", None, ("ada/hearts", None)),
        ("https://huggingface.co/ada", None, None),
        ("https://huggingface.co/", None, None),
        ("https://github.com/ada/hearts", None, None),
        ("https://[ada/hearts", None, None),
        ("hf://hearts", None, None),
        ("hf://", None, None),
    ],
)
def test_names_of_repositories(name, revision, expected):
    assert parse_repository(name, revision) == expected


def test_an_address_with_a_password_is_refused_and_not_quoted():
    for host in ("huggingface.co", "hub.example"):
        with pytest.raises(InputError, match=f"An address at {host} has a password in it; give user/name") as refused:
            parse_repository(f"https://ada:hf_SECRET@{host}/ada/hearts")
        assert "hf_SECRET" not in str(refused.value)


@pytest.mark.parametrize("token", [None, True, False, "hf_abc"])
def test_a_good_token_is_as_it_was(token):
    assert checked_token(token) is token or checked_token(token) == token


@pytest.mark.parametrize("token", ["", " \n", "hf_a b", "hf_a\0", "hf_\u00fc", "hf_a\nb"])
def test_a_token_that_no_header_can_hold_is_refused(token):
    with pytest.raises(InputError, match="The token that was given") as refused:
        checked_token(token)
    assert "hf_" not in str(refused.value) and refused.value.__cause__ is None


def test_a_folder_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_repository("ada/hearts") is not None
    (tmp_path / "ada" / "hearts").mkdir(parents=True)
    assert parse_repository("ada/hearts") is None


def test_files_come_once(hub, tmp_path):
    sha = hub.commit("model", "ada/hearts", {"a.json": b"{}", "b.txt": b"no"})
    for _ in range(2):
        folder = download("ada/hearts", ["*.json"], cache_dir=tmp_path)
        assert folder.name == sha and [path.name for path in folder.iterdir()] == ["a.json"]
    assert sum(method == "GET" and path.endswith("a.json") for method, path, _ in hub.requests) == 1


def test_a_server_that_is_gone_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        InputError,
        match="There is no folder ada/hearts here; Hub: the model .* not in the cache, and the Hub cannot be reached",
    ):
        download("ada/hearts", ["*"], cache_dir=tmp_path)
