"""What `test_training.py` runs in processes of its own: every family for one epoch, and one of them for two."""

import sys
from pathlib import Path

from tiny import tiny_families

from hcm_hf.config import TrainingConfig
from hcm_hf.families import FAMILIES
from hcm_hf.training import train


dataset, output_dir, *mixed_precision = sys.argv[1:]
FAMILIES.update(tiny_families())
runs = [(family, family, 2 if family == "dcgan" else 1) for family in FAMILIES]
for name, family, num_epochs in [*runs, ("dcgan-in-halves", "dcgan", 1), ("dcgan-in-halves", "dcgan", 2)]:
    train(
        TrainingConfig(
            family=family,
            dataset=dataset,
            output_dir=str(Path(output_dir) / name),
            groups=("HCM",),
            num_epochs=num_epochs,
            train_batch_size=8,
            mixed_precision=mixed_precision[0] if mixed_precision else None,
        )
    )
