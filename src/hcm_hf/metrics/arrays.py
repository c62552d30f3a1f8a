"""What metrics ask of the arrays that they are given."""

import numpy as np

from hcm_hf.utils.errors import InputError


def check_features(name: str, array: np.ndarray, least: int = 2) -> None:
    """Raise an `InputError` unless an array holds features (N, D): finite floats, in at least so many rows."""
    _check_floats(name, array, 2, "(N, D)", least)


def check_images(name: str, array: np.ndarray) -> None:
    """Raise an `InputError` unless an array holds images (N, H, W): floats in [0, 1]."""
    _check_floats(name, array, 3, "(N, H, W)", 1)
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise InputError(f"{name} holds values from {low} to {high}; expected values in [0, 1].")


def _check_floats(name: str, array: np.ndarray, ndim: int, shape: str, least: int) -> None:
    if array.ndim != ndim or 0 in array.shape[1:] or not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} must be floats of shape {shape}, not {array.dtype} of shape {array.shape}.")
    if len(array) < least:
        raise InputError(f"{name} has {len(array)} rows, but at least {least} are needed.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinite values.")
