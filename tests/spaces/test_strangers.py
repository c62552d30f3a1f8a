"""What a page shows of models and datasets that strangers have put on the Hub."""

import json
import shutil
from contextlib import contextmanager

import pytest
import yaml
from gradio_client import Client
from space import chromium_started, in_browser, opened_space, save_model, served
from tiny import files_of, notes, tiny_recipe

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.hub.push import push_dataset


NOTES = {"family": "dcgan", "recipe": "paper", "resolution": 16, "groups": ["HCM", "NOR"]}


@pytest.fixture(scope="module")
def app():
    with opened_space() as names:
        yield names


@contextmanager
def page_of(app, names, dataset=None):
    """A visitor of a page that serves repositories with the operator's token, ada's."""
    generators, problems = app["find_generators"](names)
    assert problems == []
    with served(app, app["build_demo"](generators, dataset=dataset)) as url:
        yield Client(url, verbose=False)


def nearest(client, model):
    client.predict(model, 2, 0, api_name="/generate")
    return client.predict(0, api_name="/nearest")


@pytest.fixture
def trained_on(hub, tmp_path):
    """Push a model that says it was trained on some dataset."""

    def push(name, **notes):
        hub.commit("model", name, files_of(save_model(tmp_path / "pushed" / name, "dcgan", notes=NOTES | notes)))
        return name

    return push


def test_a_private_dataset_is_shown_to_nobody(app, hub, trained_on, dataset_dir):
    push_dataset(dataset_dir, "ada/patients", private=True)
    load_dataset("ada/patients")  # so that the operator's cache has it
    model = trained_on("ada/hearts", dataset="ada/patients", dataset_repository="ada/patients")
    with page_of(app, [model]) as client, pytest.raises(Exception, match="ada/patients cannot be shown") as error:
        nearest(client, model)
    assert "/" not in str(error.value).replace("ada/patients", "")
    hub.repos["dataset", "ada/patients"].gated = "auto"
    hub.repos["dataset", "ada/patients"].private = False
    with page_of(app, [model]) as client, pytest.raises(Exception, match="cannot be shown"):
        nearest(client, model)


def test_a_public_dataset_is_shown_and_never_whose_it_is(app, hub, trained_on, dataset_dir, cohort):
    push_dataset(dataset_dir, "ada/patients", private=True)
    model = trained_on("ada/hearts", dataset_repository="ada/patients")
    with page_of(app, [model], dataset="ada/patients") as client:  # the operator has said so
        shown = [nearest(client, model)[0]]
    hub.repos["dataset", "ada/patients"].private = False
    with page_of(app, [model]) as client:
        shown.append(nearest(client, model)[0])
    patients = [patient.name for folder in cohort.iterdir() for patient in folder.iterdir()]
    assert len(patients) == 8
    for likest in shown:
        captions = [image["caption"] for image in likest]
        assert len(captions) == 6 and any(word in str(captions) for word in ("HCM E", "NOR E"))
        assert not any(patient in str(captions) for patient in patients)


def test_a_repository_names_no_folder_of_the_machine(app, trained_on, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset_dir, tmp_path / "local" / "folder")
    places = (str(dataset_dir), f"../..{dataset_dir}", "local/folder", "ada/patients@../../x")
    notes = [{key: place} for key in ("dataset", "dataset_repository") for place in places]
    models = [trained_on(f"bob/stranger-{number}", **one) for number, one in enumerate(notes)]
    with page_of(app, models) as client:
        for model in models:
            with pytest.raises(Exception, match="are not here|cannot be shown") as error:
                nearest(client, model)
            assert str(dataset_dir.parent) not in str(error.value)


def test_real_patients_on_this_machine_need_the_operators_word(app, dataset_dir, tmp_path):
    for name, source in (("drawn", "synthetic"), ("real", "acdc")):
        shutil.copytree(dataset_dir, tmp_path / name)
        report = tmp_path / name / "preparation.json"
        (tmp_path / name / "SHA256SUMS").unlink()
        report.write_text(json.dumps(json.loads(report.read_text()) | {"source": source}))
        save_model(tmp_path / "runs" / name, "dcgan", notes=NOTES | {"dataset": str(tmp_path / name)})
    generators, _ = app["find_generators"](tmp_path / "runs")
    handlers = app["Handlers"](generators, None)
    assert handlers.dataset_of(generators["drawn"]) == str(tmp_path / "drawn")
    assert handlers.dataset_of(generators["real"]) is None
    assert app["Handlers"](generators, str(tmp_path / "real")).dataset_of(generators["real"]) == str(tmp_path / "real")


