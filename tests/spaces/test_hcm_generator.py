"""The generators' Space in a real browser and through its API, on tiny models that are trained here."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
from gradio_client import Client
from PIL import Image
from space import SPACE, chromium_started, in_browser, opened_space
from tiny import build_tiny, tiny_families

from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.hub.push import push_model, push_space
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


PAIRED, PAIRED_GAN = "ddpm-tuned", "acgan-paired"
NAMES = ("vae", "gan", "dcgan", "acgan", PAIRED_GAN, "infogan", "ddpm", PAIRED)
LATENT = ("vae", "gan", "dcgan", "acgan", PAIRED_GAN, "infogan")


@pytest.fixture(scope="module")
def app():
    with opened_space() as names:
        yield names


@pytest.fixture(scope="module")
def runs(dataset_dir, tmp_path_factory):
    """A run of each family, one of the recipe that makes masks, and a report on the DCGAN."""
    folder = tmp_path_factory.mktemp("space")
    with pytest.MonkeyPatch.context() as patch:
        for name, tiny in tiny_families().items():
            patch.setitem(FAMILIES, name, tiny)
            train(TrainingConfig(name, dataset=str(dataset_dir), output_dir=str(folder / "runs" / name), num_epochs=1))
        for name, (family, recipe) in {PAIRED: ("ddpm", "tuned"), PAIRED_GAN: ("acgan", "paired")}.items():
            train(TrainingConfig(family, recipe, str(dataset_dir), str(folder / "runs" / name), num_epochs=1))
    score(folder / "reports" / "dcgan", model=folder / "runs" / "dcgan", dataset=dataset_dir, num_images=20)
    return folder / "runs"


@pytest.fixture(scope="module")
def url(app, runs):
    """Where the page is served."""
    generators, problems = app["find_generators"](runs, runs.parent / "reports")
    assert list(generators) == list(NAMES) and problems == []
    demo = app["build_demo"](generators)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, i18n=app["t"], css=app["CSS"], show_error=True)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def chromium():
    with chromium_started() as browser:
        yield browser


@pytest.fixture
def page(chromium, url):
    """The page in an English browser; whatever it writes to its console as an error fails the test."""
    context = chromium.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    page, errors = context.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    page.goto(url)
    page.wait_for_selector("#gallery img")  # of the first model that makes masks
    yield page
    context.close()
    assert errors == []


def choose(page, name):
    if page.input_value("#model input").startswith(f"{name} ·"):
        return
    page.click("#model input")
    page.get_by_role("option", name=re.compile(f"^{name} ·")).click()
    page.wait_for_selector(f"button#{'generate' if name.startswith('ddpm') else 'denoise'}", state="hidden")
    page.wait_for_selector("#gallery img", state="detached")
    page.wait_for_selector("#conditions", state="visible" if name in ("acgan", PAIRED_GAN, PAIRED) else "hidden")
    page.wait_for_timeout(300)  # what is described late would clear what is drawn next


def finish(page):
    """Wait for the time of what was asked for, which comes with the last images, and return the images' bytes."""
    page.wait_for_function("document.querySelector('#time textarea, #time input').value.includes('=')")
    page.wait_for_selector("#gallery img")
    sources = page.eval_on_selector_all("#gallery .grid-wrap img", "images => images.map(image => image.src)")
    return [page.request.get(source).body() for source in sources]


@in_browser
@pytest.mark.parametrize("family", NAMES)
def test_every_family_draws_and_repeats_itself(family, page, runs, tmp_path):
    choose(page, family)
    if family in (PAIRED, PAIRED_GAN):
        page.click("#overlay input")
    page.fill("#num_images input[type=number]", "3")
    images = []
    for _ in range(2):
        page.click("button#denoise" if family.startswith("ddpm") else "button#generate")
        images.append(finish(page))
        page.evaluate("document.querySelector('#time textarea, #time input').value = ''")
    assert len(images[0]) == 3 and images[0] == images[1]
    steps = {"scheduler": "ddpm", "num_inference_steps": 50} if family == "ddpm" else {}
    folder = generate_images(runs / family, tmp_path / "images", num_images=3, sampling=Sampling(**steps))
    for index, data in enumerate(images[0]):  # those of generate.py, each pixel 16 times as large
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("L"))[::16, ::16].astype(int)
        assert np.abs(shown - np.asarray(Image.open(folder / f"{index:06d}.png")).astype(int)).max() <= 1


