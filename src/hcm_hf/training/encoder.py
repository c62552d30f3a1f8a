"""The training of the encoder that the evaluation measures with."""

from pathlib import Path
from typing import Literal

from hcm_hf.training.config import TrainingConfig


def train_encoder(
    output_dir: str | Path = Path("runs/encoder"),
    dataset: str | None = None,
    num_epochs: int | None = None,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    seed: int = 0,
) -> Path:
    """Train the encoder that the evaluation measures with; run the same command again to resume.

    It learns the segmentation, group, phase and position of slices of the training patients of all groups, never of
    held-out patients.

    Args:
        output_dir: the run's folder.
        dataset: folder of the prepared dataset that the generators are trained on; by default the synthetic cohort.
        num_epochs: passes over the training slices, at most; by default 14.
        mixed_precision: accelerate's mixed precision.
        seed: seed of initialisation, data order and augmentation.

    Returns:
        The run's folder.

    Raises:
        InputError: as `train`.
    """
    from hcm_hf.training.loop import train  # slow to import

    config = TrainingConfig(
        family="encoder",
        recipe="default",
        output_dir=str(output_dir),
        dataset=dataset,
        num_epochs=num_epochs,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    return train(config)
