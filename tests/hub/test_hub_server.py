"""The tests' own Hub, through the unmodified client: what the other tests rely on."""

import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, errors


README = b"---\nlicense: apache-2.0\nlibrary_name: diffusers\ntags: [mri]\n---\n# Hearts\n"


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="ada-writes")


@pytest.fixture
def folder(tmp_path):
    """A card, a text, and a megabyte in a folder."""
    path = tmp_path / "folder"
    (path / "unet").mkdir(parents=True)
    (path / "README.md").write_bytes(README)
    (path / "config.json").write_text("{}")
    (path / "unet" / "weights.safetensors").write_bytes(os.urandom(2**20))
    return path


def contents(path) -> dict[str, bytes]:
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}
    files.pop(".gitattributes", None)
    return files


def paths(hub, method: str, part: str) -> list[str]:
    return [path for verb, path, _ in hub.requests if verb == method and part in path]


def test_a_folder_comes_back_as_it_went(hub, api, folder, tmp_path):
    url = api.create_repo("ada/hearts")
    assert url == f"{hub.url}/ada/hearts" and url.repo_id == "ada/hearts"
    commit = api.upload_folder(repo_id="ada/hearts", folder_path=folder, commit_message="First")
    assert api.model_info("ada/hearts").sha == commit.oid and hub.commits("model", "ada/hearts")[0] == "First"
    path = api.snapshot_download("ada/hearts", cache_dir=tmp_path / "cache")
    assert Path(path).name == commit.oid and contents(path) == contents(folder)
    stored = hub.files("model", "ada/hearts")
    assert stored.pop(".gitattributes") and stored == contents(folder)


def test_weights_travel_beside_the_hub_and_without_its_token(hub, api, folder, tmp_path):
    api.create_repo("ada/hearts")
    api.upload_folder(repo_id="ada/hearts", folder_path=folder)
    api.snapshot_download("ada/hearts", cache_dir=tmp_path / "cache")
    beside = [(method, path.split("/")[-1], token) for method, path, token in hub.requests if "/cdn/" in path]
    assert [method for method, _, _ in beside] == ["PUT", "GET"] and beside[1][1] == "weights.safetensors"
    assert {token for _, _, token in beside} == {None}
    assert {token for _, path, token in hub.requests if "/cdn/" not in path} == {"Bearer ada-writes"}


def test_the_same_upload_twice_is_one_commit(hub, api, folder):
    api.create_repo("ada/hearts")
    first, second = (api.upload_folder(repo_id="ada/hearts", folder_path=folder) for _ in range(2))
    assert first.oid == second.oid and len(hub.commits("model", "ada/hearts")) == 2
    assert len(paths(hub, "PUT", "/cdn/")) == 1


def test_info_and_listings(hub, api, folder):
    api.create_repo("ada/hearts", repo_type="dataset")
    api.upload_folder(repo_id="ada/hearts", repo_type="dataset", folder_path=folder)
    info = api.dataset_info("ada/hearts", files_metadata=True)
    assert info.tags == ["mri", "license:apache-2.0"] and info.card_data.license == "apache-2.0"
    weights = info.siblings[-1]
    assert (weights.rfilename, weights.lfs.size, weights.size) == ("unet/weights.safetensors", 2**20, 2**20)
    assert api.dataset_info("ada/hearts", expand=["sha"]).siblings is None
    tree = [entry.path for entry in api.list_repo_tree("ada/hearts", repo_type="dataset")]
    assert tree == [".gitattributes", "README.md", "config.json", "unet"]
    [inside] = api.list_repo_tree("ada/hearts", "unet", repo_type="dataset")
    [again] = api.get_paths_info("ada/hearts", ["unet/weights.safetensors", "gone"], repo_type="dataset")
    assert inside == again and inside.lfs == weights.lfs and inside.blob_id == weights.blob_id
    assert [commit.authors for commit in api.list_repo_commits("ada/hearts", repo_type="dataset")] == [["ada"]] * 2


def test_branches_tags_and_pull_requests(hub, api):
    start = hub.commit("model", "ada/hearts", {"a.txt": b"1"})
    api.create_branch("ada/hearts", branch="trial/one")
    api.create_tag("ada/hearts", tag="v1")
    with pytest.raises(errors.HfHubHTTPError, match="already exists"):
        api.create_tag("ada/hearts", tag="v1")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="ada/hearts", revision="trial/one")
    bob = HfApi(endpoint=hub.url, token="bob-writes")
    pull = bob.create_commit(
        "ada/hearts", [CommitOperationAdd("a.txt", b"3")], commit_message="Try", parent_commit=start, create_pr=True
    )
    assert pull.pr_revision == "refs/pr/1"
    revisions = ["main", "v1", start, "trial/one", "refs/pr/1"]
    assert [hub.files("model", "ada/hearts", revision)["a.txt"] for revision in revisions] == [b"1"] * 3 + [b"2", b"3"]
    refs = api.list_repo_refs("ada/hearts", include_pull_requests=True)
    assert [ref.name for ref in refs.branches] == ["main", "trial/one"]
    assert [ref.ref for ref in refs.tags + refs.pull_requests] == ["refs/tags/v1", "refs/pr/1"]
    assert api.model_info("ada/hearts", revision="refs/pr/1").sha == pull.oid