@in_browser
def test_controls_are_shown_where_they_mean_something(page):
    parts = {"#codes": ["infogan"], "#diffusion": ["ddpm", PAIRED], "#guidance": [PAIRED], "#wall": [PAIRED_GAN]}
    parts |= {part: ["acgan", PAIRED_GAN, PAIRED] for part in ("#conditions", "#group")}
    parts |= {part: [PAIRED_GAN, PAIRED] for part in ("#phase", "#level", "#masks", "#mask_nifti")}
    for name in NAMES:
        choose(page, name)
        for part, owners in parts.items():
            page.wait_for_selector(part, state="visible" if name in owners else "hidden")


@in_browser
def test_a_diffusion_model_begins_with_its_own_sampler(page):
    for name, sampling in {"ddpm": ["ddpm", "50"], PAIRED: ["sde-dpmsolver++", "20"]}.items():
        choose(page, name)
        page.wait_for_function(
            "expected => [...document.querySelectorAll('#diffusion input')].every((a, i) => a.value == expected[i])",
            arg=sampling,
        )


@in_browser
def test_what_is_asked_for_is_shown_and_its_masks_come_and_go(page):
    choose(page, PAIRED)
    page.fill("#num_images input[type=number]", "2")
    assert page.input_value("#group input") == "HCM" and page.input_value("#phase input") == "any"
    for axis, answer in {"group": "NOR", "phase": "ES", "level": "apex"}.items():
        page.click(f"#{axis} input")
        page.get_by_role("option", name=answer, exact=True).click()
    page.click("button#denoise")

    def color():
        pixels = np.asarray(Image.open(io.BytesIO(finish(page)[0])).convert("RGB")).astype(int)
        return int(np.ptp(pixels, axis=-1).max())

    assert color() > 20 and page.inner_text("#gallery").count("NOR ES apex") == 2
    assert all(word in page.inner_text("#legend") for word in ("blue", "yellow", "orange", "right ventricle"))
    before = page.get_attribute("#gallery .grid-wrap img", "src")
    page.click("#overlay input")
    page.wait_for_function("old => document.querySelector('#gallery .grid-wrap img').src !== old", arg=before)
    assert color() == 0 and page.inner_text("#gallery").count("NOR ES apex") == 2


@in_browser
def test_a_visitor_sees_pairs_at_once_and_one_button(chromium, url):
    """Also before the page has heard from the server: a click as soon as the button is there is answered."""
    page = chromium.new_page(locale="en-US")
    page.goto(url)
    page.get_by_role("button", name="Generate", exact=True).click()  # raises if there are two
    finish(page)
    assert page.locator("#gallery .grid-wrap img").count() == 12
    assert page.inner_text("#gallery").count("HCM") == 12 and page.locator(".toast-body").count() == 0
    page.reload()
    page.wait_for_selector("#gallery img")
    assert page.locator("#gallery .grid-wrap img").count() == 12
    page.wait_for_selector("#mask_nifti:not([disabled])")
    page.close()


