"""The tables of a reproduction: the study's Table 1 beside ours."""

import json
from collections.abc import Mapping, Sequence

from hcm_hf.evaluation.report import Report, Rows, Speed, precision_name
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.evaluation.typed import plain, read_typed
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.version import __version__


# SSIM, CC and MSE of the study's Table 1; InfoGAN has no row there.
STUDY = {
    "vae": (0.903, 0.8421, 0.39),
    "gan": (0.941, 0.8821, 0.10),
    "dcgan": (0.958, 0.9204, 0.10),
    "acgan": (0.969, 0.9371, 0.09),
    "ddpm": (0.972, 0.9403, 0.06),
}
# Columns of our tables, by the names of the reports.
SIMILARITY = (
    *("ssim_random", "cc_random", "mse_random", "ssim_best_train", "cc_best_train", "mse_best_train"),
    *("ssim_copy_gap", "cc_copy_gap"),
)
BEYOND = (
    *("c2st_auc", "kid_imagenet", "patient_recall", "noise_level", "edge_kurtosis"),
    *("kid_acdc", "relative_fd_acdc", "precision_acdc", "coverage_acdc", "spectrum_distance"),
    *("brightness_outliers", "copy_rate", "thick_share_ed", "valid_topology", "membership_auc"),
)
HEADLINE = (  # on patients of the target group and on those of all groups, side by side
    *("c2st_auc", "kid_imagenet", "patient_recall"),
    *("kid_acdc", "relative_fd_acdc", "coverage_acdc", "spectrum_distance", "copy_rate", "ssim_copy_gap"),
    "valid_topology",
)
COMPAT = "ssim_random"
REAL, MEAN_IMAGE = "**real patients**", "the mean training image"
ENCODER = ("hash", "version", "quality")
SAMPLER = ("scheduler", "num_inference_steps", "classes")
COUNTS = ("n_train", "n_train_patients", "n_heldout", "n_heldout_patients", "n_reference")
READING = (
    "Read every column against the row of real patients: higher is not better. *random*: each image against random "
    "held-out slices; *best train*: against the most alike of as many training slices; *copy gap*: how much nearer "
    "the most alike training slice is than the most alike held-out one, above the real row where a generator copies. "
    "The study does not say which images it compared, nor in which range. The column *artefact* is no result: it is "
    "what SSIM gives for images in [-1, 1] with a data range of 255, for real patients too."
)
REAL_ROW = (
    "The row of real patients offers the training slices, which a perfect copier would match, for the distances to "
    "the held-out slices (kid, relative_fd, precision, coverage, spectrum_distance, brightness_outliers), and "
    "held-out slices for the others. What each number means, and its counts, is in the report.md of each family."
)


BOTH = (
    "A model that can be asked for a group is scored twice: its images of {0} against the held-out {0} patients, and "
    "images of all groups, as it met them, against the held-out patients of all groups. The others have learnt {0} "
    "alone. Read each row against the real patients of the same groups: with other patients to compare with the "
    "numbers are others."
)


def summarize(
    settings: dict,
    reports: Mapping[str, Report],
    trainings: Mapping[str, dict],
    encoder: Mapping[str, dict],
    on_all: Mapping[str, Report] | None = None,
) -> dict:
    """Everything that the tables show, with each number as it stands in its report.

    Args:
        settings: of the reproduction.
        reports: of `score` with `paper_compat` and an encoder, by family; one or more.
        trainings: the facts of each family's `Training`.
        encoder: those of the encoder's networks, `features` and `segmenter`.
        on_all: of `score`, by family, on images and patients of all groups where a model can be asked for them.
    """
    first = next(iter(reports.values()))
    families = {
        family: {
            "study": dict(zip(("ssim", "cc", "mse"), STUDY[family], strict=True)) if family in STUDY else None,
            **_row(report, "generated"),
            "n_generated": report.n_generated,
            "sampler": {name: vars(report.generator)[name] for name in SAMPLER},
            "speed": report.speed,
            "left_out": report.left_out,
            "training": trainings[family],
        }
        for family, report in reports.items()
    }
    summary = {
        "hcm_hf_version": __version__,
        "settings": settings,
        "dataset": plain(first.dataset) | {name: vars(first)[name] for name in COUNTS},
        "encoder": {
            name: {key: vars(one)[key] for key in ENCODER} | {"training": encoder[name]}
            for name, one in (("features", first.encoder), ("segmenter", first.segmenter))
        },
        "families": families,
        "rows": {row: _row(first, row) for row in ("real", "mean_image")},
        "without_report": [family for family in FAMILIES if family not in reports],
        "by_groups": [
            *(_of_groups(family, one) for family in reports for one in (reports[family], *_of(family, on_all))),
            *(_of_groups(REAL, one, "real") for one in (first, *list((on_all or {}).values())[:1])),
        ],
    }
    return json.loads(json.dumps(plain(summary)))  # as it will be read back


def _of(family: str, reports: Mapping[str, Report] | None) -> list[Report]:
    """The report of a family, if there is one."""
    return [reports[family]] if reports and family in reports else []


def _of_groups(label: str, report: Report, row: str = "generated") -> dict:
    numbers = report.rows[row]
    return {
        "label": label,
        "groups": report.dataset.groups,
        **{name: vars(report)[name] for name in ("n_generated", "n_heldout", "n_heldout_patients")},
        "numbers": {name: numbers[name] for name in HEADLINE if name in numbers},
    }


