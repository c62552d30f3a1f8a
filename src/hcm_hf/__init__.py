"""Synthetic cardiac MRI of hypertrophic cardiomyopathy: six generators, one training loop, one evaluation.

>>> from hcm_hf import HCMPipeline
>>> pipe = HCMPipeline.from_pretrained("runs/dcgan")
>>> images = pipe(batch_size=4).images
"""

import importlib

from hcm_hf.version import __version__


# The public names and where they live: imported on first use, so that `import hcm_hf` is quick.
_PUBLIC = {
    "DCGANGenerator": "models",
    "FAMILIES": "families",
    "HCMPipeline": "pipeline",
    "InputError": "errors",
    "LatentPipeline": "pipeline",
    "TrainingConfig": "config",
    "check_repository": "hub",
    "draw_figures": "results",
    "examine_codes": "codes",
    "generate_images": "generation",
    "load_dataset": "data.dataset",
    "prepare_dataset": "data.dataset",
    "push_dataset": "hub",
    "push_model": "hub",
    "push_space": "hub",
    "reproduce": "reproduction",
    "score": "evaluation",
    "sweep_steps": "sweep",
    "train": "training",
    "write_cohort": "data.phantom",
    "write_ruler": "ruler",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hcm_hf' has no attribute '{name}'")
    return getattr(importlib.import_module(f"hcm_hf.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