@in_browser
def test_denoising_is_seen_to_move(page):
    choose(page, "ddpm")
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const image = document.querySelector('#gallery .grid-wrap img');
                if (image && window.seen.at(-1) !== image.src) window.seen.push(image.src);
            }).observe(document.querySelector('#gallery'), {subtree: true, childList: true, attributes: true});
        }"""
    )
    page.click("button#denoise")
    last = finish(page)
    seen = page.evaluate("window.seen")
    assert len(seen) >= 4
    first = np.asarray(Image.open(io.BytesIO(page.request.get(seen[0]).body())).convert("L")).astype(float)
    final = np.asarray(Image.open(io.BytesIO(last[0])).convert("L")).astype(float)
    assert np.abs(first - final).mean() > 1


@in_browser
def test_compare_copies_scores_and_interpolation(page):
    choose(page, "dcgan")
    page.click("button#generate")
    finish(page)
    page.locator("#gallery .grid-wrap button").nth(1).click()
    page.get_by_role("tab", name="Is it a copy?").click()
    page.wait_for_selector("#likest img")
    assert page.locator("#likest .grid-wrap img").count() == 6
    assert -1 <= float(page.input_value("#correlation input")) <= 1
    page.get_by_role("tab", name="Scores").click()
    assert "relative" not in page.inner_text("#scores") and "ssim_random" in page.inner_text("#scores")
    choose(page, "vae")
    page.wait_for_selector("#no_report", state="visible")
    assert "scripts/score.py" in page.inner_text("#no_report")
    page.get_by_role("tab", name="Interpolate").click()
    page.click("button#interpolate")
    page.wait_for_selector("#path img")
    page.get_by_role("tab", name="Compare").click()
    page.click("button#compare")
    page.wait_for_function("document.querySelector('#compared textarea, #compared input').value.startsWith('8 / 8')")
    text = page.inner_text("#grids")
    assert all(f"{family} · " in text for family in NAMES)


@in_browser
def test_the_download_opens_and_says_what_it_is(page, tmp_path):
    choose(page, "acgan")
    page.click("button#generate")
    finish(page)
    page.wait_for_selector("#png:not([disabled])")
    with page.expect_download() as waiting:
        page.click("#png")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        lines = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
        assert [line["file"] for line in lines] == [f"{index:06d}.png" for index in range(12)]
        assert lines[0]["model"] == "acgan" and lines[0]["group"] == "HCM" and lines[0]["synthetic"]
        assert Image.open(io.BytesIO(archive.read("000011.png"))).size == (16, 16)
    with page.expect_download() as waiting:
        page.click("#nifti")
    waiting.value.save_as(tmp_path / "stack.nii.gz")
    volume = nibabel.load(tmp_path / "stack.nii.gz")
    assert volume.shape == (16, 16, 12) and volume.header.get_zooms()[0] == 8


@in_browser
@pytest.mark.parametrize(("locale", "word"), [("en-US", "Is it a copy?"), ("es-ES", "¿Es una copia?")])
def test_the_language_is_the_browsers(chromium, url, locale, word):
    context = chromium.new_context(locale=locale)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#gallery", state="attached")
    assert word in page.inner_text("body")
    assert ("not for diagnosis" if locale == "en-US" else "no para diagnóstico") in page.inner_text("#banner")
    context.close()


@in_browser
def test_the_language_can_be_switched(page):
    page.get_by_text("Settings").click()
    page.get_by_label("Language").first.click()
    page.get_by_role("option", name="Español").click()
    page.wait_for_function("document.querySelector('#banner').innerText.includes('no para diagnóstico')")


@in_browser
def test_it_fits_a_telephone(chromium, url):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(url)
    choose(page, "dcgan")
    page.click("button#generate")
    finish(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    images = page.locator("#gallery .grid-wrap img")
    boxes = [page.locator("button#generate").bounding_box(), *(images.nth(i).bounding_box() for i in range(12))]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    context.close()


@in_browser
def test_without_a_model_the_page_says_how_to_get_one(app, chromium):
    demo = app["build_demo"]({}, ["ada/none is no model."])
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, i18n=app["t"])
    page = chromium.new_page()
    page.goto(url)
    page.wait_for_selector("#no_models")
    assert "make demo" in page.inner_text("#no_models") and "ada/none is no model." in page.inner_text("#problems")
    page.close()
    demo.close()


ARGUMENTS = {
    "num_images": 2,
    "seed": 0,
    "fix_codes": False,
    "category": 0,
    "code_1": 0,
    "code_2": 0,
}


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def draw(client, model, **arguments):
    return client.predict(model=model, **ARGUMENTS | arguments, api_name="/generate")


def test_the_api_is_documented_and_draws(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/generate", "/denoise", "/interpolate", "/compare", "/archive", "/nearest"}
    outputs = {name: [output["label"] for output in one["returns"]] for name, one in endpoints.items()}
    assert outputs["/generate"] == outputs["/denoise"] == ["Images", "Time"] and outputs["/interpolate"] == ["Images"]
    assert outputs["/nearest"][1] == "Highest correlation" and outputs["/archive"][1] == "NIfTI (.nii.gz)"
    assert all(isinstance(part["label"], str) for one in endpoints.values() for part in one["parameters"])
    images, taken = draw(client, "dcgan")
    assert len(images) == 2 and "=" in taken
    *files, masks = client.predict(api_name="/archive")
    assert all(Path(file).stat().st_size > 100 for file in files) and masks is None
    likest, correlation, *_ = client.predict(0, api_name="/nearest")
    assert len(likest) == 6 and -1 <= correlation <= 1
    assert len(client.predict(model="gan", **ARGUMENTS, other_seed=1, api_name="/interpolate")) == 2
    with pytest.raises(Exception, match="index is 2; give a whole number from 0 to 1"):
        client.predict(2, api_name="/nearest")
    with pytest.raises(Exception, match="has no codes"):
        client.predict(model="gan", **ARGUMENTS | {"fix_codes": True}, other_seed=1, api_name="/interpolate")


def test_classes_and_codes_change_the_images(client):
    def pixels(model, **arguments):
        images, _ = draw(client, model, **arguments)
        return [np.asarray(Image.open(image["image"])).tolist() for image in images]

    assert pixels("acgan") == pixels("acgan", group="HCM") != pixels("acgan", group="NOR")
    chosen = {"fix_codes": True, "category": 1, "code_1": -1, "code_2": 0.5}
    assert pixels("infogan") != pixels("infogan", **chosen) == pixels("infogan", **chosen)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("dcgan", {"num_images": 65}, "65.*64"),
        ("dcgan", {"num_images": 0}, "Value 0 .*1|num_images is 0"),
        ("dcgan", {"num_images": None}, "was: None"),
        ("dcgan", {"seed": -1}, "Value -1 |seed is -1"),
        ("pixelcnn", {}, "pixelcnn"),
        (["vae"], {}, "vae"),
        ("dcgan", {"group": "HCM"}, "group 'HCM' given, but dcgan cannot be asked for a group"),
        ("acgan", {"group": "XYZ"}, "XYZ"),
        ("acgan", {"wall_thickness": 20}, "wall_thickness 20 given, but acgan cannot be asked"),
        (PAIRED_GAN, {"wall_thickness": 1}, "this model was trained on .* give a number between"),
        ("dcgan", {"fix_codes": True}, "has no codes"),
        ("infogan", {"fix_codes": True, "category": 0.5}, "category is 0.5; give a whole number"),
        ("infogan", {"fix_codes": True, "category": 99}, "99"),
        ("infogan", {"fix_codes": True, "code_1": None}, "was: None"),
        ("ddpm", {}, "ddpm is a diffusion model; ask for it with /denoise"),
    ],
)
def test_wrong_values_get_a_clear_answer(client, model, arguments, message):
    with pytest.raises(Exception, match=message) as error:
        draw(client, model, **arguments)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "steps", "message"),
    [(64, 1000, "are more than 3200 steps in all"), (1, 1001, "1001 .*1000"), (1, -1, "Value -1 |steps is -1")],
)
def test_long_work_is_refused(client, images, steps, message):
    with pytest.raises(Exception, match=message):
        client.predict("ddpm", images, 0, "ddpm", steps, api_name="/denoise")


def read_archive(files):
    """The lines of an archive's manifest, its images and its masks."""
    with zipfile.ZipFile(files[0]) as archive:
        lines = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
        images, masks = (
            np.stack([np.asarray(Image.open(io.BytesIO(archive.read(line[key])))) for line in lines])
            for key in ("file", "mask")
        )
    return lines, images, masks


