"""Grey pictures of others, read only when they are what they should be: nothing large is unpacked to find out."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


MOST_PIXELS = 2**22  # 2048 x 2048


def picture_size(source: Path | bytes, what: str) -> tuple[int, int]:
    """Width and height of an 8-bit grey picture; its pixels are not unpacked.

    Args:
        source: a file, or its content.
        what: how to call it in a message.

    Raises:
        InputError: if it cannot be read, is not grey, or has more than `MOST_PIXELS` pixels.
    """
    with _opened(source, what) as image:
        return image.size


def read_picture(source: Path | bytes, what: str) -> np.ndarray:
    """The pixels of an 8-bit grey picture, uint8 (H, W).

    Args:
        source: as in `picture_size`.
        what: as in `picture_size`.

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