def test_deleting(hub, api):
    hub.commit("model", "ada/hearts", {"a.txt": b"1", "b/c.txt": b"2", "b/d.txt": b"3"})
    api.delete_folder("b", repo_id="ada/hearts")
    assert set(hub.files("model", "ada/hearts")) == {".gitattributes", "a.txt"}
    with pytest.raises(errors.EntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("b/c.txt", repo_id="ada/hearts")
    api.delete_repo("ada/hearts")
    assert not api.repo_exists("ada/hearts")


def test_who_may_do_what(hub, api, tmp_path):
    assert api.whoami()["name"] == "ada" and api.whoami()["auth"]["accessToken"]["role"] == "write"
    reader, bob, nobody = (HfApi(endpoint=hub.url, token=token) for token in ("ada-reads", "bob-writes", False))
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        nobody.create_repo("ada/hearts")
    for stranger in (reader, bob):
        with pytest.raises(errors.HfHubHTTPError, match="403 Forbidden: This token has no right"):
            stranger.create_repo("ada/hearts")
    api.create_repo("ada/hearts", private=True)
    assert reader.model_info("ada/hearts").private
    reader.auth_check("ada/hearts")
    api.auth_check("ada/hearts", write=True)
    with pytest.raises(errors.HfHubHTTPError, match="403 Forbidden"):
        reader.auth_check("ada/hearts", write=True)
    for stranger, status in ((bob, 404), (nobody, 401)):
        with pytest.raises(errors.RepositoryNotFoundError) as caught:
            stranger.snapshot_download("ada/hearts", cache_dir=tmp_path)
        assert caught.value.response.status_code == status and not stranger.repo_exists("ada/hearts")
    api.update_repo_settings("ada/hearts", private=False, gated="auto")
    assert nobody.model_info("ada/hearts").gated == "auto"
    with pytest.raises(errors.GatedRepoError):
        bob.hf_hub_download("ada/hearts", ".gitattributes", cache_dir=tmp_path)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials in Authorization header"):
        HfApi(endpoint=hub.url, token="unknown").model_info("ada/hearts")


def test_what_is_not_there_and_what_is(hub, api, tmp_path):
    api.create_repo("ada/hearts")
    assert api.create_repo("ada/hearts", exist_ok=True).repo_id == "ada/hearts"
    with pytest.raises(errors.HfHubHTTPError, match="already created"):
        api.create_repo("ada/hearts")
    with pytest.raises(errors.RevisionNotFoundError):
        api.snapshot_download("ada/hearts", revision="gone", cache_dir=tmp_path)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.hf_hub_download("ada/hearts", "gone.bin", cache_dir=tmp_path)
    assert list(tmp_path.glob("models--ada--hearts/.no_exist/*/gone.bin"))
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("hearts")


def test_a_commit_on_top_of_an_older_state_is_refused(hub, api):
    old = hub.commit("model", "ada/hearts", {"a.txt": b"1"})
    hub.commit("model", "ada/hearts", {"a.txt": b"2"})
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id="ada/hearts", parent_commit=old)
    assert hub.files("model", "ada/hearts")["a.txt"] == b"2"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: beer", "license"),
        ("license: mit\nmodel-index: {}", "model-index"),
        ("- a list", "YAML mapping"),
        ("a: [", "Invalid YAML"),
    ],
)
def test_a_bad_card_is_refused(hub, api, folder, metadata, message):
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n")
    api.create_repo("ada/hearts")
    with pytest.raises(ValueError, match=message):
        api.upload_folder(repo_id="ada/hearts", folder_path=folder)
    assert len(hub.commits("model", "ada/hearts")) == 1


def test_a_broken_download_goes_on_where_it_stopped(hub, api, tmp_path):
    weights = os.urandom(25 * 2**20)
    hub.commit("model", "ada/hearts", {"weights.safetensors": weights})
    hub.drop_after("weights.safetensors", 12 * 2**20, times=2)
    path = api.hf_hub_download("ada/hearts", "weights.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == weights
    assert hub.ranges == [None, "bytes=10485760-", "bytes=20971520-"]


def test_a_busy_hub_is_asked_again(hub, api, folder):
    api.create_repo("ada/hearts")
    hub.fail(2, 503, match="/api/models/ada/hearts/preupload")
    api.upload_folder(repo_id="ada/hearts", folder_path=folder)
    assert len(paths(hub, "POST", "/preupload/")) == 3 and "config.json" in hub.files("model", "ada/hearts")


def test_planted_repositories_are_not_checked(hub, api):
    hub.commit("model", "eve/trap", {"../../evil.txt": b"!", "README.md": b"---\nlicense: beer\n---\n"})
    hub.commit("model", "eve/trap", {"weights.bin": b"\0"}, title="More", revision="trial")
    assert "../../evil.txt" in api.list_repo_files("eve/trap")
    assert api.model_info("eve/trap", revision="trial").card_data.license == "beer"
    assert hub.commits("model", "eve/trap", "trial") == ["More", "Plant", "initial commit"]