@pytest.mark.parametrize(
    ("asked", "class_labels", "settings"),
    [
        ({}, None, {}),
        ({"group": "any", "phase": "ED"}, "any ED", {"scheduler": "ddpm", "num_inference_steps": 4}),
        ({"group": "NOR", "level": "mid", "guidance_scale": 2.5}, "NOR mid", {"num_inference_steps": 3}),
    ],
)
def test_the_api_gives_the_pairs_of_generate(asked, class_labels, settings, client, runs, tmp_path):
    shown, _ = client.predict(PAIRED, 5, 7, **settings, **asked, api_name="/denoise")
    files = client.predict(api_name="/archive")
    lines, images, masks = read_archive(files)
    folder = generate_images(
        runs / PAIRED,
        tmp_path / "images",
        num_images=5,
        seed=7,
        sampling=Sampling(class_labels=class_labels, guidance_scale=asked.get("guidance_scale"), **settings),
    )
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    shared = ("file", "mask", "group", "phase", "level", "seed", "scheduler", "num_inference_steps")
    assert [[line[key] for key in shared] for line in lines] == [[line[key] for key in shared] for line in manifest]
    captions = [" ".join(line[axis] for axis in ("group", "phase", "level")) for line in lines]
    assert captions == [image["caption"].partition(" · ")[0] for image in shown]
    for line, image, mask in zip(lines, images.astype(int), masks, strict=True):
        assert np.abs(image - np.asarray(Image.open(folder / line["file"])).astype(int)).max() <= 1
        assert (mask == np.asarray(Image.open(folder / line["mask"]))).mean() > 0.99
    for file, stack in zip(files[1:], (images, masks), strict=True):
        np.testing.assert_array_equal(np.asarray(nibabel.load(file).dataobj), stack.transpose(2, 1, 0))