def damage(folder, kind):
    """A model that is hostile or damaged in one way."""
    config = folder / "network" / "config.json"
    index = folder / "model_index.json"
    if kind == "notes":
        (folder / "training_config.json").write_text("{half")
    elif kind == "deep":
        (folder / "training_config.json").write_text("[" * 100_000)
    elif kind == "list":
        (folder / "training_config.json").write_text("[1, 2]")
    elif kind == "bytes":
        (folder / "training_config.json").write_bytes(b"\xff\xfe\x00{")
    elif kind == "index":
        index.write_text("[]")
    elif kind == "no index":
        index.write_text("")
    elif kind == "class":
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": ["os", "system"]}))
    elif kind == "options":
        index.write_text(
            json.dumps(json.loads(index.read_text()) | {"num_inference_steps": "many", "frequencies": {}})
        )
    elif kind == "config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_dim": "<form>"}))
    elif kind == "weights":
        next(folder.rglob("*.safetensors")).write_bytes(b"\x00" * 100)


KINDS = ("notes", "deep", "list", "bytes", "index", "no index", "class", "config", "weights", "options")


def test_damaged_repositories_are_left_out_and_the_others_served(app, hub, tmp_path):
    names = []
    for number, kind in enumerate(("good", *KINDS[:5], "also-good", *KINDS[5:])):
        folder = save_model(tmp_path / str(number), *(("ddpm", "tuned") if kind == "options" else ("dcgan",)))
        damage(folder, kind)
        names.append(f"bob/{kind.replace(' ', '-')}")
        hub.commit("model", names[-1], files_of(folder))
    generators, problems = app["find_generators"](names)
    assert list(generators) == ["bob/good", "bob/also-good"]
    assert [problem.split(" is left out: ")[0] for problem in problems] == [
        name for name in names if "good" not in name
    ]
    assert all("\n" not in problem and problem.endswith((".", "…")) for problem in problems)
    with served(app, app["build_demo"](generators, problems)) as url:
        assert len(Client(url, verbose=False).predict("bob/also-good", 2, 0, api_name="/generate")[0]) == 2


def test_a_conditional_model_with_other_questions_is_left_out(app, tmp_path):
    folder = save_model(tmp_path / "paired", "ddpm", "tuned")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"NOR"', '"<img/src=http://evil/x.png>"'))
    generators, problems = app["find_generators"](folder)
    assert generators == {} and "which this page does not know" in problems[0]


def test_a_model_of_other_groups_is_served_by_its_own_names_and_nonsense_is_not(app, tmp_path):
    vocabulary = Vocabulary(("HCM", "amyloid", "athlete"), "amyloid")
    for family, recipe in (("acgan", "paper"), ("ddpm", "tuned")):
        folder = tmp_path / family
        tiny_recipe(family, recipe).build(16, vocabulary).pipeline().save_pretrained(folder)
        (folder / "training_config.json").write_text(json.dumps(notes(groups=list(vocabulary.groups))))
        generators, problems = app["find_generators"](folder)
        (generator,) = generators.values()
        assert problems == [] and generator.notes.groups == vocabulary.groups
        assert tuple(generator.conditions.axes["group"]) == vocabulary.groups
    network = tmp_path / "acgan" / "network" / "config.json"
    network.write_text(network.read_text().replace('"athlete"', json.dumps(HOSTILE)))
    generators, problems = app["find_generators"](tmp_path / "acgan")
    assert generators == {} and "which this page does not know" in problems[0]


def test_the_page_starts_with_a_hostile_model_and_names_it(app, hub, tmp_path, monkeypatch, capfd):
    hub.commit("model", "bob/good", files_of(save_model(tmp_path / "good", "dcgan")))
    hub.commit("model", "bob/evil", files_of(save_model(tmp_path / "evil", "dcgan", notes="{half")))
    monkeypatch.setenv("HCM_MODELS", "bob/evil bob/good")
    launched = []
    monkeypatch.setattr(app["Page"], "launch", lambda demo, **options: launched.append(demo))
    app["main"]()
    shown = [block.value for block in launched[0].blocks.values() if block.elem_id == "problems"]
    log = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    assert log == ["bob/evil is left out: its training_config.json is damaged; copy it again."]
    assert "evil is left out" in shown[0].replace("\\", "")


NUMBER = {"value": 0.5, "low": 0.4, "high": 0.6, "protocol": "random", "n_generated": 20}
HOSTILE = "<form action=http://evil><input name=password></form>![x](http://evil/x.png)"
REPORT = {
    "rows": {"generated": {"ssim_random": NUMBER}, "real": {"ssim_random": NUMBER}},
    "dataset": {"split": "test", "groups": ["HCM"]},
    "n_generated": 20,
    "n_heldout": 10,
    "n_heldout_patients": 4,
    "seed": 0,
    "hcm_hf_version": "0.1.0",
}


