"""The methods section of a paper, from what a training run and its report wrote of themselves."""

from pathlib import Path

import jinja2

from hcm_hf.data.identity import count_patients
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.definitions import FEW_PATIENTS, GLANCE
from hcm_hf.evaluation.report import precision_name
from hcm_hf.evaluation.tables import number_table
from hcm_hf.hub.cards import TEMPLATES, define, describe_environment, describe_family, shown, source_of
from hcm_hf.hub.repository import METRICS_FILE, TrainedModel, find_model
from hcm_hf.pipelines.auto import find_pipeline
from hcm_hf.pipelines.notes import without_paths
from hcm_hf.utils.citations import bibtex, cited_in
from hcm_hf.utils.files import require_empty, write_text
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.version import SOURCE_URL


METHODS_FILE, REFERENCES_FILE = "methods.md", "references.bib"
# By the beginning of a number's name: what it is called, and who proposed it.
_MEASURES = {
    "c2st_auc": ("classifier two-sample test on EfficientNet features", ("lopezpaz2017", "tan2019")),
    "kid_imagenet": ("kernel distance on the same features", ("binkowski2018",)),
    "ssim": ("structural similarity", ("wang2004",)),
    "relative_fd": ("Frechet distance", ("heusel2017",)),
    "kid_acdc": ("kernel distance on the encoder's features", ("binkowski2018",)),
    "coverage": ("coverage", ("naeem2020",)),
    "thick_share": ("share of slices with a wall of 15 mm or more", ("ommen2020",)),
}


def methods(model: str, report: Path | None = None, output_dir: Path | None = None) -> str:
    """Write the methods section that a paper needs: data, model, training, sampling, evaluation, software.

    Every fact is read from the notes of the training run and from the report. Papers are cited as [@key], which Pandoc
    and Quarto read; the BibTeX entries of these keys are beside it.

    Args:
        model: folder of a training run or of a packed model, or the name of a trained model.
        report: folder of `score`'s report on this model; by default the one that a packed model holds.
        output_dir: a new or empty folder for `methods.md` and `references.bib`; by default both are only printed.

    Returns:
        The section in Markdown, and the entries.

    Raises:
        InputError: if the model or the report is not there, or they do not belong together.
    """
    folder = find_pipeline(model)
    if report is None and (folder / METRICS_FILE).is_file():
        report = folder / METRICS_FILE
    if output_dir is not None:
        require_empty(output_dir, "output_dir")
    text, keys = render_methods(find_model(folder, report))
    entries = bibtex(keys)
    if output_dir is not None:
        write_text(output_dir / METHODS_FILE, text)
        write_text(output_dir / REFERENCES_FILE, entries)
    return f"{text}\n```bibtex\n{entries}```"


def render_methods(model: TrainedModel) -> tuple[str, list[str]]:
    """The section in Markdown, and the keys of the papers that it cites.

    Args:
        model: the generator with its report, if there is one.
    """
    training, report = model.training, model.report
    keys: list[str] = []

    def cite(*cited: str) -> str:
        keys.extend(cited)
        return f"[{'; '.join(f'@{key}' for key in cited)}]"

    title, description = describe_family(
        training["family"], training["recipe"], training.get("target_group", TARGET_GROUP), training["groups"]
    )
    source = source_of(training)
    pipeline = model.pipeline
    network = pipeline.components[pipeline.network_name]
    names = [name for name in GLANCE if report and name in report.rows["generated"]]
    compared = report.rows if report else {}
    rows = {name: row for name, row in compared.items() if name in ("generated", "real")}
    environment = training.get("environment")
    template = jinja2.Template(
        (TEMPLATES / "methods.md").read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined
    )
    text = template.render(
        cite=cite,
        training=_Notes(without_paths(training)),
        source=source,
        field_of_view=f"{FIELD_OF_VIEW:g}",
        pixel_spacing=FIELD_OF_VIEW / training["resolution"],
        num_slices=training.get("num_train_slices") or (report and report.n_seen),
        num_patients=count_patients(training["train_patients"]),
        title=title,
        papers=cited_in(description),
        source_url=SOURCE_URL,
        num_parameters=sum(one.numel() for one in network.parameters()),
        asked=[*pipeline.conditions.axes, *pipeline.conditions.ranges] if pipeline.makes_masks else [],
        settings="; ".join(f"{name} {shown(training[name])}" for name in ("sizes", "objective") if training.get(name)),
        study=training["recipe"] == "paper",
        precision=precision_name(training.get("mixed_precision")),
        progress=training.get("progress"),
        machine=environment and f"{environment['processor']}, {environment['torch_threads']} CPU thread(s)",
        report=report,
        few=report is not None and report.n_heldout_patients < FEW_PATIENTS,
        made_with="; ".join(report.generator.settings()) if report else "",
        sampled_in=precision_name(report.generator.mixed_precision) if report else "",
        measures="; ".join(
            f"{words} {cite(*cited)}"
            for start, (words, cited) in _MEASURES.items()
            if any(name.startswith(start) for name in names)
        ),
        table=number_table(rows, names),
        definitions=define(names),
        environment=describe_environment(environment, training["version"]),
    )
    return text.rstrip() + "\n", keys


class _Notes(dict):
    """The notes of a run, in which an entry that early runs lack is None."""

    def __missing__(self, key: str) -> None:
        return None
