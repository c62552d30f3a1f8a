"""The generators in the browser, over an API, and for agents.

python app.py --models runs/ --dataset data/acdc-64 --reports reports/    # local runs
HCM_MODELS="user/hcm-dcgan user/hcm-ddpm" python app.py                   # repositories of the Hub
"""

import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

from hcm_hf.hub.serving import SLOW, Page, as_markdown, hide_folders, keep_tidy  # isort: split


import gradio as gr
import yaml
from agents import Agents
from catalogue import find_generators, split_names
from generators import (
    DEFAULT_SCHEDULER,
    DEFAULT_STEPS,
    LARGEST_SEED,
    MOST_GUIDANCE,
    MOST_IMAGES,
    MOST_STEPS,
    Generator,
    scheduler_names,
)
from handlers import MOST_WALL, Handlers
from scores import ASKED
from studio import QUESTIONS
from texts import I18N as t
from texts import TEXTS

from hcm_hf.cli import run
from hcm_hf.hub.publishable import served_models
from hcm_hf.pipelines.conditions import OPEN
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import parse_repository
from hcm_hf.utils.pictures import STRUCTURE_COLORS


KEEP_SECONDS = 3600  # how long files and what a visitor has made are kept
WAIT = "() => Array(3).fill({__type__: 'update', interactive: false})"  # in the browser, at once
CSS = """
#legend {margin-top: 6px}
#legend span {display: inline-block; margin-right: 1em}
#banner {border-left: 4px solid #c33; padding-left: .8em}
.gallery img {image-rendering: pixelated}
.gallery .grid-wrap img {image-rendering: auto}
.gallery .caption-label {font-size: 11px; padding: 2px 4px; max-width: 100%; white-space: normal; line-height: 1.2}
@media (max-width: 640px) {
.gallery .grid-container {grid-template-columns: repeat(3, 1fr) !important}
.gallery .caption-label {font-size: 10px}
}
""" + "".join(f"#legend b.{name} {{color: rgb{color}}}\n" for name, color in STRUCTURE_COLORS.items())


