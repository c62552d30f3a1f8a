"""SSIM, CC and MSE of grey images; the metric itself is in hcm_hf."""

from hcm_hf.metrics.slice_similarity.slice_similarity import SliceSimilarity


__all__ = ["SliceSimilarity"]  # what evaluate.load finds
