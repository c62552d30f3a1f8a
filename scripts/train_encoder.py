"""Train the encoder that judges generated images; run the same command again to resume.

accelerate launch scripts/train_encoder.py --dataset data/acdc-64 --output_dir runs/encoder
"""

from pathlib import Path
from typing import Literal

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.training.config import TrainingConfig


def main(
    output_dir: Path = Path("runs/encoder"),
    dataset: str | None = None,
    num_epochs: int | None = None,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    seed: int = 0,
) -> None:
    """Train the encoder that judges generated images; run the same command again to resume.

    It learns from the training patients of all groups, never from those held out: segmentation, group, phase and
    position of a slice. score.py takes it as --encoder.

    Args:
        output_dir: the run's folder.
        dataset: folder of the prepared dataset that the generators are trained on; by default the synthetic cohort.
        num_epochs: passes over the training slices, at most; by default 14.
        mixed_precision: as accelerate has it.
        seed: of initialisation, data order and augmentation.
    """
    config = TrainingConfig(
        family="encoder",
        recipe="default",
        output_dir=str(output_dir),
        dataset=dataset,
        num_epochs=num_epochs,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    hcm_hf.train(config)
    print(f"encoder: {output_dir / 'best'}\nloss curve: {output_dir / 'losses.png'}")


if __name__ == "__main__":
    run(main)
