"""Trained models to take home: folders that are repositories of the Hub, their list, and the check that they work."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import tyro
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F
from tqdm.auto import tqdm

from hcm_hf.data.preparation import LICENSES
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.generation.images import image_generator
from hcm_hf.hub.cards import LOSSES, SAMPLES, render_encoder_card
from hcm_hf.hub.commit import CARD, Target, push
from hcm_hf.hub.publishable import read_regular, to_json
from hcm_hf.hub.push import OWN_MODEL_FILES, check_repository
from hcm_hf.hub.repository import METRICS_FILE, find_model, model_files
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, read_training
from hcm_hf.pipelines.notes import without_paths
from hcm_hf.utils.citations import ACDC_CITATION
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import SUMS_FILE, hash_file, replacing, write_bytes, write_sums, write_text
from hcm_hf.utils.hub import checked_token
from hcm_hf.utils.names import CONFIG_FILE, INSTRUMENT_FOLDERS
from hcm_hf.utils.shipped import find_shipped, shipped_folder


OUTPUTS_FILE, LICENSE_FILE = "verification.safetensors", "LICENSE"
NUM_OUTPUTS = 8
TOLERANCE = 1e-4  # of a pixel in [0, 1], between machines
_OTHER_PIXELS = 1e-3  # share of a segmentation that may differ between machines
_LEVELS = 2**16 - 1  # of a stored pixel
_LISTED = ("c2st_auc", "kid_imagenet", "patient_recall", "copy_rate")
_LICENSE = f"""The model in this folder is licensed under CC BY-NC-SA 4.0
==========================================================

It was trained on patients of ACDC, the Automated Cardiac Diagnosis Challenge,
https://www.creatis.insa-lyon.fr/Challenge/acdc/, which is published under the Creative Commons licence
Attribution-NonCommercial-ShareAlike 4.0 International, https://creativecommons.org/licenses/by-nc-sa/4.0/.
The same licence holds for this model and for the images that it generates. Cite:

{ACDC_CITATION}

Research only: not for diagnosis.
"""


def pack(model: Path, output_dir: Path, report: Path | None = None) -> Path:
    """Write a trained model as a folder that is a repository of the Hub; a generator's weights in half precision.

    Score the packed model, then pack it again with its report: half precision is another model than the one trained.
    The networks of the encoder stay as they are, since numbers of different ones do not compare.

    Args:
        model: folder of a training run, of the evaluation's encoder, or of a packed model.
        output_dir: the folder, called as the model is to be called; a packed model there is replaced.
        report: folder of `score`'s report on the packed model.

    Raises:
        InputError: if there is no such model, the report is about another, or `output_dir` holds something else.
    """
    if output_dir.exists() and not _is_packed(output_dir):
        raise InputError(f"output_dir {output_dir} exists and is no packed model; name a new folder.")
    with replacing(output_dir) as temporary:
        if _is_encoder(model):
            if report is not None:
                raise InputError(f"report {report} is about a generator, and model {model} is an encoder.")
            training = _pack_encoder(model, temporary, output_dir.name)
        else:
            training = _pack_generator(model, temporary, output_dir.name, report)
        if training.get("dataset_license") == LICENSES["acdc"]:
            write_text(temporary / LICENSE_FILE, _LICENSE)
        _write_outputs(temporary)
        write_sums(temporary)
    return output_dir


def _is_packed(folder: Path) -> bool:
    return (folder / SUMS_FILE).is_file() and (folder / OUTPUTS_FILE).is_file()


def _is_encoder(folder: Path) -> bool:
    return (folder / INSTRUMENT_FOLDERS[0]).is_dir()


def _pack_generator(model: Path, folder: Path, name: str, report: Path | None) -> dict:
    """Write a generator's repository; return what its training wrote of itself."""
    saved = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(saved)
    pipeline.components[pipeline.network_name].half()
    pipeline.save_pretrained(folder)
    for place in (saved, saved.parent):
        if (place / LOSSES).is_file():
            shutil.copyfile(place / LOSSES, folder / LOSSES)
            break
    found = find_model(folder, report)
    made = model_files(found, name, lambda repository, kind: None)
    for path, data in (made.files | {SAMPLES: made.draw_samples()}).items():
        write_bytes(folder / path, data)
    return found.training


def _pack_encoder(model: Path, folder: Path, name: str) -> dict:
    """Write an encoder's repository; return what the training of its feature encoder wrote of itself."""
    load_encoder(model)  # to see that it is whole
    notes = {}
    for part in INSTRUMENT_FOLDERS:
        source = next(path for path in (model / part, model / part / "best") if (path / "config.json").is_file())
        for name in ("config.json", SAFETENSORS_WEIGHTS_NAME):
            write_bytes(folder / part / name, read_regular(source, name))
        notes[part] = without_paths(json.loads((source / CONFIG_FILE).read_text(encoding="utf-8")))
        write_bytes(folder / part / CONFIG_FILE, to_json(notes[part]))
    write_text(folder / CARD, render_encoder_card(name, notes))
    return notes[INSTRUMENT_FOLDERS[0]]


