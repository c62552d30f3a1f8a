"""Generated images and a prepared dataset to one report, as JSON, as Markdown and as figures.

The pixel metrics are those of Rayavarapu & Rao (https://doi.org/10.17163/ings.n34.2025.09), with the protocol that
decides which real image a generated one is compared with; the other parts measure what these cannot see. Beside every
number stands what other real patients score.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from diffusers import DDPMPipeline, DiffusionPipeline
from tqdm.auto import tqdm

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.identity import Identities, read_identities, shared_patients
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.comparison import Comparison, Rows
from hcm_hf.evaluation.encoder import Encoder, check_encoder, encoder_quality, load_encoder
from hcm_hf.evaluation.extractors import Extractor, load_extractor
from hcm_hf.evaluation.images import GeneratedPairs, fingerprint, read_images, read_pairs, read_split
from hcm_hf.evaluation.kept import PARTS_FOLDER, KeptParts
from hcm_hf.evaluation.parts.assessment import PARTS, similarity_rows
from hcm_hf.evaluation.parts.masks import asked_groups, check_pairs
from hcm_hf.evaluation.report import ARTEFACT, DEFINITIONS, FIGURES, REPORT_FILE, read_report, write_report
from hcm_hf.generation.images import SETTINGS_FILE, generate_images
from hcm_hf.metrics.protocols import reference_size
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model, prepare_sampling, read_training
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import write_grid
from hcm_hf.utils.files import require_empty, write_bytes
from hcm_hf.version import __version__


GRID_FILE = "grid.png"
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}  # by accelerate's name of a mixed precision


def score(
    output_dir: str | Path,
    images: str | Path | None = None,
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    split: str = "test",
    groups: Sequence[str] = ("HCM",),
    encoder: str | Path | None = None,
    features: Sequence[str] = (),
    num_images: int = 1000,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    paper_compat: bool = False,
    seed: int = 0,
) -> dict:
    """Score generated images against real slices of training and held-out patients.

    Writes `report.json`, `report.md` and figures. Run again after an interruption, it keeps the parts that are there.

    Args:
        output_dir: a new folder, or one with a report on the same images, which is written anew.
        images: folder of generated images, with their segmentations where their model makes them.
        model: folder or repository (user/name) of a model to generate the images with, into OUTPUT_DIR/images; with
            images, the model that made them. The test of what the study's DDPM remembers needs the model.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        split: the held-out split.
        groups: the ACDC groups to compare with.
        encoder: folder of the encoder trained on that dataset, see train_encoder; without one, distances of
            distributions and anatomy are left out.
        features: other features to measure distances in: inception, dinov2 (needs hcm_hf[features]).
        num_images: number of images to generate.
        class_labels: their class, where the model is conditional.
        scheduler: a diffusion model's sampler: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default the
            model's own.
        num_inference_steps: sampling steps of a diffusion model; by default the model's own number for its own
            scheduler, else 1000 for ddpm, 50 for ddim and 20 for the others.
        guidance_scale: classifier-free guidance of a diffusion model with classes; by default 1, no guidance.
        paper_compat: also score with a wrong data range, labelled as an artefact, to show what it gives.
        seed: seed of generation, pairs and resamples.

    Returns:
        The report.

    Raises:
        InputError: on bad arguments, data or images; an existing report of other images is left as it was.
    """
    output_dir = Path(output_dir)
    if images is None and model is None:
        raise InputError("Give --images, or --model to generate them with.")
    sampling = {
        "class_labels": class_labels,
        "scheduler": scheduler,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
    }
    for argument, value in sampling.items():
        if images is not None and value is not None:
            raise InputError(f"--{argument} {value} is for generating; the images of --images are made already.")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more.")
    folder = None if model is None else find_pipeline(model)
    splits = load_dataset(dataset)
    training, everyone = read_split(splits, "train", groups), read_split(splits, split)
    heldout = read_split(splits, split, groups)
    loaded = None if encoder is None else load_encoder(encoder)
    if loaded is not None:
        check_encoder(loaded, training, everyone)
    extractors = [load_extractor(name) for name in features]
    if not any((output_dir / name).exists() for name in (REPORT_FILE, "images", PARTS_FOLDER)):
        require_empty(output_dir, "--output_dir")
    if images is None:
        images = generate_images(model, output_dir / "images", num_images, seed=seed, **sampling)
    (generated, source), pairs = read_images(images), read_pairs(images)
    if model is not None and source["model_hash"] not in (None, hash_model(folder)):
        raise InputError(f"The images in {images} were made by {source['model']}, not by --model {model}.")
    seen_by = _seen_patients(Path(images), folder, source)
    if seen_by and (shared := shared_patients(everyone.identities, seen_by)):
        raise InputError(
            f"{source['model']} was trained on patient {shared[0]}, who is held out in split '{split}'; name the "
            "--dataset that it was trained on."
        )
    written = _noted(Path(images)) or (read_training(folder) if folder else {})
    if (output_dir / REPORT_FILE).exists():
        before = read_report(output_dir)["generator"]
        if before != source:
            raise InputError(f"{output_dir} holds the report of {before['model']}; name another --output_dir.")
    pipeline = None if folder is None else HCMPipeline.from_pretrained(folder)
    report = evaluate_images(
        generated,
        splits,
        source=source,
        dataset_name=str(dataset or "synthetic"),
        split=split,
        groups=groups,
        seen_groups=written.get("groups"),
        encoder=loaded,
        extractors=extractors,
        model=pipeline if isinstance(pipeline, DDPMPipeline) else None,
        pairs=pairs,
        paper_compat=paper_compat,
        seed=seed,
        output_dir=output_dir,
    )
    if seen_by is None:
        report["left_out"]["patients"] = (
            "whether the model was trained on held-out patients: neither the images nor a model say whom it has seen."
        )
    if pipeline is not None and ("scheduler" in source) == ("scheduler" in pipeline.components):
        report["speed"] = measure_speed(pipeline, source)
    write_grid(heldout.images, generated, output_dir / GRID_FILE, seed=seed)
    write_report(report, output_dir)
    drawn = {name for names in report["figures"].values() for name in names}
    for pattern in (pattern for part in FIGURES.values() for pattern in part):
        for old in output_dir.glob(pattern):  # of a report that this one replaces
            if old.name not in drawn:
                old.unlink()
    shutil.rmtree(output_dir / PARTS_FOLDER, ignore_errors=True)
    return report


def _seen_patients(images: Path, model: Path | None, source: dict) -> Identities | None:
    """The patients that the model of generated images was trained on, by all that is known; None for nothing.

    The images carry a note of it. The model's own counts where it is given, never what lies at the path where it was.
    """
    notes = {str(images): _noted(images)} | ({} if model is None else {str(source["model"]): read_training(model)})
    known = [read_identities(note["train_patients"], name) for name, note in notes.items() if "train_patients" in note]
    return {f"{index}:{name}": volumes for index, one in enumerate(known) for name, volumes in one.items()} or None


def _noted(images: Path) -> dict:
    """What generated images say of their model's training; nothing for images from elsewhere."""
    path = images / SETTINGS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def measure_speed(pipeline: DiffusionPipeline, source: dict, batch_size: int = 8) -> dict:
    """How long a model takes for images made as these were, on the device that it is on.

    Args:
        pipeline: the model.
        source: what `read_images` found out about the images.
        batch_size: images at a time; more at once may be faster.

    Returns:
        `network_calls` per image, of which guidance takes two per step, `seconds_per_1000_images` from one batch, and
        what it was measured on, in the precision that the images were made in.
    """
    keys = "scheduler", "num_inference_steps", "guidance_scale"
    steps = {key: source[key] for key in keys if key in source}
    arguments, _ = prepare_sampling(pipeline, **steps)
    pipeline.set_progress_bar_config(disable=True)
    precision = source.get("mixed_precision")
    autocast = torch.autocast(pipeline.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST)
    for size in (1, batch_size):  # the first call warms up
        started = time.perf_counter()
        with autocast:
            pipeline(batch_size=size, generator=torch.Generator().manual_seed(0), output_type="np", **arguments)
        seconds = time.perf_counter() - started
    guided = arguments.get("guidance_scale", 1) != 1
    return {
        "network_calls": arguments.get("num_inference_steps", 1) * (2 if guided else 1),
        "seconds_per_1000_images": seconds * 1000 / batch_size,
        "batch_size": batch_size,
        "mixed_precision": precision if precision in AUTOCAST else "no",
        "device": str(pipeline.device),
        "threads": torch.get_num_threads(),
    }


