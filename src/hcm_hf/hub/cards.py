"""Model and dataset cards: what a run, a report and a prepared dataset say of themselves, as the Hub shows it."""

import html
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import jinja2
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from hcm_hf.data.cohort import PHASES
from hcm_hf.data.identity import count_patients
from hcm_hf.data.preparation import LICENSES
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.definitions import DEFINITIONS, GLANCE, PROTOCOLS
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.tables import markdown_table, number_table
from hcm_hf.utils.citations import ACDC_CITATION
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import read_name
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.version import INSTALL, SOURCE_URL


TASK = "unconditional-image-generation"
DISEASE = "hypertrophic-cardiomyopathy"
SYNTHETIC = "synthetic-data"
_SIZES = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", math.inf: "n>1M"}  # rows
TAGS = ("cardiac-mri", "medical-imaging", DISEASE, SYNTHETIC, "hcm_hf")
LOSSES, SAMPLES = "losses.png", "samples.png"
TEMPLATES = Path(__file__).parents[1] / "model_cards"
_METRICS = ("ssim_random", "cc_random", "mse_random", *(name for name in GLANCE if name != "ssim_random"))
# Of training_config.json, in the table of the recipe.
_RECIPE = (
    *("num_epochs", "num_steps", "train_batch_size", "num_processes", "learning_rate", "lr_scheduler"),
    *("adam_betas", "patience", "ema_decay", "mixed_precision", "seed"),
    *("sizes", "objective", "teacher", "teacher_hash", "guide", "guide_hash"),
)


