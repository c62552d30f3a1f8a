"""A report for reading: what `evaluation.py` found, as Markdown, and what each number means."""

import json
import math
import re
from fnmatch import fnmatch
from pathlib import Path

from hcm_hf.metrics.protocols import RESAMPLES
from hcm_hf.pipelines.saved import read_json
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_text


FEW_PATIENTS = 5
REPORT_FILE = "report.json"
_COUNTS = ("n_generated", *(f"n_{name}{of}" for name in ("train", "heldout", "seen") for of in ("", "_patients")))
_WORD = re.compile(r"[\w+.-]{1,64}")

DEFINITIONS = {
    "images": "floats in [0, 1]",
    "ssim": "structural similarity: Gaussian window 11x11, sigma 1.5, K = (.01, .03), data_range 1.0, mean over "
    "the valid interior; higher is more alike",
    "cc": "Pearson correlation of two images; higher is more alike",
    "mse": "mean squared error; lower is more alike",
    "cc_max_shift": "largest Pearson correlation of the overlap over whole-pixel shifts of at most an eighth of the "
    "image in each direction; higher is more alike",
    "spectrum_distance": "mean absolute difference of the mean log radial power spectra; lower is closer; it sees "
    "blur and noise, to which the encoder is nearly blind",
    "brightness_outliers": "share of images whose mean is below the 1st or above the 99th percentile of those of the "
    "held-out slices: washed out or black; lower is better",
    "fd": "squared Frechet distance of Gaussians on the first 32 principal components of the held-out slices' "
    "features, whose variance there is 1 on average; the mean over 20 draws of equally many slices; lower is "
    "closer. It is no FID: _acdc are features of the encoder, and numbers of other encoders do not compare",
    "relative_fd": "fd over that of the training slices: 1 is what other real patients score",
    "kid": "unbiased kernel distance (cubic kernel) of the same components, over all images; lower is closer, 0 for "
    "equal distributions",
    "precision": "share of images within the fifth-neighbour balls of held-out slices: fidelity; higher is better",
    "recall": "share of held-out slices within the balls of images: diversity; higher is better",
    "density": "number of held-out balls around an image, over 5; about 1 for real data",
    "coverage": "share of held-out balls with an image in them; higher is better; the four, like fd, as the mean over "
    "20 draws of equally many slices, with the interval of the first draw",
    "copy_rate": "share of images whose best correlation with a training slice exceeds that of 99 % of held-out "
    "slices: about .01 without copying (of n held-out slices, where n is below 99, 1 / (n + 1)), 1 copies",
    "nearest_neighbour_ratio": "median distance to the nearest training slice, over that of held-out slices, in "
    "pixels of mean 0 and length 1: about 1 is healthy, 0 copies",
    "c_t": "Meehan et al. 2020, a Z statistic of the same distances at equal numbers (n_each): far below 0 copies, "
    "far above 0 lies farther off than real patients; the interval of the real row is over halves of the patients",
    "authenticity": "Alaa et al. 2022: share of images that lie farther from their nearest training slice than that "
    "one from those of other patients; 0 copies; the interval is over training patients",
    "wall_thickness": "mean over slices of the greatest radial wall thickness, mm; ed at end diastole, es at end "
    "systole, by the phase that the encoder sees (true_masks: the true one)",
    "thick_share": "of the slices in that phase in which a left cavity and a wall are found (n of them), the share "
    "with a wall of 15 mm or more, the criterion of HCM at end diastole",
    "area": "of right cavity (rv), myocardium and left cavity (lv), mean, mm^2",
    "valid_topology": "share of slices with one left cavity in one closed ring of myocardium; the real row says how "
    "many end slices have none",
    "ed_share": "share of slices that the encoder takes for end diastole (true_masks: that are)",
    "group_share": "share of slices that the encoder takes for the groups compared with, rather than for the others",
    "mask_dice": "of the segmentations generated with the images and the encoder's of the same images, over the "
    "pixels of all slices at once; real: of the true segmentations and the encoder's; higher is more alike",
    "mask_valid_topology": "valid_topology of the segmentations themselves",
    "mask_empty": "share of segmentations with neither cavity nor myocardium",
    "asked_group_share": "of the slices asked to show the group (real: that are of it), the share in which the "
    "encoder finds no other group more likely; chance is .2",
    "mask_wall_thickness": "wall_thickness of the segmentations themselves, mm; of the group and phase asked for, in "
    "which n slices have a cavity and a wall",
    "mask_thick_share": "share of the same slices with a wall of 15 mm or more",
    "seen_thick_share": "the same share by the encoder's segmentation of the images, of the group and phase asked for "
    "(real: the true ones), not of the phase that the encoder sees",
    "mask_wall_distance": "1-Wasserstein distance of the same thickness to that of the true segmentations of held-out "
    "slices of the group and phase, mm: how far walls must be moved on average; lower is closer; real: of the "
    "training slices, which is what other patients score",
    "membership_auc": "how well the diffusion model's denoising error tells training patients from held-out ones: .5 "
    "not at all, 1 always; the row untrained is the same network with fresh weights",
    "dice": "of the encoder's segmentation and the true one, by patient and phase, held-out patients of all groups; "
    "higher is better",
    "auc": "area under the ROC curve of the encoder's odds for the groups compared with against the rest, by slice "
    "and by patient; held-out patients; higher is better",
    "direction": "no number of SSIM, CC and MSE is better for being higher or lower: compare it with the row 'real'",
    "interval": f"low and high: 95 % by bootstrap over the patients of the real reference, {RESAMPLES} times (anatomy "
    "and segmentations, but not distances: over the row's own patients, and over images in the rows generated and "
    "mean_image; authenticity: over training patients; membership: over both); shifted by the bootstrap's own bias, "
    "since a resample misses a third of the patients among which to find a match",
}
PROTOCOLS = {
    "random": "each offered image against {real_per_image} random held-out slices, or all where they are fewer (a "
    "single image: against all)",
    "matched": "the same, of held-out slices of the phase and the third of the heart that the encoder sees in it; "
    "of those that were asked for where generated images were asked for both (real: of the true ones)",
    "best_train": "each offered image against the most alike of {n_reference} random training slices",
    "best_heldout": "each offered image against the most alike of {n_reference} random held-out slices",
    "copy_gap": "how much nearer the most alike training slice is than the most alike held-out one (best_train less "
    "best_heldout; for MSE the reverse): about 0 for images that owe no more to the training patients than to others, "
    "positive for copies",
}
MEAN_IMAGES = (
    "*mean_image*: the pixel-wise mean of the training slices, as often as there are held-out slices, each time "
    "shifted by up to 3 pixels and up to 10 % brighter or darker"
)
ROWS = {
    "similarity": "*generated*: generated images; *real*: real held-out slices, offered as though generated; compared "
    "with slices of other patients only, and with as many training slices as held-out ones; *mean_image*: the "
    "pixel-wise mean of the training slices, offered as though generated",
    "appearance": f"against the held-out slices. *real*: the training slices, which a perfect copier would offer; "
    f"{MEAN_IMAGES}",
    "features": "against the held-out slices. *real*: the training slices, which a perfect copier would offer, and "
    "which the encoder has learnt from, so that to its features they lie farther from new patients than patients "
    f"do; {MEAN_IMAGES}",
    "memorization": "against the {n_seen} slices of {n_seen_patients} patients ({seen}) {learnt}. *real*: each "
    f"held-out patient in turn, against the others (C_T: halves of the patients); {MEAN_IMAGES}",
    "anatomy": "*real*: held-out slices, segmented by the encoder like the generated ones; *true_masks*: the same "
    "slices with their true segmentation, where they have one, so that its difference from *real* is the encoder's "
    f"error; *training*: the training slices, segmented, which the encoder has learnt from; {MEAN_IMAGES}",
    "masks": "*generated*: the segmentations that were generated with the images; *real*: held-out slices of the "
    "groups ({asked}), phases and thirds of the heart that were asked for, with their true segmentations. Thirds that "
    "are left open are drawn as they are met in training",
    "membership": "*generated*: the model that made the images",
}
LEARNT = "that the generator has been trained on"
LEARNT_UNKNOWN = "that are taken for what the generator has been trained on; its images do not say it"
LIMITS = (
    "What these numbers can and cannot show. Correctly computed, slices of two different real patients score an SSIM "
    "of only about .1 to .3, so a generator should come near the row 'real', not near 1. CC and MSE reward blur and "
    "mode collapse: one constant mean image beats real patients, so neither may choose a checkpoint. SSIM of .9 and "
    "more needs near-copies of training slices, a paired protocol, or a wrong data_range. None of the three sees the "
    "disease: healthy hearts offered as HCM score the same. Distances of distributions do see it, but a copier scores "
    "perfectly on them, and blur hardly counts: read them with the copy rate and the spectrum distance."
)
ARTEFACT = (
    "ARTEFACT, not a result: images in [-1, 1] scored by SSIM with data_range 255. The constants of SSIM then "
    "outweigh the images, and any two of them look alike, real patients too."
)
GLANCE = (
    *("ssim_random", "ssim_copy_gap", "spectrum_distance", "relative_fd_acdc", "kid_acdc", "coverage_acdc"),
    *("copy_rate", "thick_share_ed", "valid_topology"),
    *("mask_dice_myocardium", "mask_valid_topology", "mask_thick_share_hcm_ed", "mask_wall_distance_hcm_ed"),
)
DIGITS = {"mse": 4, "wall": 1, "rv": 0, "myocardium": 0, "lv": 0, "fd": 1, "relative": 2}  # by how a name begins
DIGITS |= {"mask_wall_thickness": 1, "mask_wall_distance": 2}
COUNTED = (
    "segmented",
    "asked",
    "measured",
)  # protocols whose numbers are of different slices: with a count
FIGURES = {  # by part: a pattern of the files and what they show
    "appearance": {"spectra.png": "power spectra; the band is 80 % of held-out slices"},
    "features": {"precision_recall_*.png": "precision and recall of the distributions (Sajjadi et al. 2018)"},
    "memorization": {"closest_pairs.png": "the images most like a training slice, above that slice"},
    "anatomy": {"thickness.png": "wall thickness by phase"},
    "masks": {"mask_thickness_*.png": "wall thickness of the segmentations by phase, one for each group asked for"},
}


