"""Synthetic cardiac MRI of hypertrophic cardiomyopathy: six generators, one training loop, one evaluation.

>>> from hcm_hf import HCMPipeline
>>> pipe = HCMPipeline.from_pretrained("runs/dcgan")
>>> images = pipe(batch_size=4).images
"""

import importlib
from typing import TYPE_CHECKING

from hcm_hf.version import __version__


if TYPE_CHECKING:
    from hcm_hf.data.dataset import load_dataset, prepare_dataset
    from hcm_hf.data.phantom import write_cohort
    from hcm_hf.evaluation.scoring import score
    from hcm_hf.generation.images import generate_images
    from hcm_hf.hub.push import push_dataset, push_model, push_space
    from hcm_hf.pipelines.auto import HCMPipeline
    from hcm_hf.pipelines.sampling import Sampling
    from hcm_hf.study.reproduction import reproduce
    from hcm_hf.training.config import TrainingConfig
    from hcm_hf.training.loop import train
    from hcm_hf.utils.errors import InputError


__all__ = [
    "HCMPipeline",
    "InputError",
    "Sampling",
    "TrainingConfig",
    "__version__",
    "generate_images",
    "load_dataset",
    "prepare_dataset",
    "push_dataset",
    "push_model",
    "push_space",
    "reproduce",
    "score",
    "train",
    "write_cohort",
]

# Where they live: imported on first use, so that `import hcm_hf` is quick.
_MODULES = {
    "HCMPipeline": "pipelines.auto",
    "InputError": "utils.errors",
    "Sampling": "pipelines.sampling",
    "TrainingConfig": "training.config",
    "generate_images": "generation.images",
    "load_dataset": "data.dataset",
    "prepare_dataset": "data.dataset",
    "push_dataset": "hub.push",
    "push_model": "hub.push",
    "push_space": "hub.push",
    "reproduce": "study.reproduction",
    "score": "evaluation.scoring",
    "train": "training.loop",
    "write_cohort": "data.phantom",
}


if not TYPE_CHECKING:  # type checkers know the names from above, and say so of others

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'hcm_hf' has no attribute '{name}'")
        return vars(importlib.import_module(f"hcm_hf.{_MODULES[name]}"))[name]


def __dir__() -> list[str]:
    return sorted(__all__)
