"""Generated images and a prepared dataset to one report, as JSON, as Markdown and as figures.

The pixel metrics are those of Rayavarapu & Rao (https://doi.org/10.17163/ings.n34.2025.09), with the protocol that
decides which real image a generated one is compared with; the other parts measure what these cannot see. Beside every
number stands what other real patients score.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from diffusers import DDPMPipeline
from tqdm.auto import tqdm

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.identity import Identities, read_identities, shared_patients
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.comparison import Comparison, Reference
from hcm_hf.evaluation.definitions import ARTEFACT, FIGURES
from hcm_hf.evaluation.encoder import Encoder, check_encoder, encoder_quality, load_encoder
from hcm_hf.evaluation.images import GeneratedImages, count_images, read_images, read_pairs
from hcm_hf.evaluation.kept import PARTS_FOLDER, KeptParts
from hcm_hf.evaluation.parts import PARTS
from hcm_hf.evaluation.parts.masks import asked_groups, check_pairs
from hcm_hf.evaluation.parts.similarity import similarity_rows
from hcm_hf.evaluation.report import REPORT_FILE, Artefact, EncoderInfo, Report, Rows, Source, Speed
from hcm_hf.generation.images import TRAINED_IN, generate_images, read_settings
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.pipelines.sampling import DEFAULT_SAMPLING, OF_DIFFUSION, Sampling
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.devices import AUTOCAST, autocast, find_device, name_device
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import require_empty, write_bytes
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.utils.pictures import write_grid


GRID_FILE = "grid.png"


def score(
    output_dir: str | Path,
    images: str | Path | None = None,
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    split: str = "test",
    groups: Sequence[str] | None = None,
    target_group: str | None = None,
    cohort: str | None = None,
    encoder: str | Path | None = None,
    num_images: int = 1000,
    sampling: Sampling = DEFAULT_SAMPLING,
    paper_compat: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> Report:
    """Score generated images and write `report.json`, `report.md` and figures; finished parts survive an interruption.

    Args:
        output_dir: a new folder, or one with a report on the same images, which is written anew.
        images: folder of generated images, with their segmentations where their model makes them. Of a folder
            with more than 10,000, a random sample of 10,000 is scored.
        model: folder or repository (user/name) of a model to generate the images with, into OUTPUT_DIR/images; with
            images, the model that made them. The test of what the study's DDPM remembers needs the model.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        split: the held-out split.
        groups: the groups to compare with; by default the target group.
        target_group: the disease of interest; by default the one that the model was trained with, else HCM.
        cohort: compare with the held-out patients of this cohort alone, for a dataset of several.
        encoder: folder of an encoder trained on this dataset with train_encoder; without one, distances of
            distributions and anatomy are left out.
        num_images: number of images to generate; 10,000 at most are scored.
        sampling: what the images show and how they are sampled; by default as the model says.
        paper_compat: also score with a wrong data range, labelled as an artefact, to show what it gives.
        seed: seed of generation, pairs and resamples.
        device: where networks compute (generation, encoder, speed, the test of membership), such as cpu or cuda:1; by
            default the accelerator if there is one.

    Returns:
        The report.

    Raises:
        InputError: on bad arguments, data or images; an existing report of other images is left as it was.
    """
    output_dir = Path(output_dir)
    if images is None and model is None:
        raise InputError("Give `images`, or `model` to generate them with.")
    for argument, value in vars(sampling).items():
        if images is not None and value is not None:
            raise InputError(f"{argument} {value} is for generating; the images of `images` are made already.")
    at_least("seed", seed, 0)
    where = find_device(device)
    folder = None if model is None else find_pipeline(model)
    noted, training_notes = (
        {} if images is None else read_settings(Path(images)),
        read_training(folder) if folder else {},
    )
    written = noted or training_notes
    splits = load_dataset(dataset)
    vocabulary = Vocabulary.of(splits, target_group or written.get("target_group", TARGET_GROUP))
    compared = vocabulary.choose(groups or "target")
    seen_groups = _seen_groups(written, vocabulary)
    reference = Reference.read(splits, split, compared, seen_groups, str(dataset or "synthetic"), cohort)
    training, heldout = reference.training, reference.heldout  # groups that are not there are refused before images
    loaded = None if encoder is None else load_encoder(encoder, where)
    if loaded is not None:
        check_encoder(loaded, training, reference.all_heldout)
    if not any((output_dir / name).exists() for name in (REPORT_FILE, "images", PARTS_FOLDER)):
        require_empty(output_dir, "output_dir")
    if images is None:
        assert model is not None  # one of them is given
        made = output_dir / "images"
        images = generate_images(model, made, num_images, seed=seed, sampling=sampling, device=str(where))
    generated = GeneratedImages(*read_images(images), read_pairs(images))
    source = generated.source
    if folder is not None and source.model_hash not in (None, hash_model(folder)):
        raise InputError(f"The images in {images} were made by {source.model}, not by model {model}.")
    known = refuse_seen_patients(reference, Path(images), folder, source)
    if (output_dir / REPORT_FILE).exists():
        before = Report.load(output_dir).generator
        if before != source:
            raise InputError(f"{output_dir} holds the report of {before.model}; name another output_dir.")
    pipeline = None if folder is None else HCMPipeline.from_pretrained(folder, device=where)
    report = evaluate_images(
        generated,
        reference,
        encoder=loaded,
        model=pipeline if pipeline is not None and pipeline.predicts_noise else None,
        paper_compat=paper_compat,
        seed=seed,
        output_dir=output_dir,
    )
    noted = read_settings(Path(images))
    report.training_precision = noted.get(TRAINED_IN, training_notes.get("mixed_precision"))
    if not known:
        report.left_out["patients"] = (
            "whether the model was trained on held-out patients: neither the images nor a model say whom it has seen."
        )
    if (count := count_images(images)) > len(generated.images):
        report.left_out["images"] = (
            f"{count - len(generated.images):,} of {count:,} images: {len(generated.images):,} were drawn at random, "
            "and copies among the others are not found."
        )
    if pipeline is not None and (source.scheduler is not None) == pipeline.denoises:
        report.speed = measure_speed(pipeline, source)
    write_grid(heldout.images, generated.images, output_dir / GRID_FILE, seed=seed)
    report.save(output_dir)
    drawn = {name for names in (report.figures or {}).values() for name in names}
    for pattern in (pattern for part in FIGURES.values() for pattern in part):
        for old in output_dir.glob(pattern):  # of a report that this one replaces
            if old.name not in drawn:
                old.unlink()
    shutil.rmtree(output_dir / PARTS_FOLDER, ignore_errors=True)
    return report


def refuse_seen_patients(reference: Reference, images: Path, model: Path | None, source: Source) -> bool:
    """Refuse images of a model that was trained on a held-out patient.

    Args:
        reference: the real slices.
        images: folder of the images.
        model: folder of the model that made them; None where it is not given.
        source: what `read_images` found out about the images.

    Returns:
        Whether it is known whom the model has seen.

    Raises:
        InputError: names the patient.
    """
    seen_by = _seen_patients(images, model, source)
    if seen_by and (shared := shared_patients(reference.all_heldout.identities, seen_by)):
        raise InputError(
            f"{source.model} was trained on patient {shared[0]}, who is held out in split '{reference.split}'; name "
            "the `dataset` that it was trained on."
        )
    return seen_by is not None


def _seen_patients(images: Path, model: Path | None, source: Source) -> Identities | None:
    """The patients that the model of generated images was trained on, by all that is known; None for nothing.

    The images carry a note of it. The model's own counts where it is given, never what lies at the path where it was.
    """
    notes = {str(images): read_settings(images)} | ({} if model is None else {str(source.model): read_training(model)})
    known = [read_identities(note["train_patients"], name) for name, note in notes.items() if "train_patients" in note]
    return {f"{index}:{name}": volumes for index, one in enumerate(known) for name, volumes in one.items()} or None


def _seen_groups(notes: Mapping, vocabulary: Vocabulary) -> tuple[str, ...] | None:
    """The groups that a model was trained on, as far as the dataset has them; None where they are not known.

    Args:
        notes: of the model's training.
        vocabulary: of the dataset.

    Raises:
        InputError: if the dataset has none of them.
    """
    if "groups" not in notes:
        return None
    common = tuple(group for group in notes["groups"] if group in vocabulary.groups)
    if not common:
        raise InputError(
            f"The model was trained on {', '.join(notes['groups'])}, and the dataset has only "
            f"{', '.join(vocabulary.groups)}; name the `dataset` that it was trained on."
        )
    return common


def measure_speed(pipeline: HCMPipeline, source: Source, batch_size: int = 8, calls: int = 5) -> Speed:
    """How long a model takes for images made as these were, on the device that it is on.

    The first call is not timed: it allocates, and chooses the kernels for this batch size. A call ends with the images
    in the memory of the CPU, so none is timed before its device has finished.

    Args:
        pipeline: the model.
        source: what `read_images` found out about the images.
        batch_size: images of each call; more at once may be faster.
        calls: how many are timed.

    Returns:
        The speed, in the precision that the images were made in.

    Raises:
        InputError: if `batch_size` or `calls` is not 1 or more.
    """
    at_least("batch_size", batch_size, 1)
    at_least("calls", calls, 1)
    sampling = Sampling(**{key: value for key, value in vars(source).items() if key in OF_DIFFUSION})
    pipeline, sampling = sampling.applied_to(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    precision = source.mixed_precision if source.mixed_precision in AUTOCAST else "no"
    taken = []
    for _ in range(1 + calls):
        generator = torch.Generator().manual_seed(0)
        started = time.perf_counter()
        with autocast(pipeline.device, precision):
            pipeline(batch_size=batch_size, generator=generator, output_type="np", **sampling.arguments)
        taken.append((time.perf_counter() - started) * 1000 / batch_size)
    timed = taken[1:]
    return Speed(
        network_calls=sampling.network_calls,
        seconds_per_1000_images=median(timed),
        batch_size=batch_size,
        device=str(pipeline.device),
        threads=torch.get_num_threads(),
        mixed_precision=precision,
        low=min(timed),
        high=max(timed),
        timed_calls=calls,
        device_name=name_device(pipeline.device),
    )


def evaluate_images(
    generated: GeneratedImages,
    reference: Reference,
    *,
    encoder: Encoder | None = None,
    model: DDPMPipeline | None = None,
    paper_compat: bool = False,
    seed: int = 0,
    real_per_image: int = 50,
    output_dir: Path | None = None,
) -> Report:
    """Compare generated images with the slices of training and of held-out patients.

    Args:
        generated: the images, with their segmentations where there are some.
        reference: the real slices.
        encoder: of `load_encoder`, trained on the same dataset.
        model: the diffusion model that made the images.
        paper_compat: also score images in [-1, 1] with SSIM's data_range at 255, to show what that gives.
        seed: of the random pairs, subsamples and resamples.
        real_per_image: real images per generated one in the protocol `random`.
        output_dir: gets the figures, and keeps the parts that are finished until the next call.

    Returns:
        The report, with `output_dir` also the names of the figures of each part.

    Raises:
        InputError: if images, segmentations, dataset and encoder do not fit together, or there are too few images.
    """
    reference.check()
    images, heldout = generated.images, reference.heldout
    if images.ndim != 3 or not len(images) or images.shape[1:] != heldout.images.shape[1:]:
        size = "x".join(map(str, heldout.images.shape[1:]))
        raise InputError(f"images have shape {images.shape}; the dataset's slices ask for (N, H, W) of {size} px.")
    if not 0 <= images.min() <= images.max() <= 1:  # false for NaN too
        raise InputError(f"images hold values from {images.min()} to {images.max()}; expected [0, 1].")
    at_least("real_per_image", real_per_image, 1)
    if encoder is not None:
        check_encoder(encoder, reference.training, reference.all_heldout)
    if generated.pairs is not None:
        check_pairs(generated, {"train": reference.all_training, reference.split: reference.all_heldout})
    comparison = Comparison(generated, reference, encoder, model, real_per_image, seed)
    report = comparison.begin_report()
    parts, report.left_out = _choose_parts(comparison)
    if generated.pairs is not None:
        report.asked_groups = asked_groups(generated.pairs)
    kept = KeptParts(output_dir, report, comparison)
    if encoder is not None:
        instruments = {"features": encoder.features, "segmenter": encoder.segmenter}
        quality = kept.get(
            "encoder",
            lambda _: {
                name: encoder_quality(one, reference.all_heldout, reference.groups, seed)
                for name, one in instruments.items()
            },
        )
        report.encoder, report.segmenter = (
            EncoderInfo(encoder.source, one.version, one.hash, quality[name]) for name, one in instruments.items()
        )
    assess: dict[str, Callable[[Path | None], Rows]] = {
        name: partial(PARTS[name].assess, comparison) for name in parts
    }
    if paper_compat:
        assess["paper_compat"] = lambda _: similarity_rows(comparison, artefact=True)
    with tqdm(assess.items(), desc="Scoring", unit="part") as bar:
        for name, function in bar:
            bar.set_postfix_str(name)
            rows = kept.get(name, function)
            if name == "paper_compat":
                report.paper_compat_artefact = Artefact(ARTEFACT, rows)
                continue
            report.parts[name] = list(rows["generated"])
            for label, numbers in rows.items():
                report.rows.setdefault(label, {}).update(numbers)
    if output_dir:
        report.figures = {name: [figure.name for figure in kept.figures(name)] for name in parts}
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
                    ("generated images", comparison.generated.images),
                    ("held-out slices", comparison.reference.heldout.images),
                    ("training slices", comparison.reference.training.images),
                )
                if len(images) < part.least
            ),
            None,
        )
        if few and len(comparison.generated.images) < part.least:
            raise InputError(f"Too few images: {few}; generate more.")
        if few:
            left_out[name] = f"{name}: {few}."
        else:
            parts.append(name)
            if sentence := part.partly(comparison):
                left_out[name] = sentence
    return parts, left_out