def read_report(path: str | Path) -> dict:
    """Read a report that `write_report` has written, and check what others rely on.

    Args:
        path: its `report.json`, or the folder of it.

    Raises:
        InputError: if it is missing, damaged, or no report; names the file.
    """
    path = Path(path) / REPORT_FILE if Path(path).is_dir() else Path(path)
    report = read_json(path)
    rows, parts = report.get("rows"), report.get("parts")
    good = (
        all(isinstance(report.get(name), dict) for name in ("generator", "dataset", "left_out"))
        and all(isinstance(report.get(name), int) and report[name] >= 0 for name in _COUNTS)
        and isinstance(report.get("encoder"), dict | None)
        and isinstance(rows, dict)
        and "generated" in rows
        and all(_WORD.fullmatch(label) and isinstance(row, dict) for label, row in rows.items())
        and all(_is_number(name, number) for row in rows.values() for name, number in row.items())
        and isinstance(parts, dict)
        and all(isinstance(names, list) and set(names) <= set(rows["generated"]) for names in parts.values())
        and all(isinstance(report["dataset"].get(name), str) for name in ("name", "fingerprint", "split"))
        and _are_words(report["dataset"].get("groups"))
        and _are_words(report.get("seen_groups"))
    )
    if not good:
        raise InputError(f"{path} is no report of scripts/score.py, or damaged; write one anew.")
    return report


