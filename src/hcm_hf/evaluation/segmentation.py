"""The segmenter as a function, for the preparation of patients without masks."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.encoder import Instrument, load_segmenter
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.shipped import find_shipped, shipped_folder


PUBLISHED = "hcm-encoder-64"
_SIZE = 64  # pixels a side of the slices that hearts are looked for in


def find_segmenter(folder: Path | None = None) -> Callable[[np.ndarray], np.ndarray] | None:
    """The segmenter of an encoder's folder as a function that other processes can be given.

    Args:
        folder: of the encoder, or a trained one's name; by default the one that comes with this package, if it is
            there.

    Returns:
        A function of slices, uint8 (N, 64, 64), that returns their masks, uint8 (N, 64, 64) of `STRUCTURES`; None
        without an encoder.

    Raises:
        InputError: if the folder that was named holds none, or one of another size.
    """
    if folder is None:
        shipped = shipped_folder()
        found = shipped / PUBLISHED if shipped else None
        if found is None or not found.is_dir():
            return None
    else:
        found = find_shipped(folder, "segmenter")
        if (size := _load(found).network.config.sample_size) != _SIZE:
            raise InputError(f"segmenter {folder} was trained on slices of {size} px; name one of {_SIZE} px.")
    return partial(segment, str(found.absolute()))


def segment(folder: str, images: np.ndarray) -> np.ndarray:
    """Segment slices, uint8 (N, 64, 64), with the segmenter in a folder; masks are uint8 (N, 64, 64)."""
    return _load(Path(folder)).predict(images.astype(np.float32) / 255).masks


@lru_cache(maxsize=1)
def _load(folder: Path) -> Instrument:
    return load_segmenter(folder)
