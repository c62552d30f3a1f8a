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
    "FAMILIES": "training.recipes",
    "HCMPipeline": "pipelines.auto",
    "InputError": "utils.errors",
    "LatentPipeline": "pipelines.latent",
    "PairedDDPMPipeline": "pipelines.paired",
    "Sampling": "pipelines.sampling",
    "TrainingConfig": "training.config",
    "check_repository": "hub.push",
    "draw_figures": "study.figures",
    "examine_codes": "study.codes",
    "generate_images": "generation.images",
    "load_dataset": "data.dataset",
    "prepare_dataset": "data.dataset",
    "push_dataset": "hub.push",
    "push_model": "hub.push",
    "push_space": "hub.push",
    "reproduce": "study.reproduction",
    "score": "evaluation.scoring",
    "sweep_steps": "study.sweep",
    "train": "training.loop",
    "write_cohort": "data.phantom",
    "write_ruler": "study.planted",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hcm_hf' has no attribute '{name}'")
    return getattr(importlib.import_module(f"hcm_hf.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