def _draw(folder: Path) -> dict[str, np.ndarray]:
    """What a packed model makes of fixed input: arrays whose names say what they are.

    A generator: `images` (8, H, W) in [0, 1] of seed 0 and, if it makes them, `masks`. An encoder: `features` of eight
    fixed patterns and `masks` that the segmenter finds in them.
    """
    if _is_encoder(folder):
        encoder = load_encoder(folder)
        size = encoder.features.network.config.sample_size
        noise = torch.rand(NUM_OUTPUTS, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        patterns = F.interpolate(noise, size, mode="bilinear")[:, 0].numpy()
        return {
            "features": encoder.features.predict(patterns).features,
            "masks": encoder.segmenter.predict(patterns).masks,
        }
    pipeline = HCMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        NUM_OUTPUTS, generator=[image_generator(0, index) for index in range(NUM_OUTPUTS)], output_type="np"
    )
    arrays = {"images": np.asarray(output.images[..., 0], np.float32)}
    return arrays | ({"masks": np.asarray(output.masks, np.uint8)} if pipeline.makes_masks else {})


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _write_outputs(folder: Path) -> None:
    arrays = _draw(folder)
    made_by = f"torch {torch.__version__} on {platform.machine()}"
    stored = dict(arrays)
    if "images" in arrays:
        stored["images"] = np.rint(arrays["images"] * _LEVELS).astype(np.uint16)
    save_file(stored, folder / OUTPUTS_FILE, metadata={"sha256": _digest(arrays), "made_by": made_by})


def verify(folder: tyro.conf.Positional[Path | None] = None) -> str:
    """Check trained models: their files' hashes, that they load, and that they draw what they drew when packed.

    Args:
        folder: a packed model, or a folder of them; by default those that come with this package.

    Returns:
        A table: for each model whether its images are identical, or how far they are from those stored.

    Raises:
        InputError: names the model and the file that is damaged, missing or different.
    """
    lines = [[path.name, _verify(path)] for path in tqdm(_packed(folder), desc="Verify", unit="model", leave=False)]
    return markdown_table(["model", "files as packed; outputs"], lines)


def _packed(folder: Path | None) -> list[Path]:
    """The packed models in a folder, or the folder itself."""
    folder = folder or shipped_folder()
    if folder is None:
        find_shipped("", "model")  # says where to get them
        return []
    if (folder / SUMS_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{SUMS_FILE}"))
    if not found:
        raise InputError(
            f"folder {folder} holds no trained model with its {SUMS_FILE}; name pretrained/ or one of its folders."
        )
    return found


def _verify(folder: Path) -> str:
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / SUMS_FILE} cannot be read ({error}); copy the model again.") from error
    for name, digest in expected.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; copy the model again.")
        if hash_file(folder / name) != digest:
            raise InputError(f"{folder / name} is not the file that was packed; copy the model again.")
    if OUTPUTS_FILE not in expected:
        raise InputError(f"{folder / SUMS_FILE} does not name {OUTPUTS_FILE}; copy the model again.")
    drawn = _draw(folder)
    with safe_open(folder / OUTPUTS_FILE, framework="np") as file:
        digest = file.metadata()["sha256"]
    if _digest(drawn) == digest:
        return f"{NUM_OUTPUTS} identical"
    stored, largest = load_file(folder / OUTPUTS_FILE), 0.0
    for name, array in stored.items():
        if name == "masks":
            other = float((array != drawn[name]).mean())
            if other > _OTHER_PIXELS:
                raise InputError(
                    f"{folder.name} segments {other:.1%} of the pixels otherwise than when it was packed."
                )
            continue
        values = array / _LEVELS if array.dtype == np.uint16 else array
        scale = max(1.0, float(np.abs(values).max()))
        largest = max(largest, float(np.abs(values - drawn[name]).max()) / scale)
    if largest > TOLERANCE:
        raise InputError(
            f"{folder.name} makes other outputs than when it was packed: they differ by {largest:.1e}, and at most "
            f"{TOLERANCE:.0e} is allowed between machines; check the version of torch."
        )
    return f"{NUM_OUTPUTS} equal to {largest:.0e} (packed on another machine)"


def list_models(folder: tyro.conf.Positional[Path | None] = None) -> str:
    """List trained models: size, what they can be asked for, scores and time.

    Args:
        folder: a folder of packed models; by default those that come with this package.

    Raises:
        InputError: if there are none.
    """
    lines = []
    for path in _packed(folder):
        size = f"{sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 2**20:.1f}"
        if _is_encoder(path):
            lines.append([path.name, "the evaluation's encoder", size, *[""] * (len(_LISTED) + 1)])
            continue
        pipeline, training = HCMPipeline.from_pretrained(path), read_training(path)
        makes = "slices and masks" if pipeline.makes_masks else "slices"
        asked = [*pipeline.conditions.axes, *pipeline.conditions.ranges]
        words = f"{makes}, {training['resolution']} px" + (f"; for {', '.join(asked)}" if asked else "")
        report = Report.load(path / METRICS_FILE) if (path / METRICS_FILE).is_file() else None
        generated = report.rows["generated"] if report else {}
        scores = [cell(generated[name], name) if name in generated else "" for name in _LISTED]
        speed = report.speed.seconds() if report and report.speed else ""
        lines.append([path.name, words, size, *scores, speed])
    return markdown_table(["model", "makes", "MiB", *_LISTED, "s per 1,000"], lines)


def push_trained(owner: str, folder: Path | None = None, token: str | bool | None = None) -> str:
    """Push each trained model to a repository of its name, in one commit each.

    Args:
        owner: the account or organisation.
        folder: a folder of packed models; by default those that come with this package.
        token: by default that of `hf auth login`.

    Returns:
        The addresses of the commits.
    """
    token, pages = checked_token(token), []
    for path in _packed(folder):
        repo_id = check_repository(f"{owner.rstrip('/')}/{path.name}", "model", None, token)
        names = [one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()]
        files = {name: read_regular(path, name) for name in names if name != SUMS_FILE}
        message = f"{path.name}, as packed"
        if not _is_encoder(path):
            report = path / METRICS_FILE
            made = model_files(
                find_model(path, report if report.is_file() else None), repo_id, lambda name, kind: None
            )
            files, message = files | made.files, made.message
        pages.append(push(Target(repo_id, "model", token=token), files, message, OWN_MODEL_FILES))
    return "\n".join(pages)