def _row(report: Report, row: str) -> dict:
    numbers = report.rows[row]
    return {
        "numbers": {name: numbers[name] for name in (*SIMILARITY, *BEYOND) if name in numbers},
        "artefact": report.paper_compat_artefact and report.paper_compat_artefact.rows.get(row, {}).get(COMPAT),
    }


def render_tables(summary: dict) -> str:
    """The tables for reading, as Markdown."""
    families, rows, data = summary["families"], summary["rows"], summary["dataset"]
    settings, encoder = summary["settings"], summary["encoder"]
    offered = families | {REAL: rows["real"], MEAN_IMAGE: rows["mean_image"]}
    numbers: Rows = {label: read_typed(dict[str, Number], row["numbers"]) for label, row in offered.items()}
    lines = []
    for label, row in offered.items():
        artefact = cell(read_typed(Number | None, row["artefact"]), COMPAT)
        lines.append([label, _study(row), *_cells(numbers[label], SIMILARITY), artefact])
    head = ["", "the study: SSIM / CC / MSE", *map(_title, SIMILARITY), "artefact: SSIM random, wrong data range"]
    blocks = [
        f"# The study's Table 1 and ours: {settings['source']}, {settings['resolution']} px, recipe "
        f"{settings['recipe']}",
        "In brackets: 95 % interval by bootstrap over the patients of the reference (anatomy of generated images: "
        "over images).",
        *("## SSIM, CC and MSE", markdown_table(head, lines), READING),
    ]
    beyond = [name for name in BEYOND if any(name in numbers[family] for family in families)]
    lines = [[label, *_cells(row, beyond)] for label, row in numbers.items() if label != MEAN_IMAGE]
    blocks += ["## What these three do not see", markdown_table(["", *beyond], lines), REAL_ROW]
    if len({tuple(row["groups"]) for row in summary["by_groups"]}) > 1:
        target = settings["target_group"]
        title = f"## {target} patients and patients of all groups"
        blocks += [title, _groups_table(summary["by_groups"]), BOTH.format(target)]
    blocks += sorted({f"Left out: {reason}" for row in families.values() for reason in row["left_out"].values()})
    blocks += ["## Training", _training_table(families | encoder)]
    cut = [
        f"{name} after {facts['num_epochs']} of {facts['recipe_epochs']}"
        for name, row in (families | encoder).items()
        if (facts := row["training"])["num_epochs"] < facts["recipe_epochs"]
    ]
    if cut:
        blocks.append(f"**Cut short by --num_epochs: {', '.join(cut)} epochs.**")
    if summary["without_report"]:
        blocks.append(f"Without a report yet, and so left out: {', '.join(summary['without_report'])}.")
    counts = sorted({row["n_generated"] for row in families.values()})
    blocks.append(
        f"Dataset {settings['source']}, fingerprint {data['fingerprint']}, {', '.join(data['groups'])}: "
        f"{data['n_train']} training slices of {data['n_train_patients']} patients, {data['n_heldout']} held-out "
        f"slices (split {data['split']}) of {data['n_heldout_patients']} patients, {data['n_reference']} of each for "
        f"best train and copy gap; {' or '.join(map(str, counts))} generated images of each family. "
        f"Seed {settings['seed']}. Feature encoder {encoder['features']['hash']}, "
        f"segmenter {encoder['segmenter']['hash']}. Recipe {settings['recipe']}. "
        f"hcm_hf {summary['hcm_hf_version']}."
    )
    return "\n\n".join(blocks) + "\n"


def _groups_table(rows: list[dict]) -> str:
    lines = [
        [row["label"], " ".join(row["groups"]), str(row["n_heldout_patients"])]
        + _cells(read_typed(dict[str, Number], row["numbers"]), HEADLINE)
        for row in rows
    ]
    return markdown_table(["", "groups", "held-out patients", *HEADLINE], lines)


def _cells(row: Mapping[str, Number], names: Sequence[str]) -> list[str]:
    return [cell(row.get(name), name) for name in names]


def _title(name: str) -> str:
    metric, _, protocol = name.partition("_")
    return f"{metric.upper()} {protocol.replace('_', ' ')}"


def _study(row: dict) -> str:
    if "study" not in row:
        return ""
    return "{ssim:.3f} / {cc:.4f} / {mse:.2f}".format_map(row["study"]) if row["study"] else "no row in the study"


def _training_table(trained: dict) -> str:
    head = "parameters, groups, precision, steps, best at step, validation loss, seconds"
    head += ", images, sampler, calls of the network, seconds per 1000 images"
    columns, lines = ["", *head.split(", ")], []
    for label, row in trained.items():
        facts = row["training"]
        line = [
            ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in facts["parameters"].items()),
            " ".join(facts["groups"]),
            precision_name(facts["mixed_precision"]),
            str(facts["steps"]),
            str(facts["best_step"]),
            f"{facts['validation_loss']:.5g}",
            f"{facts['seconds']:.0f}",
        ]
        if "sampler" in row:
            speed = read_typed(Speed, row["speed"])
            line += [str(row["n_generated"]), row["sampler"]["scheduler"] or ""]
            line += [str(speed.network_calls), f"{speed.seconds()} ({speed.circumstances()})"]
        lines.append([label, *line, *[""] * (len(columns) - 1 - len(line))])
    return markdown_table(columns, lines)
