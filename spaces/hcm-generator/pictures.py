"""Images as the files that visitors and agents get."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from generators import Drawing, Request
from PIL import Image

from hcm_hf.data.cropping import FIELD_OF_VIEW
from hcm_hf.generation.images import MANIFEST_FILE, MASK_STACK_FILE, MASK_SUFFIX, STACK_FILE, write_stack
from hcm_hf.hub.serving import new_folder
from hcm_hf.metrics.anatomy import closed_wall_thickness
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.pictures import draw_masks, image_grid
from hcm_hf.version import __version__


SHOWN_PIXELS = 256  # a side of an image on the page; the files keep their size


def captions_of(drawing: Drawing) -> list[str]:
    """What the images were asked to show, with the wall of their segmentation in mm, or their numbers."""
    if not drawing.conditions:
        return [str(index) for index in range(len(drawing.images))]
    words = [" ".join(one for one in answers.values() if isinstance(one, str)) for answers in drawing.conditions]
    if drawing.masks is None:
        return words
    walls = closed_wall_thickness(drawing.masks, FIELD_OF_VIEW / drawing.masks.shape[-1])
    return [word + (f" · {wall:.0f} mm" if np.isfinite(wall) else "") for word, wall in zip(words, walls, strict=True)]


def show_images(drawing: Drawing, overlay: bool = False) -> list[tuple[str, str]]:
    """Pictures of the images, with their captions."""
    folder, images = new_folder(), _coloured(drawing) if overlay else drawing.images
    shown = (show([image[None]], folder / f"{index:06d}.png") for index, image in enumerate(images))
    return list(zip(shown, captions_of(drawing), strict=True))


def show_grid(drawing: Drawing, columns: int, overlay: bool = False) -> str:
    """One picture of all images in rows of `columns`; the last row may end in black."""
    images = _coloured(drawing) if overlay else drawing.images
    filled = np.zeros((-(-len(images) // columns) * columns, *images.shape[1:]), images.dtype)
    filled[: len(images)] = images
    return show(filled.reshape(-1, columns, *images.shape[1:]), new_folder() / "images.png", gap=2)


def show(rows: Sequence[np.ndarray], path: Path, gap: int = 0) -> str:
    """Rows of images (N, H, W) or (N, H, W, 3), enlarged for the page, as a file.

    gradio copies a file once, but writes the same picture anew each time, even while somebody is loading it.
    """
    image_grid(rows, _enlargement(rows[0].shape[1]), gap=gap).save(path, format="PNG")
    return str(path)


def show_file(path: Path | None) -> str | None:
    """A copy where gradio may read: it serves nothing of the folders that models lie in."""
    return None if path is None else shutil.copyfile(path, new_folder() / path.name)


def draw_histogram(heldout: np.ndarray, value: float, threshold: float) -> object:
    """How alike held-out slices are to training slices, and where an image stands among them."""
    figure = new_figure(7, 2.4)
    axes = figure.add_subplot(xlabel="CC", yticks=[])
    axes.hist(heldout, bins=24, color="#bbb")
    axes.axvline(threshold, color="#c33", linestyle=":", label="99 %")
    axes.axvline(value, color="#000", linewidth=2)
    axes.legend(frameon=False, loc="center left")
    return figure


def write_archive(request: Request, drawing: Drawing) -> tuple[str, str, str | None]:
    """A zip of PNG files with `manifest.jsonl`, a NIfTI volume of all images, and one of the masks, if any."""
    left_out = ("num_images", "conditions")  # which stand beside each image
    settings = {key: value for key, value in vars(request).items() if value is not None and key not in left_out}
    folder, count = new_folder(), len(drawing.images)
    name = f"{request.model.replace('/', '-')}-seed{request.seed}"
    pictures = {".png": np.rint(drawing.images * 255).astype(np.uint8)}
    if drawing.masks is not None:
        pictures[MASK_SUFFIX] = drawing.masks
    with ZipFile(folder / f"{name}.zip", "w", ZIP_STORED) as archive:
        lines = []
        for index in range(count):
            files = {suffix: f"{index:06d}{suffix}" for suffix in pictures}
            for suffix, file in files.items():
                Image.fromarray(pictures[suffix][index]).save(folder / file, format="PNG")
                archive.write(folder / file, file)
            entry = {"file": files[".png"]}
            if drawing.masks is not None:
                entry["mask"] = files[MASK_SUFFIX]
            if drawing.conditions:
                entry |= drawing.conditions[index]
            lines.append(json.dumps({**entry, **settings, "version": __version__, "synthetic": True}) + "\n")
        archive.writestr(MANIFEST_FILE, "".join(lines))
    stack, masks = folder / f"{name}-{STACK_FILE}", None
    write_stack(folder, count, stack)
    if drawing.masks is not None:
        masks = folder / f"{name}-{MASK_STACK_FILE}"
        write_stack(folder, count, masks, MASK_SUFFIX)
    for file in folder.glob("*.png"):
        file.unlink()
    return str(folder / f"{name}.zip"), str(stack), masks and str(masks)


def _coloured(drawing: Drawing) -> np.ndarray:
    """The images with their segmentations, where there are any."""
    if drawing.masks is None:
        return drawing.images
    return draw_masks(drawing.images, drawing.masks, _enlargement(drawing.images.shape[-1]))


def _enlargement(side: int) -> int:
    return max(1, SHOWN_PIXELS // side)