def test_the_api_gives_the_pairs_of_generate_from_one_call_of_a_network(client, runs, tmp_path):
    wall = 12.0
    shown, _ = draw(client, PAIRED_GAN, num_images=5, seed=7, group="NOR", phase="ED", wall_thickness=wall)
    lines, images, masks = read_archive(client.predict(api_name="/archive"))
    asked = {"group": "NOR", "phase": "ED", "wall_thickness": wall}
    folder = generate_images(
        runs / PAIRED_GAN, tmp_path / "images", num_images=5, seed=7, sampling=Sampling(conditions=asked)
    )
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    shared = ("file", "mask", "group", "phase", "level", "wall_thickness", "seed")
    assert [[line[key] for key in shared] for line in lines] == [[line[key] for key in shared] for line in manifest]
    for line, image, mask in zip(lines, images.astype(int), masks, strict=True):
        assert np.abs(image - np.asarray(Image.open(folder / line["file"])).astype(int)).max() <= 1
        assert (mask == np.asarray(Image.open(folder / line["mask"]))).mean() > 0.99
    assert all(image["caption"].startswith("NOR ED") for image in shown)


def test_the_overlay_colours_what_the_masks_hold(client):
    plain, marked = (
        client.predict(PAIRED, 2, 0, num_inference_steps=2, overlay=overlay, api_name="/denoise")[0]
        for overlay in (False, True)
    )
    _, _, masks = read_archive(client.predict(api_name="/archive"))
    for before, after, mask in zip(plain, marked, masks, strict=True):
        before, after = (np.asarray(Image.open(one["image"]).convert("RGB")).astype(int) for one in (before, after))
        changed = np.abs(after - before).max(-1) > 0
        np.testing.assert_array_equal(changed, mask.repeat(16, 0).repeat(16, 1) > 0)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (PAIRED, {"group": "XYZ"}, "XYZ"),
        (PAIRED, {"group": "ED"}, "ED"),
        (PAIRED, {"guidance_scale": 9}, "Value 9 .*5|guidance_scale is 9"),
        (PAIRED, {"guidance_scale": None}, "was: None"),
        (PAIRED, {"scheduler": "euler"}, "euler"),
        ("ddpm", {"group": "HCM"}, "group 'HCM' given, but ddpm cannot be asked for a group"),
        ("ddpm", {"guidance_scale": 2}, "guidance_scale 2 given"),
        ("vae", {}, "vae is no diffusion model; ask for it with /generate"),
    ],
)
def test_wrong_conditions_get_a_clear_answer(client, model, arguments, message):
    with pytest.raises(Exception, match=message) as error:
        client.predict(**{"model": model, "num_images": 1, "seed": 0} | arguments, api_name="/denoise")
    assert "Traceback" not in str(error.value)


def test_a_student_takes_its_own_number_of_calls(app, tmp_path):
    pipeline = build_tiny("ddpm", recipe="tuned").pipeline()
    pipeline.register_to_config(sampler="ddpm", num_inference_steps=2)
    pipeline.save_pretrained(tmp_path / "student")
    generators, _ = app["find_generators"](tmp_path / "student")
    handlers, generator = app["Handlers"](generators, None), generators["student"]
    assert generator.sampling == ("ddpm", 2)
    shown = list(handlers.denoise("student", 2, 0, progress=lambda _: None))
    assert [made is None for _, _, made in shown] == [True, False]
    request, drawing = shown[-1][2]
    assert (request.scheduler, request.num_inference_steps) == ("ddpm", 2)
    *_, again = generator.draw(app["Request"]("student", 2))
    np.testing.assert_array_equal(again.images, drawing.images)
    assert len(list(handlers.compare(0, "unipc", 2000, progress=lambda _: None))) == 1  # they are for other models
    assert len(list(handlers.compare(0, "ddim", 0, progress=lambda _: None))) == 1
    free, guided = (app["Request"]("student", 2, guidance_scale=scale) for scale in (None, 3))
    assert app["seconds_needed"](generator.key, guided) == 2 * app["seconds_needed"](generator.key, free)


