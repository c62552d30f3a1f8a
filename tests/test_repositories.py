import pytest

from hcm_hf.errors import InputError
from hcm_hf.repositories import download, parse_repository


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
    ],
)
def test_names_of_repositories(name, revision, expected):
    assert parse_repository(name, revision) == expected


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
