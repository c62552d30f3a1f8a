"""Spaces in repositories of the Hub."""

import json
import runpy
import sys

import evaluate
import numpy as np
import pytest
from pushes import ROOT, pushed

from hcm_hf.hub.push import push_model, push_space
from hcm_hf.metrics.pixel import ssim_matrix
from hcm_hf.utils.errors import InputError


SLICE_SIMILARITY = ROOT / "spaces" / "slice-similarity"
# Of this package, in a Space that needs it: source, and what the source reads.
PACKAGE = {
    *("hcm_hf/hub/push.py", "hcm_hf/py.typed"),
    *("hcm_hf/model_cards/gan.md", "hcm_hf/model_cards/references.bib"),
}


def test_the_metric_space_loads_from_the_hub_and_from_its_folder(hub, tmp_path, monkeypatch):
    url = push_space(SLICE_SIMILARITY, "ada/slice-similarity")
    assert push_space(SLICE_SIMILARITY, "ada/slice-similarity") == url
    files = pushed(hub, "ada/slice-similarity", "space")
    own = {".gitattributes", "README.md", "app.py", "requirements.txt", "slice-similarity.py"}
    assert {name for name in files if not name.startswith("hcm_hf/")} == own  # the package is for the page alone
    module = ROOT / "src" / "hcm_hf" / "metrics" / "slice_similarity" / "slice_similarity.py"
    assert files["slice-similarity.py"] == module.read_bytes()
    monkeypatch.chdir(tmp_path)
    images = dict(zip(("predictions", "references"), np.random.default_rng(0).random((2, 3, 16, 16)), strict=True))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "hcm_hf", None)  # as where this package is not installed
        one, other = (evaluate.load(name) for name in ("ada/slice-similarity", str(SLICE_SIMILARITY)))
        found = one.compute(**images)["ssim"]
    assert found == ssim_matrix(*images.values()).mean()
    assert other.compute(**images, protocol="all", data_range=1.0)["ssim"] == found


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


def test_a_folder_that_is_no_space_is_named(hub, tmp_path):
    with pytest.raises(InputError, match="holds no README.md; name a folder of spaces/"):
        push_space(tmp_path, "ada/space")


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
        push_space(SLICE_SIMILARITY, "ada/my-metric")
