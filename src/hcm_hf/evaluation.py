"""Generated images and a prepared dataset to one report, as JSON and as Markdown.

The metrics are those of Rayavarapu & Rao (https://doi.org/10.17163/ings.n34.2025.09), with the protocol that decides
which real image a generated one is compared with, and beside every number what other real patients score.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from hcm_hf.data.dataset import check_groups, load_dataset
from hcm_hf.errors import InputError
from hcm_hf.figures import write_grid
from hcm_hf.files import require_empty, write_text
from hcm_hf.generation import MANIFEST_FILE, generate_images
from hcm_hf.metrics.protocols import ARTEFACT_METRICS, METRICS, RESAMPLES, ImageSet, compare_rows
from hcm_hf.version import __version__


FEW_PATIENTS = 5
REPORT_FILE, GRID_FILE = "report.json", "grid.png"
MANIFEST_KEYS = ("file", "seed", "class", "model", "version")

DEFINITIONS = {
    "images": "floats in [0, 1]",
    "ssim": "Gaussian window 11x11, sigma 1.5, K = (.01, .03), data_range 1.0, mean over the valid interior; "
    "higher is more alike",
    "cc": "Pearson correlation of two images; higher is more alike",
    "mse": "mean squared error; lower is more alike",
    "cc_max_shift": "largest Pearson correlation of the overlap over whole-pixel shifts of at most an eighth of the "
    "image in each direction; higher is more alike",
    "direction": "no number is better for being higher or lower: compare it with the row 'real'",
    "interval": f"low and high: 95 % by bootstrap over the patients of the real reference, {RESAMPLES} times; "
    "shifted by the bootstrap's own bias, since a resample misses a third of the patients among which to find a match",
}
PROTOCOLS = {
    "random": "each offered image against {real_per_image} random held-out slices (a single image: against all)",
    "best_train": "each offered image against the most alike of {n_reference} random training slices",
    "best_heldout": "each offered image against the most alike of {n_reference} random held-out slices",
    "copy_gap": "how much nearer the most alike training slice is than the most alike held-out one (best_train less "
    "best_heldout; for MSE the reverse): about 0 for images that owe no more to the training patients than to others, "
    "positive for copies",
}
ROWS = {
    "generated": "generated images",
    "real": "real held-out slices, offered as though generated; compared with slices of other patients only, and "
    "with as many training slices as held-out ones",
    "mean_image": "the pixel-wise mean of the training slices, offered as though generated",
}
LIMITS = (
    "What these numbers can and cannot show. Correctly computed, slices of two different real patients score an SSIM "
    "of only about .1 to .3, so a generator should come near the row 'real', not near 1. CC and MSE reward blur and "
    "mode collapse: one constant mean image beats real patients, so neither may choose a checkpoint. SSIM of .9 and "
    "more needs near-copies of training slices, a paired protocol, or a wrong data_range. None of the three sees the "
    "disease: healthy hearts offered as HCM score the same. Of them only copy_gap says something about a generator, "
    "namely whether it copies."
)
ARTEFACT = (
    "ARTEFACT, not a result: images in [-1, 1] scored by SSIM with data_range 255. The constants of SSIM then "
    "outweigh the images, and any two of them look alike, real patients too."
)


def score(
    output_dir: str | Path,
    images: str | Path | None = None,
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    split: str = "test",
    groups: Sequence[str] = ("HCM",),
    num_images: int = 1000,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    paper_compat: bool = False,
    seed: int = 0,
) -> dict:
    """Score generated images and write `report.json`, `report.md` and `grid.png`.

    Args:
        output_dir: a new folder, or one with a report on the same images, which is written anew.
        images: folder of generated images.
        model: instead of `images`, a model to generate them with, into `images` inside `output_dir`.
        dataset: the prepared dataset that the model was trained on; by default the synthetic cohort.
        split: the held-out split.
        groups: the ACDC groups to compare with.
        num_images: number of images to generate with `model`.
        class_labels: their class, see `generate_images`.
        scheduler: of a diffusion model, see `generate_images`.
        num_inference_steps: of a diffusion model, see `generate_images`.
        paper_compat: see `evaluate_images`.
        seed: of generation, pairs and resamples.

    Returns:
        The report.

    Raises:
        InputError: on bad arguments, data or images; an existing report of other images is left as it was.
    """
    output_dir = Path(output_dir)
    if (images is None) == (model is None):
        raise InputError("Give either --images or --model.")
    sampling = {"class_labels": class_labels, "scheduler": scheduler, "num_inference_steps": num_inference_steps}
    for argument, value in sampling.items():
        if images is not None and value is not None:
            raise InputError(f"--{argument} {value} goes with --model; the images of --images are made already.")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more.")
    splits = load_dataset(dataset)
    real = read_split(splits, split, groups).images
    if not (output_dir / REPORT_FILE).exists() and not (output_dir / "images").exists():
        require_empty(output_dir, "--output_dir")
    if images is None:
        images = generate_images(model, output_dir / "images", num_images, seed=seed, **sampling)
    generated, source = read_images(images)
    if (output_dir / REPORT_FILE).exists():
        before = json.loads((output_dir / REPORT_FILE).read_text(encoding="utf-8"))["generator"]
        if before != source:
            raise InputError(f"{output_dir} holds the report of {before['model']}; name another --output_dir.")
    report = evaluate_images(
        generated,
        splits,
        source=source,
        dataset_name=str(dataset or "synthetic"),
        split=split,
        groups=groups,
        paper_compat=paper_compat,
        seed=seed,
    )
    write_report(report, output_dir)
    write_grid(real, generated, output_dir / GRID_FILE, seed=seed)
    return report


def evaluate_images(
    images: np.ndarray,
    dataset: datasets.DatasetDict,
    *,
    source: dict | None = None,
    dataset_name: str = "",
    split: str = "test",
    groups: Sequence[str] = ("HCM",),
    real_per_image: int = 50,
    paper_compat: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> dict:
    """Compare generated images with the slices of training and of held-out patients.

    Args:
        images: generated images, float (N, H, W) in [0, 1].
        dataset: a prepared dataset; its training split is what the generator was trained on.
        source: what `read_images` found out about the images; copied into the report.
        dataset_name: as it shall stand in the report.
        split: the held-out split.
        groups: the groups whose slices are the reference; frames that are neither ED nor ES are left out.
        real_per_image: real images per generated one in the protocol `random`.
        paper_compat: also score images in [-1, 1] with SSIM's data_range at 255, to show what that gives.
        seed: of the random pairs, subsamples and resamples.
        device: where to compute the metrics.

    Returns:
        The report: counts and definitions, and `rows` of numbers with flat names such as `ssim_random`.
    """
    training, heldout = (read_split(dataset, name, groups) for name in ("train", split))
    shared = sorted(set(training.patients) & set(heldout.patients))
    if shared:
        raise InputError(
            f"Patient {shared[0]} is both in split 'train' and in split '{split}'; prepare the data again."
        )
    if images.ndim != 3 or not len(images) or images.shape[1:] != heldout.images.shape[1:]:
        size = "x".join(map(str, heldout.images.shape[1:]))
        raise InputError(f"images have shape {images.shape}; the dataset's slices ask for (N, H, W) of {size} px.")
    if not 0 <= images.min() <= images.max() <= 1:  # false for NaN too
        raise InputError(f"images hold values from {images.min()} to {images.max()}; expected [0, 1].")
    if real_per_image < 1:
        raise InputError(f"real_per_image is {real_per_image}; compare with at least one.")
    mean_image = training.images.mean(0, keepdims=True, dtype=np.float64)
    offered = {
        "generated": ImageSet(images, np.full(len(images), "")),
        "real": heldout,
        "mean_image": ImageSet(mean_image, np.array([""])),
    }
    report = {
        "hcm_hf_version": __version__,
        "generator": source or {},
        "dataset": {
            "name": dataset_name,
            "fingerprint": _fingerprint(training, heldout),
            "split": split,
            "groups": list(groups),
            "resolution": images.shape[2],
        },
        "seed": seed,
        "real_per_image": real_per_image,
        "n_generated": len(images),
        "n_reference": min(len(training.images), len(heldout.images)),
        "n_train": len(training.images),
        "n_train_patients": len(np.unique(training.patients)),
        "n_heldout": len(heldout.images),
        "n_heldout_patients": len(np.unique(heldout.patients)),
        "definitions": DEFINITIONS,
    }
    signed = {name: offered[name].signed() for name in ("generated", "real")} if paper_compat else {}
    n_offered = sum(len(row.images) for row in (*offered.values(), *signed.values()))
    total = len(METRICS) * n_offered * (report["n_heldout"] + report["n_reference"])
    with tqdm(desc="Pixel metrics", total=total, unit="pair", unit_scale=True) as bar:
        compare = partial(compare_rows, real_per_image=real_per_image, seed=seed, device=device, advance=bar.update)
        report["rows"] = compare(offered, training, heldout, max_shift=images.shape[1] // 8)
        if paper_compat:
            rows = compare(signed, training.signed(), heldout.signed(), metrics=ARTEFACT_METRICS)
            report["paper_compat_artefact"] = {"warning": ARTEFACT, "rows": rows}
    return report


def read_split(dataset: datasets.DatasetDict, split: str, groups: Sequence[str]) -> ImageSet:
    """The ED and ES slices of some groups of patients, in [0, 1]."""
    if split not in dataset:
        raise InputError(f"The dataset has no split '{split}'; choose among {', '.join(dataset)}.")
    features = dataset[split].features
    check_groups(groups)
    codes = {features["group"].str2int(group) for group in groups}
    columns = zip(dataset[split]["group"], dataset[split]["phase"], strict=True)
    kept = [i for i, (group, phase) in enumerate(columns) if group in codes and phase is not None and phase >= 0]
    if not kept:
        raise InputError(f"Split '{split}' has no slices of {', '.join(groups)}; name other groups or another split.")
    rows = dataset[split].select(kept)
    images = np.stack([np.asarray(image, np.float32) for image in rows["image"]]) / 255
    return ImageSet(images, np.array(rows["patient"]))


def read_images(folder: str | Path) -> tuple[np.ndarray, dict]:
    """Read generated images: a folder with `manifest.jsonl`, or of PNG files alone.

    Returns:
        float32 (N, H, W) in [0, 1], and their `model` (without a manifest the folder's name), `model_hash`,
        `version`, `scheduler` and `num_inference_steps` (of a diffusion model), and `classes`.

    Raises:
        InputError: if the folder holds no images, images of several models or sizes, or what cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder of images {folder} does not exist.")
    if (folder / MANIFEST_FILE).is_file():
        entries = _read_manifest(folder / MANIFEST_FILE)
    else:
        entries = [{"file": path.name, "model": folder.resolve().name} for path in sorted(folder.glob("*.png"))]
    if not entries:
        raise InputError(f"{folder} holds no images; generate some there first.")
    source: dict = {"model": None, "model_hash": None, "version": None}
    for key in (*source, "scheduler", "num_inference_steps"):
        values = sorted({entry[key] for entry in entries if entry.get(key) is not None})
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise InputError(f"{folder} holds images of more than one {key} ({listed}); score them apart.")
        if values:
            source[key] = values[0]
    source["classes"] = sorted({str(entry["class"]) for entry in entries if entry.get("class") is not None})
    images = [_read_png(folder / str(entry["file"])) for entry in entries]
    for entry, image in zip(entries, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{folder / entry['file']} differs in size from {entries[0]['file']}; keep one size.")
    return np.stack(images), source


def _read_manifest(path: Path) -> list[dict]:
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            entries.append(json.loads(line))
            missing = [key for key in MANIFEST_KEYS if key not in entries[-1]]
        except (json.JSONDecodeError, TypeError) as error:
            raise InputError(f"{path}, line {number}, is not a JSON object; generate the images again.") from error
        if missing:
            raise InputError(f"{path}, line {number}, has no key '{missing[0]}'; generate the images again.")
    return entries


def _read_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels, mode = np.asarray(image), image.mode
    except FileNotFoundError as error:
        raise InputError(f"{path} is named in {MANIFEST_FILE} but missing; generate the images again.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's SyntaxError: a broken PNG chunk
        raise InputError(f"{path} cannot be read as an image; remove it or write it again.") from error
    if mode != "L":
        raise InputError(f"{path} has mode {mode}; expected 8-bit grey (L).")
    return pixels.astype(np.float32) / 255


def write_report(report: dict, output_dir: str | Path) -> None:
    """Write `report.json` and `report.md` into a folder."""
    write_text(Path(output_dir) / REPORT_FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_text(Path(output_dir) / "report.md", render_markdown(report))


def render_markdown(report: dict) -> str:
    """The report for reading: one table for each protocol."""
    data, source = report["dataset"], report["generator"]
    model, details = source.get("model", "images"), [f"class {name}" for name in source.get("classes", [])]
    if source.get("scheduler"):
        details.append(f"{source['scheduler']}, {source['num_inference_steps']} steps")
    lines = [
        f"# {model} against {data['name'] or 'the dataset'}, split {data['split']}, {', '.join(data['groups'])}",
        f"{report['n_generated']} generated images of {data['resolution']} px"
        f"{''.join(f' ({text})' for text in details)}; {report['n_train']} training slices of "
        f"{report['n_train_patients']} patients; {report['n_heldout']} held-out slices of "
        f"{report['n_heldout_patients']} patients. In brackets: 95 % interval over the reference's patients.",
    ]
    if report["n_heldout_patients"] < FEW_PATIENTS:
        lines.append(
            f"**Warning: only {report['n_heldout_patients']} held-out patients; patients, not slices, are the sample "
            "size, so neither the numbers nor their intervals can be relied on.**"
        )
    if set(source.get("classes", [])) - set(data["groups"]):
        lines.append(
            f"**Warning: images of class {', '.join(source['classes'])} are compared with slices of "
            f"{', '.join(data['groups'])}.**"
        )
    lines += _tables(report["rows"], report) + ["Rows: " + "; ".join(f"*{k}*: {v}" for k, v in ROWS.items()) + "."]
    lines += [LIMITS, "\n".join(f"- {name}: {text}." for name, text in report["definitions"].items())]
    if "paper_compat_artefact" in report:
        artefact = report["paper_compat_artefact"]
        lines += ["## paper_compat", f"**{artefact['warning']}**", *_tables(artefact["rows"], report, "artefact: ")]
    lines.append(f"hcm_hf {report['hcm_hf_version']}, dataset {data['fingerprint']}, seed {report['seed']}.")
    return "\n\n".join(lines) + "\n"


def _tables(rows: dict[str, dict], report: dict, prefix: str = "") -> list[str]:
    blocks = []
    for protocol, sentence in PROTOCOLS.items():
        names = [name for name in rows["generated"] if name.endswith(f"_{protocol}")]
        table = [["row", *(prefix + name for name in names)], ["---"] * (len(names) + 1)]
        table += [
            [label, *(_cell(row[name], 4 if name.startswith("mse") else 3) for name in names)]
            for label, row in rows.items()
        ]
        sentence = sentence.format_map(report)
        blocks += [f"**{protocol}**: {sentence}.", "\n".join("| " + " | ".join(line) + " |" for line in table)]
    return blocks


def _cell(number: dict, digits: int) -> str:
    if number["value"] is None:
        return "no other patient"
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _fingerprint(*sets: ImageSet) -> str:
    """Of the pixels and patients compared with, so that it does not depend on how the dataset was stored."""
    digest = hashlib.sha256()
    for one in sets:
        digest.update(one.images.tobytes() + "\n".join(one.patients).encode())
    return digest.hexdigest()[:16]
