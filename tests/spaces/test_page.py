"""The generators' Space in a real browser."""

import io
import json
import re
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image
from space import NAMES, PAIRED, PAIRED_GAN, chromium_started, in_browser

from hcm_hf.generation.images import generate_images
from hcm_hf.pipelines.sampling import Sampling


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
    assert "Are they copies?" in page.inner_text("#copy_rate")  # a number in words, and what real patients have
    shown = [one.input_value() for one in page.locator("#copy_rate input").all()]
    assert len(shown) == 2 and 0 <= float(shown[0]) <= 1
    page.get_by_role("button", name="All numbers").click()
    page.wait_for_selector("#scores table")
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
def test_nothing_can_be_asked_before_the_page_is_that_of_the_model(page):
    held, released = [], False
    page.route("**/queue/join*", lambda route: route.continue_() if released else held.append(route))
    page.click("#model input")
    page.get_by_role("option", name=re.compile("^dcgan ·")).click()
    for control in ("#model input", "button#generate"):
        page.wait_for_selector(f"{control}[disabled]", state="attached")
    released = True
    for route in held:
        route.continue_()
    page.wait_for_selector("button#generate:not([disabled])")
    page.wait_for_selector("#model input:not([disabled])")


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
