"""The tools of agents, called by the official client over real HTTP."""

import asyncio
import base64
import io
import json
import zipfile

import numpy as np
import pytest
import requests
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from space import opened_space, save_model, served, visitor
from tiny import TINY

from hcm_hf.generation.images import generate_images
from hcm_hf.hub.serving import BOUNDS, SLOW


PAIRED = "ddpm-tuned"
LATENT = [family for family in TINY if family != "ddpm"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in TINY:
        save_model(folder / family, family)
    save_model(folder / PAIRED, "ddpm", "tuned")
    return folder


@pytest.fixture(scope="module")
def url(models):
    with opened_space() as app:
        demo = app["build_demo"](app["find_generators"](models)[0], for_agents=True)
        with served(app, demo, mcp_server=True) as url:
            yield url


def visit(url, do):
    """What a client gets that is connected to the page as agents are."""

    async def connect():
        async with streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                return await do(session)

    return asyncio.run(connect())


def call(url, tool, progress=None, **arguments):
    """A tool's picture, its facts, and the addresses it gives."""
    answer = visit(url, lambda session: session.call_tool(tool, arguments, progress_callback=progress))
    if answer.isError:
        raise RuntimeError(answer.content[0].text)
    picture, _, facts, *files = answer.content
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))
    return image, json.loads(facts.text), [file.text for file in files]


def test_agents_find_four_tools_and_nothing_of_the_page(url):
    tools = {tool.name: tool for tool in visit(url, lambda session: session.list_tools()).tools}
    assert set(tools) == {"generate", "interpolate", "denoise", "compare"}
    for name, tool in tools.items():
        assert all(part["description"] for part in tool.inputSchema["properties"].values())
        assert tool.inputSchema.get("required", []) == ([] if name == "compare" else ["model"])
    assert all(family in tools["generate"].description for family in LATENT)
    assert PAIRED in tools["denoise"].description and PAIRED not in tools["generate"].description
    group = tools["generate"].inputSchema["properties"]["group"]
    assert {"type": "null"} in group["oneOf"]
    assert {tool["name"] for tool in requests.get(f"{url}gradio_api/mcp/schema", timeout=10).json()} == set(tools)


@pytest.mark.parametrize("family", LATENT)
def test_a_latent_model_is_called_by_its_name_alone(family, url, models, tmp_path):
    image, facts, (archive,) = call(url, "generate", model=family, seed=7)
    assert image.shape == (256, 4 * 258 - 2) and facts["seed"] == 7 and "not for diagnosis" in facts["notice"]
    folder = generate_images(models / family, tmp_path / "images", num_images=4, seed=7)
    with zipfile.ZipFile(io.BytesIO(requests.get(archive, timeout=10).content)) as files:
        for index in range(4):
            drawn = np.asarray(Image.open(folder / f"{index:06d}.png")).astype(int)
            sent = np.asarray(Image.open(io.BytesIO(files.read(f"{index:06d}.png")))).astype(int)
            shown = image[:256:16, 258 * index : 258 * index + 256 : 16].astype(int)
            assert np.abs(drawn - sent).max() <= 1 and np.abs(drawn - shown).max() <= 1
    between, facts, _ = call(url, "interpolate", model=family, seed=7, other_seed=8)
    assert between.shape == (256, 8 * 258 - 2) and facts["other_seed"] == 8
    np.testing.assert_allclose(between[:, :256].astype(int), image[:, :256].astype(int), atol=1)


def test_diffusion_models_are_called_with_what_they_can_be_asked(url):
    image, facts, _ = call(url, "denoise", model="ddpm", num_inference_steps=3, group=None)
    assert image.shape == (256, 256) and facts["scheduler"] == "ddpm" and "images" not in facts
    asked = {"group": "NOR", "phase": "ES", "level": "apex", "num_images": 3, "num_inference_steps": 2}
    image, facts, (archive,) = call(url, "denoise", model=PAIRED, overlay=True, **asked)
    assert [one.partition(" · ")[0] for one in facts["images"]] == ["NOR ES apex"] * 3 and image.ndim == 3
    with zipfile.ZipFile(io.BytesIO(requests.get(archive, timeout=10).content)) as files:
        assert len(files.namelist()) == 7
    assert call(url, "denoise", model=PAIRED, num_inference_steps=2)[1]["conditions"] == {"group": "HCM"}


def test_codes_and_classes_are_heard(url):
    def draw(model, **arguments):
        return call(url, "generate", model=model, **arguments)[0].tolist()

    assert draw("acgan") == draw("acgan", group="HCM") != draw("acgan", group="NOR")
    assert draw("infogan") != draw("infogan", category=1, code_1=-1, code_2=0.5)


def test_all_are_compared_and_progress_is_told(url):
    told = []

    async def note(progress, total, message):
        told.append(message)

    image, facts, _ = call(url, "compare", progress=note, num_inference_steps=3)
    assert image.shape == (7 * 258 - 2, 4 * 258 - 2) and set(facts["seconds_per_image"]) == {*TINY, PAIRED} and told


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("generate", {"model": "nobody"}, "There is no generator 'nobody'; choose among"),
        ("generate", {"model": "ddpm"}, "ddpm is a diffusion model"),
        ("generate", {"model": "vae", "num_images": 65}, "num_images is 65"),
        ("generate", {"model": "vae", "group": "HCM"}, "group 'HCM' given, but vae cannot be asked"),
        ("generate", {"model": "infogan", "code_1": 0.5}, "give category, code_1 and code_2, or none"),
        ("denoise", {"model": "vae"}, "vae is no diffusion model"),
        ("denoise", {"model": "ddpm", "num_images": 64, "num_inference_steps": 1000}, "more than 3200 steps"),
        ("interpolate", {"model": "ddpm"}, "diffusion model"),
        ("compare", {"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_call_gets_one_sentence(tool, arguments, sentence, url):
    with pytest.raises(RuntimeError, match=sentence) as error:
        call(url, tool, **arguments)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_an_agent_is_counted_as_the_visitor_that_he_is(url):
    agent, slow = visitor("127.0.0.5"), ["ddpm", 64, 0, "ddpm", 50, None, None, None, 1, False, 0]
    for _ in range(BOUNDS[SLOW].per_visitor):
        assert agent.post(f"{url}gradio_api/call/denoise", json={"data": slow}, timeout=30).ok
    asked = {"name": "denoise", "arguments": {"model": "ddpm"}}
    answer = agent.post(
        f"{url}gradio_api/mcp/",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked},
        headers={"Accept": "application/json, text/event-stream"},
        timeout=30,
    )
    assert "Queue is full" in answer.text and '"isError":true' in answer.text