def test_nothing_is_drawn_for_a_visitor_who_has_left(app, runs):
    generator, calls = app["find_generators"](runs / "ddpm")[0]["ddpm"], []
    own = generator.load().scheduler
    generator.load().unet.register_forward_hook(lambda *_: calls.append(True))
    drawings = generator.draw(app["Request"]("ddpm", 1, scheduler="ddim", num_inference_steps=800))
    assert next(drawings).done == 1 / 8
    drawings.close()  # waits for the step that is on its way
    assert 100 <= len(calls) < 800 and generator.load().scheduler is own


def test_what_was_drawn_for_any_group_is_said(app, runs):
    generator = app["find_generators"](runs / "acgan")[0]["acgan"]
    (drawing,) = generator.draw(app["Request"]("acgan", 12, conditions=generator.ask({"group": "any"})))
    shown = [one["group"] for one in drawing.conditions]
    assert len(set(shown)) > 1 and "any" not in shown
    for index, group in enumerate(shown[:3]):
        (asked,) = generator.draw(app["Request"]("acgan", 3, conditions=generator.ask({"group": group})))
        np.testing.assert_allclose(asked.images[index], drawing.images[index], atol=1e-6)


def test_what_is_left_open_is_said_as_generate_takes_it(app, runs):
    generator = app["find_generators"](runs / PAIRED)[0][PAIRED]
    for answers, expected in [
        ({}, {"group": "HCM"}),
        ({"group": None, "phase": "any"}, {"group": "HCM"}),
        ({"group": "any"}, {"group": "any"}),
        ({"group": "any", "phase": "ED", "level": None}, {"group": "any", "phase": "ED"}),
        ({"level": "mid", "group": "NOR"}, {"group": "NOR", "level": "mid"}),
    ]:
        assert generator.ask(answers) == expected
        generator.conditions.allowed(expected)
    with pytest.raises(InputError, match="phase is 'HCM'; choose among any, ED, ES"):
        generator.ask({"phase": "HCM"})


def call(url, endpoint, *data):
    """Ask an endpoint as any HTTP client may, and return its outputs and when they came."""
    address = f"{url}gradio_api/call/{endpoint}"
    event = requests.post(address, json={"data": data}, timeout=60).json()["event_id"]
    lines = requests.get(f"{address}/{event}", timeout=120).text.splitlines()
    last = max(index for index, line in enumerate(lines) if line.startswith("event: "))
    assert lines[last] == "event: complete", lines[last:]
    return json.loads(lines[last + 1].removeprefix("data: ")), time.monotonic()


def test_twenty_at_once_are_all_answered_and_none_waits_for_the_slow_one(url):
    with ThreadPoolExecutor(21) as pool:
        slow = pool.submit(call, url, "denoise", "ddpm", 64, 0, "ddpm", 50, None, None, None, 1, False, 0)
        nothing = (None, False, 0, 0, 0, None, None, 0, False)
        asked = [(LATENT[i % len(LATENT)], 2, i, *nothing) for i in range(20)]
        answers = list(pool.map(lambda data: call(url, "generate", *data), asked))
    assert [len(outputs[0]) for outputs, _ in answers] == [2] * 20
    outputs, ended = slow.result()
    assert len(outputs[0]) == 64
    assert max(moment for _, moment in answers) < ended


@pytest.mark.parametrize("path", ["/etc/passwd", str(SPACE / "app.py"), str(SPACE.parents[1] / "setup.cfg")])
def test_files_elsewhere_cannot_be_read(url, path):
    for route in ("gradio_api/file=", "file="):
        answer = requests.get(f"{url}{route}{path}", timeout=10)
        assert answer.status_code in (403, 404) and b"root:" not in answer.content


