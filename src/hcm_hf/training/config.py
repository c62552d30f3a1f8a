"""The settings of a training run; free of heavy imports, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal

from hcm_hf.utils.names import TARGET_GROUP


@dataclass
class TrainingConfig:
    """Train one family; run the same command again to resume.

    Settings left at None come from the family's recipe.

    Attributes:
        family: the model family: vae, gan, dcgan, acgan, infogan or ddpm.
        recipe: the family's settings: "paper" follows the study; "tuned" is for a few hundred slices, and makes the
            ddpm generate segmentations too; "distilled" (ddpm only) trains a few-step student of a tuned ddpm;
            "paired" (acgan) and "crisp" (ddpm) generate segmentations too and can be asked for a wall thickness, and
            are not tuned yet.
        dataset: folder or repository of a prepared dataset; by default a synthetic cohort is made.
        output_dir: folder of the run; runs/FAMILY by default.
        resolution: pixels a side; by default the dataset's, or 64 for the synthetic cohort.
        groups: groups to train on; by default the target group or, for models that can be asked for one, all.
        target_group: the disease of interest: what models of one group are trained on, and others show by default.
        num_epochs: maximum number of passes over the training slices.
        num_steps: number of optimiser steps, in place of num_epochs and patience.
        train_batch_size: slices per step and process.
        learning_rate: Adam's learning rate.
        lr_scheduler: how the learning rate goes over num_epochs: "constant"; "linear", falling to 0; or
            "warmup_stable_decay", rising for 1 % of the steps, constant up to 60 % and then falling to 0.
        patience: stop after this many epochs without a lower validation loss.
        ema_decay: decay per step of the exponential moving average (EMA) of the weights; 0 turns averaging off.
        mixed_precision: "no", "fp16" or "bf16"; by default the setting of `accelerate launch`.
        teacher: folder or repository (user/name) of the trained model that a student learns from.
        guide: folder or repository of a weaker model of the teacher's recipe, such as an early copy of its last/; the
            student learns from the teacher as it is pushed away from this one (autoguidance).
        num_inference_steps: sampling steps of a distilled student; 4 by default.
        seed: seed of initialisation, data order and noise.
        report_to: trackers to log to, besides metrics.jsonl.
        checkpointing_epochs: epochs between checkpoints.
        sample_epochs: epochs between sample grids.
    """

    family: str = "dcgan"
    recipe: str = "paper"
    dataset: str | None = None
    output_dir: str | None = None
    resolution: int | None = None
    groups: tuple[str, ...] | None = None
    target_group: str = TARGET_GROUP
    num_epochs: int | None = None
    num_steps: int | None = None
    train_batch_size: int | None = None
    learning_rate: float | None = None
    lr_scheduler: Literal["constant", "linear", "warmup_stable_decay"] | None = None
    patience: int | None = None
    ema_decay: float | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    teacher: str | None = None
    guide: str | None = None
    num_inference_steps: int | None = None
    seed: int = 0
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    checkpointing_epochs: int = 5
    sample_epochs: int = 10
