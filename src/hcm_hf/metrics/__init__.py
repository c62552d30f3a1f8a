"""Metrics: pure functions on arrays."""

from pathlib import Path


# `evaluate.load` of this folder gives SSIM, CC and MSE.
SLICE_SIMILARITY = str(Path(__file__).parent / "slice_similarity")
