"""The training of the encoder that the evaluation measures with: a feature encoder and a segmenter."""

from pathlib import Path
from typing import Literal

from hcm_hf.training.config import TrainingConfig
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import CONFIG_FILE, INSTRUMENT_FOLDERS


def train_encoder(
    output_dir: str | Path = Path("runs/encoder"),
    dataset: str | None = None,
    num_epochs: int | None = None,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    seed: int = 0,
) -> Path:
    """Train the encoder that the evaluation measures with; run the same command again to resume.

    It is two networks, trained one after the other. The feature encoder (14 epochs) gives the distances of
    distributions, the segmenter (60 epochs) every number of anatomy. Both learn the segmentation, group, phase and
    position of slices of the training patients of all groups, never of held-out patients.

    Args:
        output_dir: gets a run's folder for each, `features` and `segmenter`.
        dataset: folder of the prepared dataset that the generators are trained on; by default the synthetic cohort.
        num_epochs: passes over the training slices, at most; by default as above.
        mixed_precision: accelerate's mixed precision.
        seed: seed of initialisation, data order and augmentation.

    Returns:
        `output_dir`.

    Raises:
        InputError: as `train`, and if `output_dir` holds a run itself.
    """
    from hcm_hf.training.loop import train  # slow to import

    output_dir = Path(output_dir)
    if (output_dir / CONFIG_FILE).exists():
        raise InputError(f"output_dir {output_dir} holds a run of one network; choose another output_dir.")
    for family in INSTRUMENT_FOLDERS:
        config = TrainingConfig(
            family=family,
            recipe="default",
            output_dir=str(output_dir / family),
            dataset=dataset,
            num_epochs=num_epochs,
            mixed_precision=mixed_precision,
            seed=seed,
        )
        train(config)
    return output_dir
