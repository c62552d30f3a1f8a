"""Train a generator; run the same command again to resume.

accelerate launch scripts/train.py --dataset data/acdc-64 --family dcgan --output_dir runs/dcgan
accelerate launch scripts/train.py --num_epochs 5    # on the synthetic cohort
"""

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.config import TrainingConfig


def main(config: TrainingConfig) -> None:
    """Train a generator; run the same command again to resume."""
    output_dir = hcm_hf.train(config)
    print(f"best model: {output_dir / 'best'}\nloss curve: {output_dir / 'losses.png'}")


if __name__ == "__main__":
    run(main)
