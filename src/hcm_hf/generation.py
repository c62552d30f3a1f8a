"""N images to disk, with their segmentations where the model makes them; restartable and by any number of processes.

Image i of seed s is a function of the model, i and s alone: each image has its own random generator, so neither the
batch size nor the number of processes changes it. The files are the record of what is done; a rerun makes those that
are missing.
"""

import gzip
import io
import itertools
import json
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.devices import make_accelerator
from hcm_hf.errors import InputError
from hcm_hf.files import replacing, require_empty, write_bytes, write_text
from hcm_hf.generated_dataset import check_labels, plan_dataset, write_dataset
from hcm_hf.paired_pipeline import PairedDDPMPipeline
from hcm_hf.pipeline import HCMPipeline, find_pipeline, hash_model, prepare_sampling, read_training
from hcm_hf.version import __version__


SETTINGS_FILE, MANIFEST_FILE = "generation.json", "manifest.jsonl"
STACK_FILE, MASK_STACK_FILE, DATASET_FOLDER = "images.nii.gz", "masks.nii.gz", "dataset"
MASK_SUFFIX = "_mask.png"  # of the segmentation beside an image
NIFTI_LIMIT = 32767  # a NIfTI-1 axis is counted in 16 bits


def generate_images(
    model: str | Path,
    output_dir: str | Path,
    num_images: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    class_labels: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    save_npy: bool = False,
    save_nifti: bool = False,
    save_dataset: bool = False,
) -> Path:
    """Generate images into a folder: `000000.png` and so on, and `manifest.jsonl` with one line per image.

    Where the model makes segmentations, each image has one, `000000_mask.png` with the labels of ACDC (0 background,
    1 right ventricle's cavity, 2 myocardium, 3 left ventricle's cavity), and its line says what both show: `group`,
    `phase` and `level`.

    Under `accelerate launch` or `torchrun` the processes share the work, in the precision that accelerate is told.
    Memory does not grow with `num_images`, except with `save_dataset`.

    Args:
        model: folder of a saved pipeline or of a training run, or a repository of the Hub, `user/name[@revision]`.
        output_dir: a new folder, or one that an earlier call with the same model, seed, class, scheduler, steps and
            guidance began; what is missing is added. `num_images` may grow from call to call.
        num_images: number of images.
        batch_size: images per call of the pipeline; it changes speed and memory, not images.
        seed: image i comes from the generator of (seed, i).
        class_labels: what the images show, where the model is conditional; by default the model's, HCM. A model that
            makes segmentations takes "NOR", "HCM ED mid", or "any" for all groups; what is left open is drawn as it
            was met in training.
        scheduler: of a diffusion model: "ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++" or "unipc"; by default the
            model's own.
        num_inference_steps: calls of a diffusion model per image; by default the model's own number or, with another
            scheduler than its own, 1000 for ddpm, 50 for ddim and 20 for the others.
        guidance_scale: of a diffusion model with classes, how closely they are followed; by default 1, no guidance.
        save_npy: also save each image as float32 (H, W, 1) in [0, 1], `000000.npy` and so on.
        save_nifti: also save all images as one NIfTI volume (W, H, N), uint8, with the pixel spacing in mm, and all
            segmentations as another.
        save_dataset: also save images and segmentations as a prepared dataset, `dataset/`, that is split 70/10/20;
            each slice stands for a patient, and for the first, middle or last of three slices as its level says.

    Returns:
        The folder.

    Raises:
        InputError: on bad arguments, a folder that holds images of another model or other settings, or something
            else, or a dataset of too few images or of a model without masks or labels for it.
    """
    if num_images < 1:
        raise InputError(f"--num_images is {num_images}; ask for one image or more.")
    if batch_size < 1:
        raise InputError(f"--batch_size is {batch_size}; it must be at least 1.")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more.")
    if save_nifti and num_images > NIFTI_LIMIT:
        raise InputError(f"--save_nifti takes {NIFTI_LIMIT} images at most, not {num_images}; leave it out.")
    state, output_dir = make_accelerator(), Path(output_dir)
    folder = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(folder, device=state.device)
    arguments, sampled_with = prepare_sampling(pipeline, class_labels, scheduler, num_inference_steps, guidance_scale)
    settings = {"model": str(model), "model_hash": hash_model(folder), "seed": seed} | sampled_with
    settings["version"] = __version__
    if state.mixed_precision != "no":
        settings["mixed_precision"] = state.mixed_precision
    training = read_training(folder)  # whoever scores the images must know what their model has seen
    seen = {key: training[key] for key in ("groups", "train_patients") if key in training}
    describe = partial(_describe, pipeline, seed, class_labels, settings)
    if save_dataset:  # what is wrong with it shows before an image is made
        check_labels(pipeline, class_labels)
        entries = [describe(index) for index in range(num_images)]
        report = plan_dataset(entries, pipeline.sample_size, seed, settings, training)
    _check(output_dir, settings)
    state.wait_for_everyone()

    masked = isinstance(pipeline, PairedDDPMPipeline)
    suffixes = [*([MASK_SUFFIX] if masked else []), ".png", *([".npy"] if save_npy else [])]
    mine = range(state.process_index, num_images, state.num_processes)
    missing = (i for i in mine if not all(_path(output_dir, i, suffix).exists() for suffix in suffixes))
    pipeline.set_progress_bar_config(desc="Denoising", leave=False, disable=not state.is_main_process)
    with tqdm(total=len(mine), desc="Generating", unit="image", disable=not state.is_main_process) as bar:
        while indices := list(itertools.islice(missing, batch_size)):
            generator = [image_generator(seed, index) for index in indices]
            with state.autocast():
                output = pipeline(batch_size=len(indices), generator=generator, output_type="np", **arguments)
            if not (output_dir / SETTINGS_FILE).exists():  # not before the model has accepted the arguments
                write_text(output_dir / SETTINGS_FILE, json.dumps(settings | seen, indent=2) + "\n")
            contents = {suffix: _CONTENTS[suffix](output) for suffix in suffixes}
            for place, index in enumerate(indices):
                for suffix, arrays in contents.items():
                    _save(arrays[place], _path(output_dir, index, suffix))
            bar.update(mine.index(indices[-1]) + 1 - bar.n)
        bar.update(len(mine) - bar.n)
    state.wait_for_everyone()

    if state.is_main_process:
        with replacing(output_dir / MANIFEST_FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for index in range(num_images):
                file.write(json.dumps(describe(index)) + "\n")
        if save_nifti:
            write_stack(output_dir, num_images, output_dir / STACK_FILE)
            if masked:
                write_stack(output_dir, num_images, output_dir / MASK_STACK_FILE, MASK_SUFFIX)
        if save_dataset:
            write_dataset(output_dir, entries, report, output_dir / DATASET_FOLDER)
    state.wait_for_everyone()
    return output_dir


def image_generator(seed: int, index: int) -> torch.Generator:
    """The source of randomness of image `index` of `seed`, on the CPU whatever the device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def find_images(folder: Path) -> list[Path]:
    """The PNG files in `folder` that are images, in order of their names."""
    return sorted(path for path in folder.glob("*.png") if not path.name.endswith(MASK_SUFFIX))


def write_stack(image_dir: Path, num_images: int, path: Path, suffix: str = ".png") -> None:
    """Write the pictures `000000.png` and on in `image_dir` as one NIfTI volume (W, H, N), reading one at a time.

    Args:
        image_dir: holds pictures of one size, each of which covers 128 mm.
        num_images: number of pictures.
        path: the `.nii.gz` file.
        suffix: what the pictures' names end with, after the number.
    """
    with Image.open(_path(image_dir, 0, suffix)) as first:
        width, height = first.size
    header = nibabel.Nifti1Header()
    header.set_data_shape((width, height, num_images))
    header.set_data_dtype(np.uint8)
    header.set_zooms((FIELD_OF_VIEW / width, FIELD_OF_VIEW / height, 1.0))  # the third axis counts images
    header.set_xyzt_units("mm")
    header["descrip"] = f"hcm_hf {__version__}, synthetic"
    header["magic"], header["vox_offset"] = b"n+1", 352
    with replacing(path) as temporary, gzip.open(temporary, "wb") as file:
        header.write_to(file)
        for index in range(num_images):
            with Image.open(_path(image_dir, index, suffix)) as image:
                file.write(np.asarray(image).tobytes())  # rows along Y, so that X varies fastest as NIfTI has it


def _path(folder: Path, index: int, suffix: str) -> Path:
    return folder / f"{index:06d}{suffix}"


def _describe(pipeline: DiffusionPipeline, seed: int, class_labels: str | None, settings: dict, index: int) -> dict:
    """What the manifest says of image `index`: its files, what it shows, and `settings`."""
    entry = {"file": f"{index:06d}.png"}
    if isinstance(pipeline, PairedDDPMPipeline):  # which draws the label before all else: no need to keep it
        label = pipeline.draw_labels(1, [image_generator(seed, index)], class_labels)
        entry |= {"mask": f"{index:06d}{MASK_SUFFIX}"} | pipeline.conditions.describe(label.item())
    return entry | settings


# What the files of images hold, by their suffix, from a pipeline's output.
_CONTENTS = {
    MASK_SUFFIX: lambda output: output.masks,
    ".png": lambda output: np.rint(output.images[..., 0] * 255).astype(np.uint8),
    ".npy": lambda output: output.images.astype(np.float32),
}


def _save(array: np.ndarray, path: Path) -> None:
    """Write an array at a path: uint8 (H, W) as a picture, what is for a `.npy` as it is."""
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, array)
    else:
        Image.fromarray(array).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _check(output_dir: Path, settings: dict) -> None:
    """Raise an `InputError` unless images of these settings may go into `output_dir`."""
    path = output_dir / SETTINGS_FILE
    if not path.exists():
        require_empty(output_dir, "--output_dir")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    sampling = ("class", "scheduler", "num_inference_steps", "guidance_scale", "mixed_precision")
    for name in ("model_hash", "seed", *sampling, "version"):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{output_dir} holds images with {name} {before.get(name)}, not {settings.get(name)}; "
                "name another --output_dir."
            )
