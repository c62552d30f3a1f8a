"""What stands behind the page and the API of the generators' Space."""

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from space import PAIRED, SPACE
from tiny import build_tiny

from hcm_hf.hub.push import push_model, push_space
from hcm_hf.utils.errors import InputError


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


def test_repositories_are_served(app, runs, hub):
    push_model(runs / "gan", "ada/hearts")
    generators, problems = app["find_generators"](["ada/hearts", "ada/none"])
    assert list(generators) == ["ada/hearts"] and generators["ada/hearts"].losses is not None
    assert generators["ada/hearts"].page == "https://huggingface.co/ada/hearts"
    assert len(problems) == 1 and "There is no folder ada/none here" in problems[0]
    assert app["split_names"]("a/b, c/d\ne/f") == ["a/b", "c/d", "e/f"]


def test_the_pushed_space_starts_by_itself_with_a_folder_of_its_own(hub, runs, tmp_path):
    push_space(SPACE, "ada/hcm-generator")
    for name, data in hub.files("space", "ada/hcm-generator").items():
        path = tmp_path / "space" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "gradio").write_text("This may belong to somebody else.")
    env = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    for name in ("PYTHONPATH", "GRADIO_TEMP_DIR"):
        env.pop(name, None)
    code = (
        "import runpy, sys; import hcm_hf; print(hcm_hf.__file__)\n"
        f"sys.argv[1:] = ['--models', {str(runs / 'gan')!r}]; runpy.run_path('app.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    options = {"cwd": tmp_path / "space", "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    page = subprocess.Popen(command, env=env, **options)
    try:
        assert next(page.stdout).startswith(str(tmp_path / "space"))
        address = next(line.split()[-1] for line in page.stdout if "Running on" in line)
        assert len(Client(address, verbose=False).predict("gan", 2, 0, api_name="/generate")[0]) == 2
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
