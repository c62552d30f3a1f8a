"""Fuzzing: nearly good files and arguments for every reader; nothing but an `InputError` may come out."""

import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tiny import build_tiny, notes, save_encoder

from campaigns.inputs import edited_bytes, edited_json, edited_table, json_bytes, odd_values
from campaigns.outcomes import Outcomes
from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.cohort import STRUCTURES, read_table
from hcm_hf.data.mnms import find_mnms
from hcm_hf.data.mnms2 import find_mnms2
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.preprocessing import prepare_patient
from hcm_hf.data.schema import check_preparation
from hcm_hf.data.volumes import read_volumes
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import read_images, read_pairs
from hcm_hf.evaluation.report import Report
from hcm_hf.generation.images import generate_images
from hcm_hf.models import SliceEncoder
from hcm_hf.pipelines.auto import HCMPipeline, read_training
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.training.curves import loss_curves
from hcm_hf.utils.files import read_json


REPORT = Path(__file__).parents[2] / "docs/results/acdc-64-paper/dcgan/report.json"
Read = Callable[[Any], object]


@dataclass(frozen=True)
class Reader:
    """Something that takes input from anywhere.

    Attributes:
        inputs: what it may get.
        read: give it one; what it makes of a good one is used as the package uses it.
    """

    inputs: st.SearchStrategy
    read: Read


def fuzz(
    folder: Path,
    outcomes: Outcomes,
    tries: int = 1000,
    seconds: float = 3600,
    of: tuple[str, ...] = (),
    random_seed: int = 0,
) -> None:
    """Give every reader many inputs.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        tries: inputs for each reader.
        seconds: for all readers together; whichever is over first.
        of: the readers; by default all.
        random_seed: of the inputs.
    """
    names = of or tuple(READERS)
    for name in names:
        reader = READERS[name](folder / "reader" / name)
        _feed(reader, name, outcomes, tries, time.monotonic() + seconds / len(names), random_seed)


def _feed(reader: Reader, name: str, outcomes: Outcomes, tries: int, deadline: float, random_seed: int) -> None:
    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(random_seed)
    @given(reader.inputs)
    def attempt(value: Any) -> None:
        if time.monotonic() < deadline:
            outcomes.record(name, lambda: reader.read(value), value)

    attempt()