def render_card(
    repo_id: str,
    training: Mapping,
    library_name: str,
    report: Report | None = None,
    figures: Collection[str] = (),
    num_samples: int = 0,
    sampling: str = "",
    axes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The README.md of a model's repository; a pure function.

    Args:
        repo_id: `user/name`, as it shall be loaded.
        training: what the training run wrote of itself, `training_config.json`.
        library_name: "diffusers" for a stock pipeline of it, else "hcm_hf".
        report: the evaluation of this model; without one the card says "not evaluated".
        figures: those of `LOSSES` and `SAMPLES` that lie beside it.
        num_samples: images in `SAMPLES`.
        sampling: how they were made, where that is not the only way.
        axes: what the model can be asked for, the answers by question; it makes masks too. Nothing for the others.
    """
    training = _plain(training)
    if report is not None:
        report = Report.from_json(_plain(report.to_json()))
    family, version = training["family"], training["version"]
    target = training.get("target_group", TARGET_GROUP)
    title, description = describe_family(family, training["recipe"], target, training["groups"])
    source = source_of(training)
    names = [name for name in _METRICS if report and name in report.rows["generated"]]
    remembered = [name for part in ("memorization", "membership") if report for name in report.parts.get(part, ())]
    results = _eval_results(training, report, names, source)
    teacher = read_name(training.get("teacher") or "")
    data = ModelCardData(
        license=LICENSES.get(source) or training.get("dataset_license") or "unknown",
        library_name=library_name,
        pipeline_tag=TASK,
        tags=[tag for tag in (*TAGS, family) if tag != DISEASE or "HCM" in training["groups"]],
        datasets=training.get("dataset_repository"),
        base_model=teacher and teacher[1],
        metrics=names or None,
        model_name=repo_id.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    card = ModelCard.from_template(
        data,
        template_str="---\n{{ card_data }}\n---\n\n" + (TEMPLATES / "template.md").read_text(encoding="utf-8"),
        title=title,
        description=description,
        axes_table=markdown_table(
            ["asks for", "answers"], [[name, ", ".join(answers)] for name, answers in (axes or {}).items()]
        ),
        asked=bool(axes),
        target=target,
        num_patients=count_patients(training["train_patients"]),
        repo_id=repo_id,
        install=INSTALL,
        source_url=SOURCE_URL,
        training=training,
        library_name=library_name,
        source=source,
        pixel_spacing=FIELD_OF_VIEW / training["resolution"],
        has_losses=LOSSES in figures,
        has_samples=SAMPLES in figures,
        num_samples=num_samples,
        sampling=sampling,
        num_slices=training.get("num_train_slices") or (report and report.n_seen),
        recipe_table=_recipe_table(training),
        report=report,
        generated_with="; ".join(report.generator.settings()) if report else "",
        evaluation_table=number_table(report.rows, names) if report and names else "",
        definitions=_protocols(report, names) + define(names),
        memorization_table=number_table(report.rows, remembered) if report and remembered else "",
        memorization_definitions=define(remembered),
        environment=describe_environment(training.get("environment"), version),
        citation=ACDC_CITATION,
    )
    return str(card).rstrip() + "\n"


def render_encoder_card(repo_id: str, notes: Mapping[str, Mapping]) -> str:
    """The README.md of an encoder's repository; a pure function.

    Args:
        repo_id: by which it is loaded.
        notes: what the training of each of its networks wrote of itself, by the network's name.
    """
    notes = _plain(notes)
    first = next(iter(notes.values()))
    license_name = first.get("dataset_license") or "unknown"
    settings = ("num_train_slices", *_RECIPE, "version")
    rows = [["patients", *(str(count_patients(one["train_patients"])) for one in notes.values())]]
    rows += [
        [name, *("" if one.get(name) in (None, {}) else shown(one[name]) for one in notes.values())]
        for name in settings
    ]
    card = ModelCard.from_template(
        ModelCardData(
            license=license_name,
            library_name="hcm_hf",
            pipeline_tag="image-segmentation",
            tags=[tag for tag in TAGS if tag not in (DISEASE, SYNTHETIC)],
        ),
        template_str="---\n{{ card_data }}\n---\n\n" + (TEMPLATES / "encoder.md").read_text(encoding="utf-8"),
        repo_id=repo_id,
        install=INSTALL,
        resolution=first["resolution"],
        table=markdown_table(["setting", *notes], [row for row in rows if any(row[1:])]),
        is_acdc=license_name == LICENSES["acdc"],
        citation=ACDC_CITATION,
    )
    return str(card).rstrip() + "\n"


def source_of(training: Mapping) -> str:
    """Where a model's training slices are from, as in a preparation's report; older notes do not say it."""
    return training.get("dataset_source") or ("synthetic" if training["dataset"] == "synthetic" else "acdc")


def describe_family(family: str, recipe: str, target: str, groups: Sequence[str]) -> tuple[str, str]:
    """A family's title and paragraph, those of the recipe where it has its own: `ddpm-tuned.md` before `ddpm.md`.

    Examples in it name the `target` group, and another one of `groups`: the healthy where they have ACDC's name.
    """
    paths = [TEMPLATES / f"{name}.md" for name in (f"{family}-{recipe}", family)]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise InputError(f"The family '{family}' has no paragraph in model_cards; add {paths[-1].name} there.")
    text = found.read_text(encoding="utf-8")
    title, description = text.removeprefix("# ").split("\n\n", 1)
    others = [group for group in groups if group != target] or [target]
    other = "NOR" if "NOR" in others else others[0]
    return title, jinja2.Template(description).render(target=target, other=other).strip()


def render_dataset_card(repo_id: str, preparation: Mapping, splits: datasets.DatasetDict, files: Mapping) -> str:
    """The README.md of a prepared dataset's repository; a pure function.

    Args:
        repo_id: `user/name`, as it shall be loaded.
        preparation: what `prepare_dataset` wrote of itself, `preparation.json`.
        splits: the dataset.
        files: path in the repository and number of bytes of each split's Parquet file.
    """
    first, preparation = splits["train"], _plain(preparation)
    sizes = {
        name: {"name": name, "num_bytes": files[name][1], "num_examples": len(split)} for name, split in splits.items()
    }
    size = sum(size for _, size in files.values())
    split_infos = datasets.SplitDict.from_split_dict(sizes)
    info = datasets.DatasetInfo(features=first.features, splits=split_infos, download_size=size, dataset_size=size)
    rows = sum(map(len, splits.values()))
    paths = [{"split": name, "path": path} for name, (path, _) in files.items()]
    data = DatasetCardData(
        license=LICENSES[preparation["source"]] or first.info.license or "unknown",
        task_categories=[TASK, "image-segmentation"],
        tags=[tag for tag in TAGS if tag != SYNTHETIC or preparation["source"] in ("synthetic", "generated")],
        pretty_name=f"{'Synthetic short' if preparation['source'] == 'generated' else 'Short'}-axis cine MR slices of "
        f"the heart, {preparation['resolution']} px",
        size_categories=next(name for most, name in _SIZES.items() if rows < most),
        configs=[{"config_name": "default", "data_files": paths}],
    )
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    columns = ("split", "group", "patients", "slices", *PHASES)
    card = DatasetCard.from_template(
        data,
        template_str="---\n{{ card_data }}\n---\n\n" + (TEMPLATES / "dataset.md").read_text(encoding="utf-8"),
        repo_id=repo_id,
        install=INSTALL,
        report=preparation,
        source=preparation["source"],
        generator=preparation.get("generator"),
        license_name=data.license,
        is_acdc=data.license == LICENSES["acdc"],
        groups=sorted({row["group"] for row in preparation["slices"]}),
        slices_table=markdown_table(columns, [[str(row[key]) for key in columns] for row in preparation["slices"]]),
        citation=ACDC_CITATION,
    )
    return str(card).rstrip() + "\n"


def _plain(value: object) -> Any:
    """What a file holds with the text in it as text on one line: no markup of a page comes from there."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return " ".join(html.escape(value, quote=False).split()) if isinstance(value, str) else value


def _eval_results(training: Mapping, report: Report | None, names: list[str], source: str) -> list[EvalResult]:
    """Numbers for the model index, each followed by that of real patients; without one it is left out.

    The index asks for the dataset's id, so without a repository there are none.
    """
    found = report and read_name(report.dataset.name)
    if report is None or not found:
        return []
    called = {"synthetic": "synthetic cohort", "acdc": "ACDC"}.get(source, found[1])
    data, results = report.dataset, []
    for name in names:
        numbers = [report.rows.get(row, {}).get(name) for row in ("generated", "real")]
        pair = [number for number in numbers if number is not None and number.value is not None]
        if len(pair) < len(numbers):
            continue
        for number, suffix, whose in zip(pair, ("", "_real"), ("", ", real patients"), strict=True):
            results.append(
                EvalResult(
                    task_type=TASK,
                    dataset_type=found[1],
                    dataset_name=f"{called}, {', '.join(data.groups)}, {data.resolution} px",
                    dataset_split=data.split,
                    dataset_revision=found[2],
                    metric_type=f"{name}{suffix}",
                    metric_name=f"{name}{whose} (protocol {number.protocol})",
                    metric_value=number.value,
                )
            )
    return results


def define(names: list[str]) -> str:
    """What the numbers mean, for those that are there: a definition's name is the beginning of theirs."""
    chosen = {
        key: text
        for key, text in DEFINITIONS.items()
        if any(name == key or name.startswith(f"{key}_") for name in names)
    }
    return "\n".join(f"- {key}: {text}." for key, text in chosen.items())


def _protocols(report: Report | None, names: list[str]) -> str:
    """Which images meet, for the protocols of these numbers that need saying."""
    used = dict.fromkeys(report.rows["generated"][name].protocol for name in names) if report else ()
    return "".join(f"- _{name}: {PROTOCOLS[name].format_map(vars(report))}.\n" for name in used if name in PROTOCOLS)


def _recipe_table(training: Mapping) -> str:
    lines = [[name, shown(training[name])] for name in _RECIPE if training.get(name) not in (None, {})]
    if progress := training.get("progress"):
        best = progress["best_loss"]
        lines += [
            ["steps, best at step", f"{progress['step']:,}, {progress['best_step']:,}"],
            ["validation loss at best", "none" if best is None else f"{best:.5g}"],
            ["training, validation included", f"{progress['seconds']:,.0f} s"],
        ]
    return markdown_table(["setting", "value"], lines)


def shown(value: object) -> str:
    """Return an entry of a run's notes for reading."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_environment(environment: Mapping | None, version: str) -> str:
    """Return versions and machine of a run, as it noted them, for reading."""
    if environment is None:
        return f"hcm_hf {version}; other versions were not written down."
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    machine = f"{environment['processor']}, {environment['cores']} cores, {environment['torch_threads']} thread(s)"
    if environment["accelerator"] != "cpu":
        machine += f", {environment['accelerator']}"
    return f"hcm_hf {version}, Python {environment['python']}, {packages}. Trained on {machine}."