def test_repositories_are_served(app, runs, hub):
    push_model(runs / "gan", "ada/hearts")
    generators, problems = app["find_generators"](["ada/hearts", "ada/none"])
    assert list(generators) == ["ada/hearts"] and generators["ada/hearts"].losses is not None
    assert generators["ada/hearts"].page == "https://huggingface.co/ada/hearts"
    assert len(problems) == 1 and "There is no folder ada/none here" in problems[0]
    assert app["split_names"]("a/b, c/d\ne/f") == ["a/b", "c/d", "e/f"]


def test_the_pushed_space_starts_by_itself(hub, tmp_path):
    push_space(SPACE, "ada/hcm-generator")
    for name, data in hub.files("space", "ada/hcm-generator").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import app, hcm_hf; print(hcm_hf.__file__); app.build_demo({})"]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(str(tmp_path))


def test_the_page_has_a_folder_of_its_own(runs, tmp_path):
    (tmp_path / "gradio").write_text("This may belong to somebody else.")
    env = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    env.pop("GRADIO_TEMP_DIR")
    command = [sys.executable, str(SPACE / "app.py"), "--models", str(runs / "gan")]
    page = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = next(line.split()[-1] for line in page.stdout if "Running on" in line)
        assert len(draw(Client(address, verbose=False), "gan")[0]) == 2
    finally:
        page.terminate()
        page.wait()


def test_a_folder_that_is_not_there_is_named(app):
    with pytest.raises(InputError, match="--models nowhere does not exist"):
        app["main"](models=Path("nowhere"))


def test_latents_of_two_seeds_are_joined_at_even_angles(app, runs):
    generators, _ = app["find_generators"](runs / "vae")
    generator = generators["vae"]
    request = app["Request"]("vae", num_images=5, seed=3)
    path = generator.interpolate(request, 4)
    ends = [next(generator.draw(app["Request"]("vae", 1, seed))).images[0] for seed in (3, 4)]
    np.testing.assert_allclose(path[[0, -1]], ends, atol=1e-5)


def test_files_are_gone_after_a_while(app, runs):
    demo = app["build_demo"]({})
    assert demo.delete_cache == (app["KEEP_SECONDS"] // 6, app["KEEP_SECONDS"])  # gradio's own copies
    handlers = app["Handlers"](app["find_generators"](runs / "gan")[0], None)
    ((first, _), *_), _, _ = handlers.generate("gan", 2, 0)
    ((second, _), *_), _, _ = handlers.generate("gan", 2, 1)
    os.utime(Path(first).parent, (0, 0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: app["tidy"](), range(50)))
    assert not Path(first).parent.exists() and Path(second).exists()


def test_a_damaged_model_does_not_stop_the_others(app, runs, tmp_path):
    for name in ("vae", "gan"):
        shutil.copytree(runs / name, tmp_path / name)
    (weights,) = (tmp_path / "gan" / "best").rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    generators, problems = app["find_generators"](tmp_path)
    assert list(generators) == ["vae"] and len(problems) == 1 and "gan" in problems[0]


def test_nothing_of_a_run_but_a_copy_is_served(app, runs):
    handlers = app["Handlers"](app["find_generators"](runs / "vae")[0], None)
    shown = [str(one.get("value")) for one in handlers.describe("vae") if isinstance(one, dict)]
    assert any(one.endswith("losses.png") for one in shown) and not any(str(runs) in one for one in shown)


def test_a_gpu_is_asked_for_with_what_can_be_sent_to_another_process(app, runs):
    asked = []

    def lend(duration):
        def decorate(function):
            def lent(*arguments):
                asked.append(duration(*pickle.loads(pickle.dumps(arguments))))
                return function(*arguments)

            return lent

        return decorate

    on_gpu = app["on_gpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(on_gpu.__globals__, "GPU", lend)
        for name in ("draw", "travel"):
            patch.setitem(on_gpu.__globals__, name, on_gpu(app["seconds_needed"])(app[name]))
        handlers = app["Handlers"](app["find_generators"](runs)[0], None)
        handlers.generate("gan", 2, 0)
        handlers.interpolate("gan", 2, 0)
        assert len(list(handlers.denoise("ddpm", 4, 0, "ddpm", 10, progress=lambda _: None))) == 8
        with pytest.raises(Exception, match="more than 3200"):
            list(handlers.denoise("ddpm", 64, 0, "ddpm", 1000, progress=lambda _: None))
    assert len(asked) == 3 and asked[0] < asked[2] and all(isinstance(seconds, int) for seconds in asked)