@in_browser
def test_nothing_of_a_stranger_acts_in_the_page(app, hub, tmp_path):
    index = save_model(tmp_path / "class", "dcgan") / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": HOSTILE}))
    hub.commit("model", "bob/class", files_of(tmp_path / "class"))
    odd = dict.fromkeys(("version", "dataset", "dataset_repository", "dataset_license"), HOSTILE) | {
        "groups": [HOSTILE]
    }
    rows = {"generated": {"ssim_random": NUMBER | {"protocol": HOSTILE}, HOSTILE: NUMBER}, HOSTILE: {HOSTILE: HOSTILE}}
    report = dict.fromkeys(REPORT, HOSTILE) | {"rows": rows}
    more = {"metrics.json": json.dumps(report).encode(), "losses.png": b"<svg onload=alert(1)>"}
    hub.commit("model", "bob/odd", files_of(save_model(tmp_path / "odd", "dcgan", notes=odd)) | more)
    generators, problems = app["find_generators"](["bob/class", "bob/odd"])
    assert list(generators) == ["bob/odd"]
    with chromium_started() as browser, served(app, app["build_demo"](generators, problems)) as url:
        page, asked = browser.new_page(locale="en-US"), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.get_by_role("tab", name="Scores").click()
        page.get_by_role("button", name="All numbers").click()
        page.wait_for_selector("#scores table")
        assert page.inner_text("#scores").split() == ["generated", "ssim_random", "0.500", "[0.400,", "0.600]"]
        assert "bob/class is left out" in page.inner_text("#problems")
        assert page.locator("form, #problems img, #scores img").count() == 0
        page.get_by_role("tab", name="Generate").click()
        page.click("button#generate")
        page.wait_for_selector("#gallery img")
        assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": {"generated": {"ssim_random": NUMBER, HOSTILE: NUMBER}, HOSTILE: {"ssim_random": NUMBER}}},
        {"rows": {"generated": {"ssim_random": NUMBER | {"protocol": HOSTILE, "n_generated": HOSTILE}}}},
        {"rows": {"generated": {"ssim_random": NUMBER | {"value": HOSTILE}, "copy_rate": NUMBER}}},
        {"rows": {"generated": {"ssim_random": NUMBER | {"low": float("nan")}, "copy_rate": NUMBER}}},
        {"rows": {"generated": {"ssim_random": NUMBER | {"high": 10**300}, "copy_rate": NUMBER}}},
        {"dataset": {"split": HOSTILE, "groups": ["HCM"]}},
        {"dataset": {"split": "test", "groups": [HOSTILE]}},
        {"dataset": HOSTILE},
        {"hcm_hf_version": HOSTILE},
        {"n_generated": HOSTILE},
        {"seed": {HOSTILE: 1}},
    ],
)
def test_a_report_is_known_names_and_numbers(changed, app, tmp_path):
    assert app["read_scores"](tmp_path) is None
    (tmp_path / "metrics.json").write_text(json.dumps(REPORT))
    scores = app["read_scores"](tmp_path)
    whole, (value, real) = scores.table, scores.pair("ssim_random")
    assert value == real == 0.5 and scores.pair("kid_imagenet") is None
    assert "| ssim_random | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] |" in whole and "20 / 10 (4 patients" in whole
    (tmp_path / "metrics.json").write_text(json.dumps(REPORT | changed))
    table = app["read_scores"](tmp_path).table
    assert "0.500 [0.400, 0.600]" in table and not set("<>!()") & set(table.split("\n\n")[0])
    assert "evil" not in table and "e+" not in table and "nan" not in table


@pytest.mark.parametrize(
    "report",
    ["{half", "[]", "null", '"x"', "[" * 100_000, "{}", '{"rows": []}', '{"rows": {"generated": []}}', '{"rows": 1}'],
)
def test_a_damaged_report_is_none(report, app, tmp_path):
    (tmp_path / "metrics.json").write_text(report)
    assert app["read_scores"](tmp_path) is None
    (tmp_path / "report.json").write_text(report)
    assert app["read_reports"](tmp_path) == {}


def test_a_figure_that_is_no_small_png_is_not_shown(app, tmp_path):
    from PIL import Image

    path = tmp_path / "losses.png"
    path.write_text("<svg onload='x'/>")
    assert app["read_losses"](tmp_path) is None
    Image.new("1", (20_000, 20_000)).save(path)
    assert app["read_losses"](tmp_path) is None
    Image.new("L", (200, 200)).save(path)
    assert app["read_losses"](tmp_path) == path


def test_the_texts_are_whole():
    from space import SPACE

    texts = yaml.safe_load((SPACE / "texts.yaml").read_text(encoding="utf-8"))
    assert all(set(text) == {"en", "es"} and all(text.values()) for text in texts.values())
