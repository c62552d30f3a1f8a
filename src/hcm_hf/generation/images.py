"""N images to disk, with their segmentations where the model makes them; restartable and by any number of processes.

Image i of seed s is a function of the model, i and s alone: each image has its own random generator, so neither the
batch size nor the number of processes changes it. The files are the record of what is done; a rerun makes those that
are missing.
"""

import gzip
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm.auto import tqdm

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.generation.dataset import check_labels, plan_dataset, write_dataset
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.pipelines.notes import check_notes
from hcm_hf.pipelines.sampling import DEFAULT_SAMPLING, OF_DIFFUSION, Sampling
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.devices import autocast, find_device, make_accelerator
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import read_json, replacing, require_empty, sync, write_bytes, write_text
from hcm_hf.version import __version__


SETTINGS_FILE, MANIFEST_FILE = "generation.json", "manifest.jsonl"
STACK_FILE, MASK_STACK_FILE, DATASET_FOLDER = "images.nii.gz", "masks.nii.gz", "dataset"
MASK_SUFFIX = "_mask.png"  # of the segmentation beside an image
NIFTI_LIMIT = 32767  # a NIfTI-1 axis is counted in 16 bits
TRAINED_IN = "training_precision"  # under this key the settings hold the precision of the model's training
_AT_ONCE = 1000  # sources of randomness in memory
_ALIGNED = 2  # NIfTI's code for what the axes refer to, as in ACDC's volumes
_SHOWN = "hcm_hf"  # under this key an image's PNG holds what it shows