def evaluate_images(
    images: np.ndarray,
    dataset: datasets.DatasetDict,
    *,
    source: dict | None = None,
    dataset_name: str = "",
    split: str = "test",
    groups: Sequence[str] = ("HCM",),
    seen_groups: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    extractors: Sequence[Extractor] = (),
    model: DDPMPipeline | None = None,
    pairs: GeneratedPairs | None = None,
    real_per_image: int = 50,
    paper_compat: bool = False,
    seed: int = 0,
    device: str = "cpu",
    output_dir: Path | None = None,
) -> dict:
    """Compare generated images with the slices of training and of held-out patients.

    Args:
        images: generated images, float (N, H, W) in [0, 1].
        dataset: a prepared dataset; its training split is what the generator was trained on.
        source: what `read_images` found out about the images; copied into the report.
        dataset_name: as it shall stand in the report.
        split: the held-out split.
        groups: the groups whose slices are the reference; frames that are neither ED nor ES are left out.
        seen_groups: the groups whose training slices, all frames of them, the generator may copy; None where that is
            not known, which takes `groups` and says so in the report.
        encoder: of `load_encoder`, trained on this dataset.
        extractors: of `load_extractor`.
        model: the diffusion model that made the images.
        pairs: the segmentations of the images, of `read_pairs`, and what the images were asked to show.
        real_per_image: real images per generated one in the protocol `random`.
        paper_compat: also score images in [-1, 1] with SSIM's data_range at 255, to show what that gives.
        seed: of the random pairs, subsamples and resamples.
        device: where to compute the pixel metrics.
        output_dir: gets the figures, and keeps the parts that are done until the next call.

    Returns:
        The report: counts and definitions, `rows` of numbers with flat names such as `ssim_random`, and with
        `output_dir` the names of the `figures` of each part.

    Raises:
        InputError: if images, segmentations, dataset and encoder do not fit together, or there are too few images.
    """
    training, heldout = (read_split(dataset, name, groups) for name in ("train", split))
    shared = shared_patients(heldout.identities, training.identities)
    if shared := shared or [name for name in heldout.identities if name in training.identities]:
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
    everyone = read_split(dataset, split)
    seen = read_split(dataset, "train", seen_groups or groups, all_frames=True)
    if encoder is not None:
        check_encoder(encoder, training, everyone)
    all_training = None if pairs is None else read_split(dataset, "train")
    if pairs is not None:
        check_pairs(pairs, images, {"train": all_training, split: everyone})
    comparison = Comparison(
        generated=images,
        training=training,
        seen=seen,
        heldout=heldout,
        groups=tuple(groups),
        pixel_spacing=FIELD_OF_VIEW / images.shape[2],
        encoder=encoder,
        extractors=tuple(extractors),
        model=model,
        pairs=pairs,
        all_training=all_training,
        all_heldout=everyone,
        real_per_image=real_per_image,
        seed=seed,
        device=device,
    )
    parts, left_out = _choose_parts(comparison)
    report = {
        "hcm_hf_version": __version__,
        "generator": source or {},
        "dataset": {
            "name": dataset_name,
            "fingerprint": fingerprint(training, heldout),
            "split": split,
            "groups": list(groups),
            "resolution": images.shape[2],
        },
        "seed": seed,
        "real_per_image": real_per_image,
        "n_generated": len(images),
        "n_reference": reference_size(training.patients, heldout.patients),
        "seen_groups": list(seen_groups or groups),
        "seen_groups_assumed": seen_groups is None,
        "n_seen": len(seen.images),
        "n_seen_patients": len(np.unique(seen.patients)),
        "n_train": len(training.images),
        "n_train_patients": len(np.unique(training.patients)),
        "n_heldout": len(heldout.images),
        "n_heldout_patients": len(np.unique(heldout.patients)),
        "definitions": DEFINITIONS,
        "encoder": None,
        "left_out": left_out,
    }
    if pairs is not None:
        report["asked_groups"] = asked_groups(pairs)
    kept = KeptParts(output_dir, report, comparison)
    if encoder is not None:
        described = {"source": encoder.source, "version": encoder.version, "hash": encoder.hash}
        quality = kept.get("encoder", lambda _: encoder_quality(encoder, everyone, groups, seed))
        report["encoder"] = described | {"quality": quality}
    assess: dict[str, Callable[[Path | None], Rows]] = {
        name: lambda figures, part=PARTS[name]: part.assess(comparison, figures) for name in parts
    }
    if paper_compat:
        assess["paper_compat"] = lambda _: similarity_rows(comparison, artefact=True)
    report["parts"], report["rows"] = {}, {}
    with tqdm(assess.items(), desc="Scoring", unit="part") as bar:
        for name, function in bar:
            bar.set_postfix_str(name)
            rows = kept.get(name, function)
            if name == "paper_compat":
                report["paper_compat_artefact"] = {"warning": ARTEFACT, "rows": rows}
                continue
            report["parts"][name] = list(rows["generated"])
            for label, numbers in rows.items():
                report["rows"].setdefault(label, {}).update(numbers)
    if output_dir:
        report["figures"] = {name: [figure.name for figure in kept.figures(name)] for name in parts}
        for figure in (figure for name in parts for figure in kept.figures(name)):
            write_bytes(output_dir / figure.name, figure.read_bytes())
    return report


def _choose_parts(comparison: Comparison) -> tuple[list[str], dict[str, str]]:
    """The parts to assess, and a sentence for each other one that says why not."""
    parts, left_out = [], {}
    for name, part in PARTS.items():
        if not part.applies(comparison):
            if part.missing:
                left_out[name] = part.missing
            continue
        few = next(
            (
                f"{part.name_least} needs at least {part.least} {kind}, and there are {len(images)}"
                for kind, images in (
                    ("generated images", comparison.generated),
                    ("held-out slices", comparison.heldout.images),
                    ("training slices", comparison.training.images),
                )
                if len(images) < part.least
            ),
            None,
        )
        if few and len(comparison.generated) < part.least:
            raise InputError(f"Too few images: {few}; generate more.")
        if few:
            left_out[name] = f"{name}: {few}."
        else:
            parts.append(name)
    return parts, left_out
