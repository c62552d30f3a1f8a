"""What a training run is told; free of heavy imports, so that `--help` answers at once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


# Learning rates over a training, as parts of the first, by the part of it that is done.
RATES = {"constant": lambda done: 1.0, "linear": lambda done: 1.0 - done}


@dataclass
class TrainingConfig:
    """Train one family; run the same command again to resume.

    What is left at None comes from the family's recipe.

    Attributes:
        family: the model family: vae, gan, dcgan, acgan, infogan or ddpm.
        recipe: the family's settings: "paper" follows the study; "tuned" is for a few hundred slices, that of the ddpm
            draws images with their segmentations; for students of a tuned ddpm "distilled" and "halved".
        dataset: folder of a prepared dataset; without one the synthetic cohort is used.
        output_dir: the run's folder; runs/FAMILY by default.
        resolution: pixels a side; by default the dataset's, 64 for the synthetic cohort.
        groups: ACDC groups to train on.
        num_epochs: passes over the training slices, at most.
        train_batch_size: slices per step and process.
        learning_rate: of Adam.
        lr_scheduler: "constant", or "linear": the rate falls to 0 over the epochs, which more epochs then stretch.
        patience: stop after so many epochs without a better validation loss.
        ema_decay: decay per step of the averaged weights that are validated, sampled and saved; 0 takes the weights.
        mixed_precision: as accelerate has it; by default what `accelerate launch` was told.
        teacher: what a student learns from: folder or repository (user/name) of a trained model or its run.
        num_inference_steps: calls of the network that a distilled student is to take; 4 by default.
        seed: of initialisation, data order and noise.
        report_to: trackers beside metrics.jsonl.
        checkpointing_epochs: epochs between checkpoints to resume from.
        sample_epochs: epochs between sample grids.
    """

    family: str = "dcgan"
    recipe: str = "paper"
    dataset: str | None = None
    output_dir: str | None = None
    resolution: int | None = None
    groups: tuple[str, ...] | None = None
    num_epochs: int | None = None
    train_batch_size: int | None = None
    learning_rate: float | None = None
    lr_scheduler: Literal["constant", "linear"] | None = None
    patience: int | None = None
    ema_decay: float | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    teacher: str | None = None
    num_inference_steps: int | None = None
    seed: int = 0
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    checkpointing_epochs: int = 5
    sample_epochs: int = 10


@dataclass(frozen=True)
class Recipe:
    """A family's networks, losses and settings under one name.

    Attributes:
        build: `build(sample_size, **objective)` returns the objective with fresh networks; a student's also takes
            `teacher`, a pipeline.
        groups: the ACDC groups to train on unless told otherwise.
        num_epochs: passes over the training slices, at most.
        train_batch_size: slices per step and process.
        learning_rate: of Adam.
        adam_betas: of Adam.
        patience: epochs without a better validation loss before training stops.
        ema_decay: decay per step of the averaged weights; 0 takes the weights themselves.
        objective: arguments of `build`.
        lr_scheduler: how it goes on, a name of `RATES`.
        relative_rates: of networks that learn at another rate, that rate as a part of `learning_rate`.
        taught_by: the recipes of the same family whose models can teach this one; empty where it has no teacher.
        sampling: how `reproduce` samples it, `scheduler` and `num_inference_steps`, where that is not the model's own.
    """

    build: Callable[..., Any]
    groups: tuple[str, ...]
    num_epochs: int
    train_batch_size: int
    learning_rate: float
    adam_betas: tuple[float, float]
    patience: int
    ema_decay: float
    objective: dict
    lr_scheduler: str = "constant"
    relative_rates: dict[str, float] | None = None
    taught_by: tuple[str, ...] = ()
    sampling: dict = field(default_factory=dict)

    def rate_of(self, network: str, done: float = 0.0) -> float:
        """The learning rate of a network, by its name, when a part `done` of all steps has been taken."""
        return self.learning_rate * RATES[self.lr_scheduler](done) * (self.relative_rates or {}).get(network, 1.0)

    def settings(self) -> dict:
        """What a run writes of its recipe: all that is not code."""
        return {name: value for name, value in vars(self).items() if name not in ("build", "taught_by", "sampling")}
