"""N images to disk, restartable and by any number of processes.

Image i of seed s is a function of the model, i and s alone: each image has its own random generator, so neither the
batch size nor the number of processes changes it. The files are the record of what is done; a rerun makes those that
are missing.
"""

import gzip
import io
import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.devices import make_accelerator
from hcm_hf.errors import InputError
from hcm_hf.files import replacing, require_empty, write_bytes, write_text
from hcm_hf.pipeline import HCMPipeline, find_pipeline, hash_model, prepare_sampling, read_training
from hcm_hf.version import __version__


SETTINGS_FILE, MANIFEST_FILE, STACK_FILE = "generation.json", "manifest.jsonl", "images.nii.gz"
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
    save_npy: bool = False,
    save_nifti: bool = False,
) -> Path:
    """Generate images into a folder: `000000.png` and so on, and `manifest.jsonl` with one line per image.

    Under `accelerate launch` or `torchrun` the processes share the work. Memory does not grow with `num_images`.

    Args:
        model: folder of a saved pipeline or of a training run, or a repository of the Hub, `user/name[@revision]`.
        output_dir: a new folder, or one that an earlier call with the same model, seed, class, scheduler and steps
            began; what is missing is added. `num_images` may grow from call to call.
        num_images: number of images.
        batch_size: images per call of the pipeline; it changes speed and memory, not images.
        seed: image i comes from the generator of (seed, i).
        class_labels: the class of the images, where the model is conditional; by default the model's, HCM.
        scheduler: of a diffusion model: "ddpm", "ddim", "dpmsolver++" or "unipc"; by default "ddpm".
        num_inference_steps: calls of a diffusion model per image; by default 1000 for ddpm, 50 for ddim and 20 for
            the others.
        save_npy: also save each image as float32 (H, W, 1) in [0, 1], `000000.npy` and so on.
        save_nifti: also save all images as one NIfTI volume (W, H, N), uint8, with the pixel spacing in mm.

    Returns:
        The folder.

    Raises:
        InputError: on bad arguments, or a folder that holds images of another model or other settings, or something
            else.
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
    arguments, sampled_with = prepare_sampling(pipeline, class_labels, scheduler, num_inference_steps)
    settings = {"model": str(model), "model_hash": hash_model(folder), "seed": seed} | sampled_with
    settings["version"] = __version__
    training = read_training(folder)  # whoever scores the images must know what their model has seen
    seen = {key: training[key] for key in ("groups", "train_patients") if key in training}
    _check(output_dir, settings)
    state.wait_for_everyone()

    suffixes = (".png", ".npy") if save_npy else (".png",)
    mine = range(state.process_index, num_images, state.num_processes)
    missing = (i for i in mine if not all(_path(output_dir, i, suffix).exists() for suffix in suffixes))
    pipeline.set_progress_bar_config(desc="Denoising", leave=False, disable=not state.is_main_process)
    with tqdm(total=len(mine), desc="Generating", unit="image", disable=not state.is_main_process) as bar:
        while indices := list(itertools.islice(missing, batch_size)):
            generator = [image_generator(seed, index) for index in indices]
            images = pipeline(batch_size=len(indices), generator=generator, output_type="np", **arguments).images
            if not (output_dir / SETTINGS_FILE).exists():  # not before the model has accepted the arguments
                write_text(output_dir / SETTINGS_FILE, json.dumps(settings | seen, indent=2) + "\n")
            for index, image in zip(indices, images, strict=True):
                _save(image, [_path(output_dir, index, suffix) for suffix in suffixes])
            bar.update(mine.index(indices[-1]) + 1 - bar.n)
        bar.update(len(mine) - bar.n)
    state.wait_for_everyone()

    if state.is_main_process:
        with replacing(output_dir / MANIFEST_FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for index in range(num_images):
                file.write(json.dumps({"file": _path(output_dir, index, ".png").name} | settings) + "\n")
        if save_nifti:
            write_stack(output_dir, num_images, output_dir / STACK_FILE)
    state.wait_for_everyone()
    return output_dir


def image_generator(seed: int, index: int) -> torch.Generator:
    """The source of randomness of image `index` of `seed`, on the CPU whatever the device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def find_images(folder: Path) -> list[Path]:
    """The PNG files in `folder` that are images, in order of their names."""
    return sorted(path for path in folder.glob("*.png") if not path.name.endswith(MASK_SUFFIX))


def write_stack(image_dir: Path, num_images: int, path: Path) -> None:
    """Write the pictures `000000.png` and on in `image_dir` as one NIfTI volume (W, H, N), reading one at a time.

    Args:
        image_dir: holds pictures of one size, each of which covers 128 mm.
        num_images: number of pictures.
        path: the `.nii.gz` file.
    """
    with Image.open(_path(image_dir, 0, ".png")) as first:
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
            with Image.open(_path(image_dir, index, ".png")) as image:
                file.write(np.asarray(image).tobytes())  # rows along Y, so that X varies fastest as NIfTI has it


def _path(folder: Path, index: int, suffix: str) -> Path:
    return folder / f"{index:06d}{suffix}"


def _save(image: np.ndarray, paths: list[Path]) -> None:
    """Write one image (H, W, 1) in [0, 1] at each path, in the format that its suffix names."""
    writers = {
        ".png": lambda file: Image.fromarray(np.rint(image[:, :, 0] * 255).astype(np.uint8)).save(file, format="PNG"),
        ".npy": lambda file: np.save(file, image.astype(np.float32)),
    }
    for path in paths:
        buffer = io.BytesIO()
        writers[path.suffix](buffer)
        write_bytes(path, buffer.getvalue())


def _check(output_dir: Path, settings: dict) -> None:
    """Raise an `InputError` unless images of these settings may go into `output_dir`."""
    path = output_dir / SETTINGS_FILE
    if not path.exists():
        require_empty(output_dir, "--output_dir")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for name in ("model_hash", "seed", "class", "scheduler", "num_inference_steps", "version"):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{output_dir} holds images with {name} {before.get(name)}, not {settings.get(name)}; "
                "name another --output_dir."
            )
