"""What `test_training.py` runs in processes of its own: every family for one epoch, and two models for two."""

import sys
from pathlib import Path

from tiny import tiny_families

from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES


dataset, output_dir, *mixed_precision = sys.argv[1:]
FAMILIES.update(tiny_families())
runs = [(family, family, "paper", 2 if family == "dcgan" else 1) for family in FAMILIES]
runs += [("ddpm-tuned", "ddpm", "tuned", 1), ("vae-tuned", "vae", "tuned", 2)]
runs += [("dcgan-in-halves", "dcgan", "paper", num_epochs) for num_epochs in (1, 2)]
runs += [("vae-tuned-in-halves", "vae", "tuned", num_epochs) for num_epochs in (1, 2)]
for name, family, recipe, num_epochs in runs:
    train(
        TrainingConfig(
            family=family,
            recipe=recipe,
            dataset=dataset,
            output_dir=str(Path(output_dir) / name),
            groups=("HCM",),
            num_epochs=num_epochs,
            train_batch_size=8,
            mixed_precision=mixed_precision[0] if mixed_precision else None,
        )
    )
