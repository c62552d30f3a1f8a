"""A recipe: the networks, losses and settings that a family is trained with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from operator import attrgetter
from typing import Any

from diffusers import DiffusionPipeline, ModelMixin

from hcm_hf.data.vocabulary import Chosen, Vocabulary
from hcm_hf.pipelines.conditions import count_labels
from hcm_hf.training.objectives.base import Objective
from hcm_hf.training.objectives.distillation import check_teacher


# Sizes that follow from the dataset's groups.
Fitted = Callable[[Vocabulary], Any]
GROUP_NAMES: Fitted = attrgetter("groups")
TARGET: Fitted = attrgetter("target")


def count_groups(vocabulary: Vocabulary) -> int:
    """Number of groups."""
    return len(vocabulary.groups)


def count_answers(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Number of answers to each question."""
    return tuple(map(len, vocabulary.axes.values()))


def count_conditions(vocabulary: Vocabulary) -> int:
    """Number of labels that say something: combinations of answers."""
    return count_labels(vocabulary.axes)


# Learning rates over a training, as a fraction of the first, by the fraction of the steps that are done.
RATES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "warmup_stable_decay": lambda done: min(done / 0.01, 1.0, (1.0 - done) / 0.4),  # 1 %, to 60 %, then down to 0
}


@dataclass(frozen=True)
class Recipe:
    """How to train a family; the defaults are the study's, and 50 epochs of patience, which it does not give.

    Attributes:
        objective: the class with the losses.
        networks: what builds each network that `objective` takes, by the argument's name; called with `sample_size`.
        sizes: further arguments of these, by the network's name; one may be a function of the dataset's `Vocabulary`.
        losses: further arguments of `objective`.
        groups: the groups to train on: "all" of the dataset, the "target" group, or names.
        num_epochs: maximum number of passes over the training slices.
        num_steps: number of optimiser steps, in place of `num_epochs` and `patience`; by default those count.
        train_batch_size: slices per step and process.
        learning_rate: Adam's learning rate.
        adam_betas: Adam's decay rates.
        patience: epochs without a lower validation loss before training stops.
        ema_decay: decay per step of the averaged weights; 0 turns averaging off.
        lr_scheduler: how the learning rate changes, a name of `RATES`.
        relative_rates: learning rate of some networks, as a fraction of `learning_rate`.
        taught_by: the recipe of the same family whose models can be this one's teacher; None for no teacher.
        sampling: the `scheduler` and `num_inference_steps` of `reproduce`, where they are not the model's own.
    """

    objective: type[Objective]
    networks: dict[str, Callable[..., ModelMixin]] = field(default_factory=dict)
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)
    groups: Chosen = "target"
    num_epochs: int = 100
    num_steps: int | None = None
    train_batch_size: int = 32
    learning_rate: float = 2e-4
    adam_betas: tuple[float, float] = (0.5, 0.999)
    patience: int = 50
    ema_decay: float = 0.0
    lr_scheduler: str = "constant"
    relative_rates: dict[str, float] | None = None
    taught_by: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)

    def build(
        self, sample_size: int, vocabulary: Vocabulary, teachers: Mapping[str, DiffusionPipeline] | None = None
    ) -> Objective:
        """The objective with fresh networks for images of `sample_size` pixels a side.

        Args:
            sample_size: of the dataset's slices.
            vocabulary: what the dataset's slices show.
            teachers: of a student: its "teacher", and a "guide" if it has one.

        Raises:
            ValueError: if the networks cannot be built at this size, or a teacher does not fit.
            InputError: if the recipe is about a disease of interest that the dataset does not have.
        """
        taught = {
            name: check_teacher(name, teacher, sample_size, vocabulary) for name, teacher in (teachers or {}).items()
        }
        if self.taught_by and "teacher" not in taught:
            raise ValueError(f"the recipe needs a teacher, a model of recipe {self.taught_by}.")
        words = {"vocabulary": vocabulary} if self.objective.asks else {}
        sizes = self.fitted_sizes(vocabulary)
        networks = {
            name: network(sample_size=sample_size, **sizes.get(name, {})) for name, network in self.networks.items()
        }
        return self.objective(**taught, **words, **networks, **self.losses)

    def fitted_sizes(self, vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
        """The sizes of the networks for a dataset."""
        return {
            network: {name: size(vocabulary) if callable(size) else size for name, size in sizes.items()}
            for network, sizes in self.sizes.items()
        }

    def rate_of(self, network: str, done: float = 0.0) -> float:
        """The learning rate of a network, by its name, once a fraction `done` of all steps has been taken."""
        return self.learning_rate * RATES[self.lr_scheduler](done) * (self.relative_rates or {}).get(network, 1.0)

    def settings(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """What a run on a dataset records of its recipe: the settings, and `losses` as `objective`."""
        code = ("objective", "networks", "losses", "taught_by", "sampling")
        kept = {name: value for name, value in vars(self).items() if name not in code}
        fitted = {"groups": vocabulary.choose(self.groups), "sizes": self.fitted_sizes(vocabulary)}
        return kept | fitted | {"objective": self.noted_losses()}

    def noted_losses(self) -> dict[str, Any]:
        """The settings of the losses, as a run records them; an object's stand among them, unless a name is taken."""
        losses: dict[str, Any] = {}
        for name, value in self.losses.items():
            parts = vars(value) if _has_settings(value) else {name: value}
            parts = {name: value} if set(parts) & set(self.losses) else parts
            losses |= {key: _noted(part) for key, part in parts.items()}
        return losses


def _noted(value: Any) -> Any:
    """A setting as it is recorded: of an object its class and fields."""
    if not _has_settings(value):
        return value
    return {"name": type(value).__name__} | {name: _noted(one) for name, one in vars(value).items()}


def _has_settings(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        paper: link to the paper that introduced it.
        recipes: its recipes by name.
    """

    paper: str
    recipes: dict[str, Recipe]