def _is_number(name: object, number: object) -> bool:
    """Whether this is what `metrics.protocols.number` makes, with finite values in order, or none."""
    if not isinstance(number, dict) or not _WORD.fullmatch(name) or not _WORD.fullmatch(str(number.get("protocol"))):
        return False
    values = [number.get(key) for key in ("low", "value", "high")]
    known = [value for value in values if value is not None]
    counts = [value for key, value in number.items() if key.startswith("n_")]
    return all(isinstance(one, int | float) and math.isfinite(one) for one in known + counts)


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and _WORD.fullmatch(one) for one in value)


def write_report(report: dict, output_dir: str | Path) -> None:
    """Write `report.json` and `report.md` into a folder."""
    write_text(Path(output_dir) / REPORT_FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_text(Path(output_dir) / "report.md", render_markdown(report))


def render_markdown(report: dict) -> str:
    """The report for reading: what counts first, then a section for each part."""
    data, source = report["dataset"], report["generator"]
    model, details = source.get("model", "images"), [f"class {name}" for name in source.get("classes", [])]
    if source.get("scheduler"):
        details.append(f"{source['scheduler']}, {source['num_inference_steps']} steps")
    if source.get("guidance_scale", 1) != 1:
        details[-1] += f", guidance {source['guidance_scale']:g}"
    if "mixed_precision" in source:
        details.append(_precision(source))
    lines = [
        f"# {model} against {data['name'] or 'the dataset'}, split {data['split']}, {', '.join(data['groups'])}",
        f"{report['n_generated']} generated images of {data['resolution']} px"
        f"{''.join(f' ({text})' for text in details)}; {report['n_train']} training slices of "
        f"{report['n_train_patients']} patients; {report['n_heldout']} held-out slices of "
        f"{report['n_heldout_patients']} patients. In brackets: 95 % interval over the reference's patients, or what "
        "Definitions says of it.",
        *_warnings(report),
        "## At a glance",
        transposed_table(report["rows"], [name for name in GLANCE if name in report["rows"]["generated"]]),
        "What is offered as *real* and as *mean_image* differs from part to part; each section says it under Rows.",
    ]
    if "speed" in report:
        speed = report["speed"]
        lines.append(
            f"{brief(speed['seconds_per_1000_images'])} s per 1,000 images, {speed['network_calls']} network call(s) "
            f"each, by {circumstances(speed)}."
        )
    lines += [f"Left out: {reason}" for reason in report["left_out"].values()]
    for part, names in report["parts"].items():
        title = part.capitalize()
        asked = ", ".join(report.get("asked_groups", [])) or "any"
        learnt = LEARNT_UNKNOWN if report.get("seen_groups_assumed") else LEARNT
        rows = ROWS[part].format(**report, seen=" ".join(report["seen_groups"]), asked=asked, learnt=learnt)
        lines += [f"## {title}", f"Rows: {rows}."]
        if part == "similarity":
            lines += _by_protocol(report["rows"], names, report) + [LIMITS]
        else:
            lines.append(transposed_table(report["rows"], names))
        for figure in report.get("figures", {}).get(part, []):
            caption = next(text for pattern, text in FIGURES[part].items() if fnmatch(figure, pattern))
            lines.append(f"Figure {figure}: {caption}.")
    if report["encoder"]:
        encoder = report["encoder"]
        lines += [
            "## Encoder",
            f"{encoder['source']}, hash {encoder['hash']}, trained by hcm_hf {encoder['version']}; on the held-out "
            "patients of all groups:",
            transposed_table({"encoder": encoder["quality"]}, list(encoder["quality"])),
        ]
    if "paper_compat_artefact" in report:
        artefact = report["paper_compat_artefact"]["rows"]
        names = list(artefact["generated"])
        lines += ["## paper_compat", f"**{ARTEFACT}**", *_by_protocol(artefact, names, report, "artefact: ")]
    lines += ["## Definitions", "\n".join(f"- {name}: {text}." for name, text in report["definitions"].items())]
    lines.append(f"hcm_hf {report['hcm_hf_version']}, dataset {data['fingerprint']}, seed {report['seed']}.")
    return "\n\n".join(lines) + "\n"


def circumstances(speed: dict) -> str:
    """What the speed of a report was measured on."""
    return (
        f"one batch of {speed['batch_size']} on {speed['device']} with {speed['threads']} thread(s), "
        f"{_precision(speed)}"
    )


def _precision(made: dict) -> str:
    return made.get("mixed_precision", "no").replace("no", "fp32")


def _warnings(report: dict) -> list[str]:
    lines, data = [], report["dataset"]
    if report["n_heldout_patients"] < FEW_PATIENTS:
        lines.append(
            f"**Warning: only {report['n_heldout_patients']} held-out patients; patients, not slices, are the sample "
            "size, so neither the numbers nor their intervals can be relied on.**"
        )
    classes = report.get("asked_groups") or report["generator"].get("classes", [])
    if set(classes) - set(data["groups"]):
        groups = ", ".join(data["groups"])
        lines.append(f"**Warning: images of class {', '.join(classes)} are compared with slices of {groups}.**")
    return lines


def _by_protocol(rows: dict[str, dict], names: list[str], report: dict, prefix: str = "") -> list[str]:
    blocks = []
    for protocol, sentence in PROTOCOLS.items():
        chosen = [name for name in names if rows["generated"][name]["protocol"] == protocol]
        table = [["row", *(prefix + name for name in chosen)]]
        table += [
            [label, *(cell(row.get(name), name) for name in chosen)]
            for label, row in rows.items()
            if any(name in row for name in chosen)
        ]
        if chosen:
            blocks += [f"**{protocol}**: {sentence.format_map(report)}.", markdown_table(table)]
    return blocks


def transposed_table(rows: dict[str, dict], names: list[str]) -> str:
    """A Markdown table with a line for each name and a column for each of the report's rows that has it."""
    labels = [label for label, row in rows.items() if any(name in row for name in names)]
    lines = [[name, *(cell(rows[label].get(name), name) for label in labels)] for name in names]
    return markdown_table([["", *labels], *lines])


def markdown_table(table: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def brief(seconds: float) -> str:
    """Seconds in three digits or more, never as a power of ten."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def cell(number: dict | None, name: str) -> str:
    """A number with its interval, in as many digits as its kind deserves."""
    if number is None:
        return ""
    if number["value"] is None:
        return "too few"
    digits = next((digits for start, digits in DIGITS.items() if name.startswith(start)), 3)
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    counted = f", n = {number['n_generated']}" if number["protocol"] in COUNTED else ""
    return f"{value} [{low}, {high}]{counted}"