def generate_images(
    model: str | Path,
    output_dir: str | Path,
    num_images: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    sampling: Sampling = DEFAULT_SAMPLING,
    save_npy: bool = False,
    save_nifti: bool = False,
    save_dataset: bool = False,
    device: str | None = None,
) -> Path:
    """Generate images into a folder; run again, it adds what is missing.

    The folder gets `000000.png` and so on, and `manifest.jsonl` with one line per image.
    Where the model makes segmentations, each image has one, `000000_mask.png` with the labels of ACDC (0 background,
    1 right ventricle's cavity, 2 myocardium, 3 left ventricle's cavity), and its line says what both show: `group`,
    `phase` and `level`. The image's PNG says so too, so that images of earlier calls keep their labels.

    Under `accelerate launch` or `torchrun` the processes share the work, in the precision that accelerate is told.
    Images are not kept in memory.

    Args:
        model: folder of a saved pipeline or of a training run, or a repository of the Hub, `user/name[@revision]`.
        output_dir: a new folder, or one that an earlier call with the same model, seed, class, scheduler, steps and
            guidance began; what is missing is added. `num_images` may grow from call to call.
        num_images: number of images.
        batch_size: images per call of the pipeline; it changes speed and memory, not images.
        seed: image i comes from the generator of (seed, i).
        sampling: what the images show and how they are sampled; by default as the model says.
        save_npy: also save each image as float32 (H, W, 1) in [0, 1], `000000.npy` and so on.
        save_nifti: also save all images as one NIfTI volume (W, H, N), uint8, with the pixel spacing in mm and the
            orientation of ACDC, and all segmentations as another.
        save_dataset: also save images and segmentations as a dataset of Parquet files, `dataset/`, that is split
            70/10/20, and that `datasets.load_dataset` opens too, streaming or not; each slice stands for a patient,
            and for the first, middle or last of three slices as its level says.
        device: where to compute, such as cpu or cuda:1; by default the accelerator if there is one.

    Returns:
        The folder.

    Raises:
        InputError: on bad arguments, a folder that holds images of another model or other settings, or something
            else, or a dataset of too few images or of a model without masks or labels for it.
    """
    at_least("num_images", num_images, 1)
    at_least("batch_size", batch_size, 1)
    at_least("seed", seed, 0)
    if save_nifti and num_images > NIFTI_LIMIT:
        raise InputError(f"save_nifti takes {NIFTI_LIMIT} images at most, not {num_images}; leave it out.")
    state, output_dir = make_accelerator(), Path(output_dir)
    where = state.device if device is None else find_device(device)
    folder = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(folder, device=where)
    pipeline, sampling = sampling.applied_to(pipeline)
    settings = {"model": str(model), "model_hash": hash_model(folder), "seed": seed} | sampling.noted
    settings["version"] = __version__
    if state.mixed_precision != "no":
        settings["mixed_precision"] = state.mixed_precision
    training = pipeline.training_config  # whoever scores the images must know what their model has seen
    seen = {key: training[key] for key in ("groups", "target_group", "train_patients") if key in training}
    if "mixed_precision" in training:
        seen[TRAINED_IN] = training["mixed_precision"]
    if save_dataset:  # what is wrong with it shows before an image is made
        check_labels(pipeline, sampling)
        foreseen = list(_foreseen_groups(pipeline, num_images, seed, sampling))
        plan_dataset(foreseen, pipeline.sample_size, seed, settings, training)
    _check(output_dir, settings)
    state.wait_for_everyone()

    masked = pipeline.makes_masks
    suffixes = [*([MASK_SUFFIX] if masked else []), ".png", *([".npy"] if save_npy else [])]
    mine = range(state.process_index, num_images, state.num_processes)
    missing = (index for index in mine if not _is_made(output_dir, index, suffixes))
    pipeline.set_progress_bar_config(desc="Denoising", leave=False, disable=not state.is_main_process)
    with tqdm(total=len(mine), desc="Generating", unit="image", disable=not state.is_main_process) as bar:
        while indices := list(itertools.islice(missing, batch_size)):
            generator = [image_generator(seed, index) for index in indices]
            with autocast(where, state.mixed_precision):
                output = pipeline(batch_size=len(indices), generator=generator, output_type="np", **sampling.arguments)
            if not (output_dir / SETTINGS_FILE).exists():  # not before the model has accepted the arguments
                write_text(output_dir / SETTINGS_FILE, json.dumps(settings | seen, indent=2) + "\n")
            for place, index in enumerate(indices):
                for suffix in suffixes:
                    write_bytes(_path(output_dir, index, suffix), _encode(output, place, suffix), lasting=False)
            bar.update(mine.index(indices[-1]) + 1 - bar.n)
        bar.update(len(mine) - bar.n)
    for path in (_path(output_dir, index, suffix) for index in mine for suffix in suffixes):
        sync(path)  # all at the end, which takes a fraction of the time
    state.wait_for_everyone()

    if state.is_main_process:
        with replacing(output_dir / MANIFEST_FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for index in range(num_images):
                file.write(json.dumps(_entry(output_dir, index, masked) | settings) + "\n")
        if save_nifti:
            write_stack(output_dir, num_images, output_dir / STACK_FILE)
            if masked:
                write_stack(output_dir, num_images, output_dir / MASK_STACK_FILE, MASK_SUFFIX)
        if save_dataset:
            groups = pipeline.conditions.axes["group"]
            entry_of = partial(_entry, output_dir, masked=True)
            shown = [entry_of(index)["group"] for index in range(num_images)]
            report = plan_dataset(shown, pipeline.sample_size, seed, settings, training)
            write_dataset(output_dir, entry_of, report, groups, output_dir / DATASET_FOLDER)
    state.wait_for_everyone()
    return output_dir


def image_generator(seed: int, index: int) -> torch.Generator:
    """The source of randomness of image `index` of `seed`, on the CPU whatever the device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def read_settings(folder: Path) -> dict:
    """What a folder of generated images says of their model and settings; empty for images from elsewhere.

    Raises:
        InputError: if it is damaged; names the file.
    """
    path = folder / SETTINGS_FILE
    return check_notes(read_json(path), path, "generate the images again") if path.is_file() else {}


def find_images(folder: Path) -> list[Path]:
    """The PNG files in `folder` that are images, in order of their names."""
    return sorted(path for path in folder.glob("*.png") if not path.name.endswith(MASK_SUFFIX))


def write_stack(image_dir: Path, num_images: int, path: Path, suffix: str = ".png") -> None:
    """Write the pictures `000000.png` and on in a folder as one NIfTI volume (W, H, N), reading one at a time.

    The pictures, whose names end with `suffix`, have one size and cover 128 mm. The axes are those of ACDC: columns
    run to the patient's left, rows to the back. The third axis counts images.
    """
    with Image.open(_path(image_dir, 0, suffix)) as first:
        width, height = first.size
    affine = np.diag([-FIELD_OF_VIEW / width, -FIELD_OF_VIEW / height, 1.0, 1.0])
    shape = np.broadcast_to(np.uint8(0), (width, height, num_images))  # takes no memory
    header = nibabel.Nifti1Image(shape, affine).header
    header.set_sform(affine, _ALIGNED)
    header.set_qform(affine, _ALIGNED)
    header.set_xyzt_units("mm")
    header["descrip"] = f"hcm_hf {__version__}, synthetic"
    # Without its name and the time the same pictures make the same file.
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as packed,
        gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as file,
    ):
        header.write_to(file)
        for index in range(num_images):
            with Image.open(_path(image_dir, index, suffix)) as image:
                file.write(np.asarray(image).tobytes())  # rows along Y, so that X varies fastest as NIfTI has it


def _path(folder: Path, index: int, suffix: str) -> Path:
    return folder / f"{index:06d}{suffix}"


def _entry(folder: Path, index: int, masked: bool) -> dict:
    """The files of an image and, of one with a segmentation, what it says that it shows."""
    entry = {"file": f"{index:06d}.png"}
    if not masked:
        return entry
    return entry | {"mask": f"{index:06d}{MASK_SUFFIX}"} | _read_shown(_path(folder, index, ".png"))


def _foreseen_groups(pipeline: HCMPipeline, num_images: int, seed: int, sampling: Sampling) -> Iterator[str]:
    """The group of each image, before any is made."""
    for first in range(0, num_images, _AT_ONCE):
        generators = [image_generator(seed, index) for index in range(first, min(first + _AT_ONCE, num_images))]
        for label in pipeline.draw_labels(len(generators), generators, sampling.conditions).tolist():
            yield str(pipeline.conditions.describe(label)["group"])


def _is_made(folder: Path, index: int, suffixes: Sequence[str]) -> bool:
    """Whether an image has all of its files, whole, and says what it shows if it has a segmentation."""
    if not all(_is_whole(_path(folder, index, suffix)) for suffix in suffixes):
        return False
    return MASK_SUFFIX not in suffixes or bool(_read_shown(_path(folder, index, ".png")))


def _is_whole(path: Path) -> bool:
    """Whether a picture or array is there, and not cut short or changed, as a power cut or a bad disk leaves it."""
    if not path.exists():
        return False
    try:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        else:
            with Image.open(path) as image:
                image.verify()
    except (OSError, SyntaxError, ValueError, EOFError):  # Pillow's SyntaxError: a broken chunk
        return False
    return True


def _read_shown(path: Path) -> dict:
    """What an image with a segmentation shows; empty if it does not say."""
    with Image.open(path) as image:
        return json.loads(image.info.get(_SHOWN, "{}"))


def _encode(output: BaseOutput, place: int, suffix: str) -> bytes:
    """What a file of an image holds, by its suffix, from the pipeline's output of several: a picture, or an array."""
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, output.images[place].astype(np.float32))
    elif suffix == MASK_SUFFIX:
        Image.fromarray(output.masks[place]).save(buffer, format="PNG")
    else:
        notes = PngInfo()
        if "conditions" in output:
            notes.add_text(_SHOWN, json.dumps(output.conditions[place]))
        pixels = np.rint(output.images[place, ..., 0] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=notes)
    return buffer.getvalue()


def _check(output_dir: Path, settings: dict) -> None:
    """Raise an `InputError` unless images of these settings may go into `output_dir`."""
    if not (output_dir / SETTINGS_FILE).exists():
        require_empty(output_dir, "output_dir")
        return
    before = read_settings(output_dir)
    for name in ("model_hash", "seed", "class", *OF_DIFFUSION, "mixed_precision", "version"):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{output_dir} holds images with {name} {before.get(name)}, not {settings.get(name)}; "
                "name another output_dir."
            )
