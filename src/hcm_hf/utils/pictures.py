"""Pictures: reading 8-bit grey ones, and drawing grids of images and segmentations.

A picture is checked before it is unpacked, so a very large one costs no memory.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained, write_bytes


MOST_PIXELS = 2**22  # 2048 x 2048
# Colours of the mask's values 1 to 3, from the palette of Okabe and Ito, which colour-blind readers can tell apart.
STRUCTURE_COLORS = {"rv": (86, 180, 233), "myo": (240, 228, 66), "lv": (213, 94, 0)}
_TINT = 0.15  # opacity within the outlines


def picture_size(source: Path | bytes, what: str) -> tuple[int, int]:
    """Width and height of an 8-bit grey picture, a file or its content, without unpacking its pixels.

    Raises:
        InputError: if it cannot be read, is not grey, or has more than `MOST_PIXELS` pixels.
    """
    with _opened(source, what) as image:
        return image.size


def read_picture(source: Path | bytes, what: str) -> np.ndarray:
    """The pixels of an 8-bit grey picture, uint8 (H, W); the arguments are those of `picture_size`.

    Raises:
        InputError: as `picture_size`, and if the picture is damaged.
    """
    with _opened(source, what) as image:
        return np.asarray(image)


@contextmanager
def _opened(source: Path | bytes, what: str) -> Iterator[Image.Image]:
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with explained(what), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            with Image.open(stream) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise InputError(f"{what} has {width} x {height} pixels; at most {MOST_PIXELS} are read.")
                if image.mode != "L":
                    raise InputError(f"{what} has mode {image.mode}; expected 8-bit grey (L).")
                yield image
    except Image.DecompressionBombError as error:
        raise InputError(f"{what} has too many pixels; at most {MOST_PIXELS} are read.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's SyntaxError: a broken PNG chunk
        raise InputError(f"{what} cannot be read as an image; remove it or write it again.") from error


def image_grid(rows: Sequence[np.ndarray], scale: int = 2, gap: int = 2) -> Image.Image:
    """Lay out rows of images on white, with a gap in pixels; each pixel is enlarged `scale` times.

    A row is an array (N, H, W) in [0, 1], or (N, H, W, 3) in colour; all have one image size, N may differ.
    """
    height, width = (side * scale + gap for side in rows[0].shape[1:3])
    columns = max(map(len, rows))
    canvas = np.full((len(rows) * height - gap, columns * width - gap, *rows[0].shape[3:]), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
            tile = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[i * height : i * height + height - gap, j * width : j * width + width - gap] = tile
    return Image.fromarray(canvas)


def draw_masks(images: np.ndarray, masks: np.ndarray, scale: int = 2) -> np.ndarray:
    """Outline and tint the structures of masks in `STRUCTURE_COLORS` on their images.

    Args:
        images: (N, H, W) in [0, 1].
        masks: whole numbers (N, H, W), 0 to 3.
        scale: whole-number enlargement; outlines are half an image's pixel wide.

    Returns:
        (N, H scale, W scale, 3) in [0, 1].
    """
    images, masks = (array.repeat(scale, axis=1).repeat(scale, axis=2) for array in (images, masks))
    height, width = masks.shape[1:]
    reach = max(1, scale // 2)
    padded = np.pad(masks, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    corners = ((0, reach), (2 * reach, reach), (reach, 0), (reach, 2 * reach))
    neighbours = [padded[:, top : top + height, left : left + width] for top, left in corners]
    edges = np.any([neighbour != masks for neighbour in neighbours], axis=0)
    opacity = np.where(masks == 0, 0, np.where(edges, 1, _TINT))[..., None]
    colors = np.array([(0, 0, 0), *STRUCTURE_COLORS.values()])[masks] / 255
    return (1 - opacity) * np.clip(images, 0, 1)[..., None] + opacity * colors


def write_captions(images: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Write a word into the lower left corner of each image.

    Args:
        images: (N, H, W, 3) in [0, 1].
        captions: N words.

    Returns:
        As `images`, in steps of 1/255.
    """
    written = []
    for image, caption in zip(images, captions, strict=True):
        picture = Image.fromarray((image * 255).round().astype(np.uint8))
        place = (image.shape[0] // 32, image.shape[0] - image.shape[0] // 32)
        size = max(8, image.shape[0] // 9)
        style = {"fill": "white", "stroke_fill": "black", "stroke_width": 1, "anchor": "ls", "font_size": size}
        ImageDraw.Draw(picture).text(place, caption, **style)
        written.append(np.asarray(picture) / 255)
    return np.stack(written)


def save_png(image: Image.Image, path: str | Path) -> None:
    """Save a picture as PNG, whole or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def write_grid(
    real: np.ndarray, generated: np.ndarray, figure_file: str | Path, columns: int = 10, seed: int = 0
) -> None:
    """Write a row of random real images above three rows of the first generated ones, as PNG.

    Both are (N, H, W) in [0, 1], of one image size; a row has `columns` images at most.
    """
    chosen = np.random.default_rng(seed).permutation(len(real))[:columns]
    generated = generated[: 3 * columns]
    rows = [generated[i : i + columns] for i in range(0, len(generated), columns)]
    write_rows({"real": [real[chosen]], "generated": rows}, figure_file)


def write_rows(rows: Mapping[str, Sequence[np.ndarray]], figure_file: str | Path) -> None:
    """Write rows of images as of `image_grid`, one or more for each label, as PNG.

    A label stands at the left, at the middle of its rows.
    """
    arrays = [row for group in rows.values() for row in group]
    grid = image_grid(arrays, scale=max(1, 128 // arrays[0].shape[1]))
    row, margin = grid.height / len(arrays), 20
    canvas = Image.new(grid.mode, (grid.width + margin, grid.height), "white")
    canvas.paste(grid, (margin, 0))
    top = 0.0
    for text, group in rows.items():
        height = row * len(group)
        label = Image.new("L", (round(height), margin), 255)
        ImageDraw.Draw(label).text((height / 2, margin / 2), text, fill=0, anchor="mm", font_size=14)
        canvas.paste(label.rotate(90, expand=True), (0, round(top)))
        top += height
    save_png(canvas, figure_file)
