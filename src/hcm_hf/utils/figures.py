"""Figures by matplotlib."""

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of this size in inches; it can be saved without a backend."""
    backend = os.environ.pop("MPLBACKEND", None)
    fresh = "matplotlib" not in sys.modules
    import matplotlib  # slow to import
    from matplotlib.figure import Figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        if fresh:
            with suppress(ValueError):  # a notebook may name one that only its own Python has
                matplotlib.rcParams["backend"] = backend
    return Figure(figsize=(width, height), layout="constrained")