def _file(path: Path, read: Callable[[], object]) -> Read:
    """A reader of a file that holds the input."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write_and_read(data: bytes) -> object:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return read()

    return write_and_read


# Patients.


def _cohort(folder: Path) -> Path:
    """Two synthetic patients in the layout of ACDC, small volumes."""
    write_cohort(folder, num_patients_per_group=1, groups=("HCM", "NOR"), num_proc=1)
    return folder


def _nifti(folder: Path) -> Reader:
    cohort = _cohort(folder)
    patient = find_cohort(cohort).patients[0]
    path = cohort / patient.scans[0].image
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.integers(0, 900, (24, 20, 3), np.int16), np.diag([-4.0, -4.0, 10.0, 1.0]))
    mask = np.zeros((24, 20, 3), np.uint8)
    mask[6:16, 6:16] = 2
    mask[8:14, 8:14] = 3
    for scan in patient.scans:
        nibabel.save(image, cohort / scan.image)
        if scan.mask:
            nibabel.save(nibabel.Nifti1Image(mask, image.affine), cohort / scan.mask)
    good = image.to_bytes()
    raw = st.one_of(_edited_header(good), _edited_header(good), edited_bytes(good))
    packed = gzip.compress(good)
    inputs = st.one_of(raw, raw.map(gzip.compress), edited_bytes(packed), st.binary(max_size=600))
    one = replace(patient, scans=tuple(scan for scan in patient.scans if scan.phase))
    return Reader(inputs, _file(path, lambda: (list(read_volumes(one, True)), prepare_patient(one, 16, True, None))))


@st.composite
def _edited_header(draw: Any, data: bytes) -> bytes:
    """A NIfTI file with one to three numbers of its header set to odd ones."""
    header = np.frombuffer(data[:348], nibabel.nifti1.header_dtype).copy()
    names = [name for name in header.dtype.names if header.dtype[name].base.kind in "iuf"]
    for name in draw(st.lists(st.sampled_from([*names, "dim", "pixdim", "srow_x"]), min_size=1, max_size=3)):
        values = header[name].reshape(-1)
        place = draw(st.integers(0, values.size - 1))
        if values.dtype.kind == "f":
            values[place] = draw(st.one_of(st.floats(width=32), st.sampled_from([-1.0, 1e-30, 1e-6, 1e30, 0.0])))
        else:
            limits = np.iinfo(values.dtype)
            values[place] = draw(st.one_of(st.integers(limits.min, limits.max), st.integers(0, min(64, limits.max))))
    return header.tobytes() + data[348:]


def _info(folder: Path) -> Reader:
    cohort = _cohort(folder)
    path = next(cohort.rglob("Info.cfg"))
    return Reader(edited_table(path.read_text()), _file(path, lambda: find_cohort(cohort)))


def _table(folder: Path) -> Reader:
    folder.mkdir(parents=True)
    for name in ("a.nii.gz", "b.nii.gz", "a_gt.nii.gz"):
        (folder / name).touch()
    text = (
        "patient,group,phase,image,frame,mask,half,height,weight,cohort,mask_values\n"
        "p1,HCM,ED,a.nii.gz,1,a_gt.nii.gz,training,1.80,80,mine,1:3 2:2\n"
        "p1,HCM,ES,b.nii.gz,,,training,180,80,mine,1:3 2:2\n"
        "p2,NOR,ED,b.nii.gz,2,,test,,,mine,\n"
    )
    return Reader(edited_table(text), _file(folder / "cohort.csv", lambda: read_table(folder / "cohort.csv")))


def _challenge(find: Callable, layout: str) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        write_cohort(folder, num_patients_per_group=1, groups=("HCM", "NOR"), num_proc=1, layout=layout)
        path = next(folder.rglob("*nformation*.csv"))
        return Reader(edited_table(path.read_text()), _file(path, lambda: find(folder)))

    return make


# What the package writes of itself.


def _manifest(folder: Path) -> Reader:
    _save_model(folder / "model", "ddpm", "tuned")
    generate_images(folder / "model", folder / "images", 2, sampling=Sampling(num_inference_steps=1))
    path = folder / "images" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edited = edited_json(lines).map(
        lambda value: b"\n".join(map(json_bytes, value)) if isinstance(value, list) else json_bytes(value)
    )
    inputs = st.one_of(edited, edited, edited_bytes(path.read_bytes()))
    return Reader(inputs, _file(path, lambda: (read_images(path.parent), read_pairs(path.parent))))


def _generation(folder: Path) -> Reader:
    _save_model(folder / "model", "dcgan", "paper")
    generate_images(folder / "model", folder / "images", 1)
    path = folder / "images" / "generation.json"
    return Reader(_json(path), _file(path, lambda: generate_images(folder / "model", folder / "images", 1)))


def _report(folder: Path) -> Reader:
    path = folder / "report.json"

    def read() -> None:
        report = Report.load(path)
        report.save(folder / "again")
        assert Report.load(folder / "again").to_json() == report.to_json()
        report.renamed("ada/hearts", "ada/slices", None).to_markdown()

    return Reader(_json(REPORT), _file(path, read))


def _training(folder: Path) -> Reader:
    path = folder / "training_config.json"
    folder.mkdir(parents=True)
    path.write_text(json.dumps(notes(progress={"step": 1, "best_step": 1, "best_loss": 0.5, "seconds": 2.0})))
    return Reader(_json(path), _file(path, lambda: read_training(folder)))


def _preparation(folder: Path) -> Reader:
    path = folder / "preparation.json"
    folder.mkdir(parents=True)
    row = {"split": "train", "group": "HCM", "patients": 2, "slices": 8, "ED": 4, "ES": 4, "other": 0}
    value = {"source": "acdc", "resolution": 64, "pixel_spacing": 2.0, "left_out": [], "notes": ["a"], "slices": [row]}
    path.write_text(json.dumps(value | {"generator": {"train_patients": {"p1": ["abc"]}}}))
    return Reader(_json(path), _file(path, lambda: check_preparation(read_json(path), str(path))))


def _metrics(folder: Path) -> Reader:
    path = folder / "metrics.jsonl"
    lines = [{"step": step, "epoch": 1, "generator_loss": 0.5, "discriminator_loss": 1.0} for step in (1, 2)]
    lines += [{"step": 2, "epoch": 1, "validation_loss": 0.25}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    edited = edited_json(lines).map(
        lambda value: b"\n".join(map(json_bytes, value)) if isinstance(value, list) else json_bytes(value)
    )
    inputs = st.one_of(edited, edited_bytes(text))
    return Reader(inputs, _file(path, lambda: loss_curves(path, folder / "losses.png")))


# Models.


def _save_model(folder: Path, family: str, recipe: str) -> None:
    build_tiny(family, recipe=recipe).pipeline().save_pretrained(folder)
    (folder / "training_config.json").write_text(json.dumps(notes(family=family, recipe=recipe)))


def _json(path: Path) -> st.SearchStrategy:
    """A JSON file's content, edited as values and as bytes."""
    good = path.read_bytes()
    return st.one_of(*[edited_json(json.loads(good)).map(json_bytes)] * 3, edited_bytes(good))


def _draw_one(folder: Path) -> None:
    pipeline = HCMPipeline.from_pretrained(folder)
    steps = {"num_inference_steps": 1} if pipeline.denoises else {}
    images = pipeline(1, output_type="np", generator=torch.Generator().manual_seed(0), **steps).images
    size = pipeline.sample_size
    assert images.shape == (1, size, size, 1) and np.isfinite(images).all() and 0 <= images.min() <= images.max() <= 1


def _model_file(family: str, recipe: str, name: str) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        _save_model(folder, family, recipe)
        path = next(folder.rglob(name))
        inputs = edited_bytes(path.read_bytes(), tuple(range(200))) if name.endswith(".safetensors") else _json(path)
        return Reader(inputs, _file(path, lambda: _draw_one(folder)))

    return make


