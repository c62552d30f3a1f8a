"""The generators' Space through its API."""

import io
import json
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
from space import NAMES, PAIRED, PAIRED_GAN, SPACE

from hcm_hf.generation.images import generate_images
from hcm_hf.pipelines.sampling import Sampling


LATENT = tuple(name for name in NAMES if not name.startswith("ddpm"))
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