def build_demo(
    generators: Mapping[str, Generator],
    problems: Sequence[str] = (),
    dataset: str | None = None,
    for_agents: bool = False,
) -> gr.Blocks:
    """The page.

    Args:
        generators: by the name under which visitors choose them; without any, the page says how to get one.
        problems: a sentence for each generator that could not be had.
        dataset: the slices that the generators were trained on, if every visitor may see them.
        for_agents: offer tools for agents, which have no session, in place of the page's own endpoints.
    """
    english = {key: text["en"] for key, text in TEXTS.items()}
    with Page(english, title="hcm_hf", delete_cache=(KEEP_SECONDS // 6, KEEP_SECONDS)) as demo:
        gr.Markdown(t("title"), elem_id="title")
        gr.Markdown(t("banner"), elem_id="banner")
        if problems:
            with gr.Row():
                gr.Markdown(t("problems"))
                sentences = [f"- {as_markdown(hide_folders(sentence))}" for sentence in problems]
                gr.Markdown("\n".join(sentences), elem_id="problems", latex_delimiters=[])
        if generators:
            _build_page(generators, dataset, "undocumented" if for_agents else "public")
            if for_agents:
                Agents(generators).offer()
        else:
            gr.Markdown(t("no_models"), elem_id="no_models")
    return demo.queue(default_concurrency_limit=4, max_size=200)


def _build_page(generators: Mapping[str, Generator], dataset: str | None, visibility: str) -> None:
    handlers = Handlers(generators, dataset)
    first = next((one for one in generators.values() if one.makes_masks), next(iter(generators.values())))
    names = [(one.label, name) for name, one in generators.items()]
    answers = {
        axis: dict.fromkeys(answer for one in generators.values() for answer in one.conditions.axes.get(axis, ()))
        for axis in QUESTIONS
    }
    codes = max((one.num_codes for one in generators.values()), default=(0, 0))
    made = gr.State(None, time_to_live=KEEP_SECONDS)
    chosen = gr.Number(0, label=t("index"), visible=False, precision=0)

    with gr.Row():
        model = gr.Dropdown(
            names, value=first.name, label=t("model"), elem_id="model", scale=3, min_width=240, interactive=False
        )
        seed = gr.Number(
            0, label=t("seed"), info=t("seed_info"), precision=0, minimum=0, maximum=LARGEST_SEED, scale=2
        )
        dice = gr.Button(t("dice"), scale=1, elem_id="dice")
        num_images = gr.Slider(
            1, MOST_IMAGES, 12, step=1, label=t("num_images"), elem_id="num_images", scale=2, min_width=160
        )
    with gr.Group(elem_id="codes") as code_group:
        fix_codes = gr.Checkbox(False, label=t("fix_codes"))
        with gr.Row():
            category = gr.Slider(0, max(codes[0] - 1, 1), 0, step=1, label=t("category"))
            code_1, code_2 = (gr.Slider(-1, 1, 0, step=0.05, label=t(f"code_{i}")) for i in (1, 2))
    with gr.Row(elem_id="conditions") as condition_group:
        questions = [
            gr.Dropdown([OPEN, *answers[axis]], value=None, label=t(axis), info=t(f"{axis}_info"), elem_id=axis)
            for axis in QUESTIONS
        ]
        wall = gr.Slider(0, MOST_WALL, 0, step=1, label=t("wall"), info=t("wall_info"), elem_id="wall")
        guidance = gr.Slider(
            1, MOST_GUIDANCE, 1, step=0.5, label=t("guidance"), info=t("guidance_info"), elem_id="guidance"
        )
    with gr.Row(elem_id="diffusion") as step_group:
        scheduler, steps = _steps(None, None, t("scheduler_info"), t("steps_info"))

    with gr.Tabs():
        with gr.Tab(t("tab_generate"), id="generate"):
            quick = gr.Button(t("generate"), variant="primary", elem_id="generate", interactive=False)
            slow = gr.Button(t("generate"), variant="primary", elem_id="denoise", interactive=False)
            with gr.Row(elem_id="masks") as mask_group:
                overlay = gr.Checkbox(False, label=t("overlay"), elem_id="overlay", container=False)
                with gr.Column(min_width=320):
                    gr.Markdown(t("legend"), elem_id="legend")
            gallery = gr.Gallery(
                label=t("gallery"), columns=6, format="png", elem_id="gallery", elem_classes="gallery"
            )
            with gr.Row():
                taken = gr.Textbox(label=t("time"), interactive=False, elem_id="time")
                png = gr.DownloadButton(t("download_png"), interactive=False, elem_id="png")
                nifti = gr.DownloadButton(t("download_nifti"), interactive=False, elem_id="nifti")
                masks = gr.DownloadButton(t("download_masks"), interactive=False, elem_id="mask_nifti")
        with gr.Tab(t("tab_interpolate"), id="interpolate"):
            gr.Markdown(t("interpolate_info"))
            with gr.Group() as latent_group:
                other_seed = gr.Number(1, label=t("seed_to"), precision=0, minimum=0, maximum=LARGEST_SEED)
                interpolate = gr.Button(t("interpolate"), variant="primary", elem_id="interpolate")
            no_latents = gr.Markdown(t("no_latents"))
            path = gr.Gallery(label=t("gallery"), columns=6, format="png", elem_id="path", elem_classes="gallery")
        with gr.Tab(t("tab_compare"), id="compare"):
            gr.Markdown(t("compare_info"))
            with gr.Row(visible=any(one.denoises and not one.has_own_sampling for one in generators.values())):
                others = _steps(DEFAULT_SCHEDULER, DEFAULT_STEPS, t("compare_steps_info"), t("compare_steps_info"))
            compare = gr.Button(t("compare"), variant="primary", elem_id="compare")
            compared = gr.Textbox(label=t("time"), interactive=False, elem_id="compared")
            grids = gr.Gallery(label=t("gallery"), columns=6, format="png", elem_id="grids", elem_classes="gallery")
        with gr.Tab(t("tab_copy"), id="copy"):
            gr.Markdown(t("copy_info"))
            no_dataset = gr.Markdown(t("no_dataset"), elem_id="no_dataset")
            with gr.Column() as copy_group:
                likest = gr.Gallery(
                    label=t("neighbours"),
                    columns=6,
                    height=240,
                    format="png",
                    elem_id="likest",
                    elem_classes="gallery",
                )
                with gr.Row():
                    correlation = gr.Number(label=t("correlation"), interactive=False, elem_id="correlation")
                    rank = gr.Number(label=t("rank"), interactive=False)
                    threshold = gr.Number(label=t("threshold"), interactive=False)
                distribution = gr.Plot(label=t("distribution"))
        with gr.Tab(t("tab_scores"), id="scores"):
            no_report = gr.Markdown(t("no_report"), elem_id="no_report")
            asked, answers = [], []
            for name in ASKED:
                with gr.Row(elem_id=name, equal_height=True) as row:
                    with gr.Column(scale=3):
                        gr.Markdown(t(f"score_{name}"))
                    for label in ("score_model", "score_real"):
                        answers.append(gr.Number(label=t(label), precision=3, interactive=False, min_width=120))
                asked.append(row)
            with gr.Accordion(t("all_scores"), open=False) as all_scores:
                gr.Markdown(t("all_scores_info"))
                scores = gr.Markdown(elem_id="scores")
            losses = gr.Image(label=t("losses"), type="filepath", interactive=False, height=420)
            card = gr.Markdown(elem_id="card")

    controls = [
        code_group,
        fix_codes,
        step_group,
        scheduler,
        steps,
        condition_group,
        *questions,
        wall,
        guidance,
    ]
    controls += [mask_group, overlay, quick, slow, masks, latent_group, no_latents]
    downloads = [png, nifti, masks]
    leftovers = [gallery, taken, made, *downloads, path, likest]
    facts = [no_dataset, copy_group, *asked, *answers, no_report, all_scores, scores, losses, card]
    _start_with(controls, handlers.controls(first))
    page = {"inputs": model, "outputs": [*controls, *facts, *leftovers]}
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    # Nothing can be asked until the page is that of the model: what is described late would clear what is drawn.
    model.change(None, None, [model, quick, slow], js=WAIT, api_visibility="private")
    described = model.change(handlers.describe, **page, **quiet)
    opened = gr.context.Context.root_block.load(handlers.open, **page, **quiet)
    for shown in (opened, described):
        shown.then(lambda: gr.update(interactive=True), None, model, **quiet)
    dice.click(lambda: random.randrange(2**31), None, seed, api_visibility="private", show_progress="hidden")

    shape = [fix_codes, category, code_1, code_2]
    group, *others_asked = questions
    quick_inputs = [model, num_images, seed, group, *shape, *others_asked, wall]
    files = {"fn": handlers.archive, "inputs": made, "outputs": downloads, "show_progress": "hidden"}
    ready = {"fn": lambda: [gr.update(interactive=True)] * 3, "outputs": downloads, "api_visibility": "private"}
    quick.click(
        handlers.generate,
        [*quick_inputs, overlay],
        [gallery, taken, made],
        api_name="generate",
        api_visibility=visibility,
        concurrency_limit=4,
    ).then(**files, api_name="archive", api_visibility=visibility).then(**ready)
    slow.click(lambda: gr.Gallery(selected_index=None), None, gallery, api_visibility="private").then(
        handlers.denoise,
        [model, num_images, seed, scheduler, steps, *questions, guidance, overlay, wall],
        [gallery, taken, made],
        api_name="denoise",
        api_visibility=visibility,
        concurrency_limit=1,
        concurrency_id=SLOW,
        show_progress_on=taken,  # not on the images, which are to be seen on their way
    ).then(**files, api_visibility="private").then(**ready)
    overlay.input(handlers.show, [made, overlay], gallery, api_visibility="private", show_progress="hidden")
    interpolate.click(
        handlers.interpolate,
        [*quick_inputs, other_seed],
        path,
        api_name="interpolate",
        api_visibility=visibility,
        concurrency_limit=4,
    )
    compare.click(
        handlers.compare,
        [seed, *others],
        [grids, compared],
        api_name="compare",
        api_visibility=visibility,
        concurrency_limit=1,
        concurrency_id=SLOW,
        show_progress_on=compared,
    )
    gallery.select(_index, None, chosen, api_visibility="private", show_progress="hidden").then(
        handlers.nearest,
        [made, chosen],
        [likest, correlation, rank, threshold, distribution],
        api_name="nearest",
        api_visibility=visibility,
        show_progress_on=likest,
    )


def _steps(scheduler: str | None, steps: int | None, *infos: gr.i18n.I18nData) -> tuple[gr.Dropdown, gr.Number]:
    """Controls of how a diffusion model takes the noise off."""
    return (
        gr.Dropdown(scheduler_names(), value=scheduler, label=t("scheduler"), info=infos[0], min_width=240),
        gr.Number(steps, minimum=0, maximum=MOST_STEPS, step=1, precision=0, label=t("steps"), info=infos[1]),
    )


def _start_with(controls: Sequence[gr.blocks.Block], updates: Sequence[Mapping]) -> None:
    """Show the controls of the first generator alone; a visitor may be quicker than the page's load event.

    Their values stay, as they are the defaults of the API, where null is each model's own.
    """
    for control, update in zip(controls, updates, strict=True):
        control.visible = update.get("visible", control.visible)


def _index(event: gr.SelectData) -> int:
    return event.index


def main(
    models: Path | None = None,
    dataset: str | None = None,
    reports: Path | None = None,
    mcp: bool = False,
    server_port: int | None = None,
) -> None:
    """The generators in the browser.

    Args:
        models: a training run, or a folder of runs; by default the repositories of the Hub that HCM_MODELS names, or
            `models.json` beside the app, or the page's front matter.
        dataset: folder or repository of the slices that they were trained on, which every visitor may then see; by
            default those that a model names and anybody may read on the Hub, and synthetic ones of local runs.
        reports: folder with score.py's reports on local runs.
        mcp: also be an MCP server, for agents (needs gradio[mcp]).
        server_port: by default the first that is free from 7860.
    """
    if models is not None and not models.exists():
        raise InputError(f"--models {models} does not exist; name a training run or a folder of runs.")
    if reports is not None and not reports.is_dir():
        raise InputError(f"--reports {reports} does not exist; name a folder with score.py's reports.")
    if dataset is not None and parse_repository(dataset) is None and not Path(dataset).is_dir():
        raise InputError(f"--dataset {dataset} does not exist; name a prepared dataset, or user/name on the Hub.")
    mcp = mcp or os.environ.get("GRADIO_MCP_SERVER", "").lower() in ("1", "true")
    front = yaml.safe_load((Path(__file__).parent / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    of_space = served_models(Path(__file__).parent) or front.get("models") or []
    named = split_names(os.environ.get("HCM_MODELS", "")) or of_space
    generators, problems = find_generators(models if models is not None else named, reports)
    for sentence in problems:
        print(sentence, file=sys.stderr)
    demo = build_demo(generators, problems, dataset, for_agents=mcp)
    Thread(target=keep_tidy, daemon=True).start()
    demo.launch(server_port=server_port, mcp_server=mcp, i18n=t, css=CSS, footer_links=["api", "settings"])


if __name__ == "__main__":
    run(main)