def _weights_header(folder: Path) -> Reader:
    """A header of safetensors that lies."""
    _save_model(folder, "dcgan", "paper")
    path = next(folder.rglob("*.safetensors"))
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")

    def whole(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + data[8 + size :]

    edited = edited_json(json.loads(data[8 : 8 + size])).map(json_bytes)
    return Reader(edited.map(whole), _file(path, lambda: _draw_one(folder)))


def _encoder(name: str) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        network = SliceEncoder(STRUCTURES, ("HCM", "NOR"), ("ED", "ES"), 16, (2, 4))
        save_encoder(folder, network)
        path = folder / "features" / name
        inputs = edited_bytes(path.read_bytes(), tuple(range(200))) if name.endswith(".safetensors") else _json(path)
        images = np.zeros((1, 16, 16), np.float32)

        def read() -> None:
            instrument = load_encoder(folder).features
            if instrument.network.config.sample_size == 16:
                instrument.predict(images)

        return Reader(inputs, _file(path, read))

    return make


def _conditions(family: str, recipe: str) -> Callable[[Path], Reader]:
    """Conditions and labels of every kind, and how to sample."""

    def make(folder: Path) -> Reader:
        _save_model(folder, family, recipe)
        pipeline = HCMPipeline.from_pretrained(folder)
        words = [word for names in pipeline.conditions.axes.values() for word in (*names, "any")] or ["HCM"]
        answers = st.one_of(st.sampled_from(words), odd_values())
        names = st.sampled_from([*pipeline.conditions.axes, *pipeline.conditions.ranges, "group", "odd"])
        asked = st.one_of(st.dictionaries(names, answers, max_size=4), st.none(), odd_values())
        labels = st.one_of(st.lists(st.sampled_from(words), max_size=3).map(" ".join), st.integers(-2, 40), asked)
        many = st.one_of(labels, st.lists(labels, max_size=3), st.lists(st.integers(-1, 40)).map(np.array))
        others = {"batch_size": st.sampled_from([1, 1, 2, 3, 0, -1]), "output_type": st.sampled_from(["np", "pt"])}
        calls = st.one_of(
            *(st.fixed_dictionaries(others, optional={name: many}) for name in ("conditions", "class_labels"))
        )
        samplings = st.builds(
            Sampling,
            conditions=st.one_of(asked, st.none()),
            scheduler=st.sampled_from([None, "ddim", "ddpm", "sde-dpmsolver++", "unipc", "euler"]),
            num_inference_steps=st.one_of(st.sampled_from([1, 2]), st.none(), odd_values()),
            guidance_scale=st.one_of(st.none(), st.sampled_from([0, 1, 2.0]), st.floats(), odd_values()),
            stochastic_floor=st.one_of(st.none(), st.none(), st.floats()),
            last_sigma=st.one_of(st.none(), st.none(), st.floats()),
        )

        def read(value: dict | Sampling) -> None:
            if isinstance(value, Sampling):
                bound, full = value.applied_to(pipeline)
                _ = full.noted
                if (full.num_inference_steps or 1) < 3:
                    bound(1, output_type="np", **full.arguments)
                return
            steps = {"num_inference_steps": 1} if pipeline.denoises else {}
            images = pipeline(generator=torch.Generator().manual_seed(0), **steps, **value).images
            assert len(images) == value["batch_size"]

        return Reader(st.one_of(calls, samplings), read)

    return make


READERS: dict[str, Callable[[Path], Reader]] = {
    "NIfTI": _nifti,
    "Info.cfg": _info,
    "cohort.csv": _table,
    "M&Ms table": _challenge(find_mnms, "mnms"),
    "M&Ms-2 table": _challenge(find_mnms2, "mnms2"),
    "manifest.jsonl": _manifest,
    "generation.json": _generation,
    "report.json": _report,
    "training_config.json": _training,
    "preparation.json": _preparation,
    "metrics.jsonl": _metrics,
    "model_index.json, DCGAN": _model_file("dcgan", "paper", "model_index.json"),
    "model_index.json, tuned DDPM": _model_file("ddpm", "tuned", "model_index.json"),
    "config.json, AC-GAN": _model_file("acgan", "paper", "config.json"),
    "config.json, paired AC-GAN": _model_file("acgan", "paired", "config.json"),
    "config.json, DDPM": _model_file("ddpm", "paper", "config.json"),
    "scheduler_config.json": _model_file("ddpm", "tuned", "scheduler_config.json"),
    "weights": _model_file("dcgan", "paper", "*.safetensors"),
    "weights' header": _weights_header,
    "encoder's config.json": _encoder("config.json"),
    "encoder's training_config.json": _encoder("training_config.json"),
    "encoder's weights": _encoder("diffusion_pytorch_model.safetensors"),
    "conditions, DCGAN": _conditions("dcgan", "paper"),
    "conditions, AC-GAN": _conditions("acgan", "paper"),
    "conditions, paired AC-GAN": _conditions("acgan", "paired"),
    "conditions, tuned DDPM": _conditions("ddpm", "tuned"),
}
