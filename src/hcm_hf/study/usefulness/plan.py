"""The plan of an experiment: its settings, its cells, and the comparison that was named before any of them was run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.typed import plain, read_typed
from hcm_hf.study.usefulness.arms import ARMS, BASELINE, PRIMARY
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import read_json, write_text


PLAN_FILE = "plan.json"
PRIMARY_MEASURE = "dice_myocardium"
CLOSED, OPEN = "closed", "open"
NO_GENERATOR = "none"  # the name in cells of real slices alone


@dataclass(frozen=True)
class GeneratorPlan:
    """What makes an arm's synthetic slices.

    Attributes:
        kind: "closed" if it is trained on the cell's training patients alone, "open" if it has seen others.
        name: a closed one's family and recipe, "acgan/paired"; the name of an open one's folder or repository.
        model_hash: of an open one.
        num_seen: number of patients that an open one was trained on.
        num_steps: optimiser steps of the trainings of a closed one, by recipe: the last is its own, those before it
            are of its teachers.
    """

    kind: str
    name: str
    model_hash: str = ""
    num_seen: int = 0
    num_steps: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Kind and name, as they stand in cells and rows."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Cell:
    """One training and its measurement.

    Attributes:
        arm: a name of `ARMS`.
        generator: title of a `GeneratorPlan`; `NO_GENERATOR` for an arm without synthetic slices.
        patients: number of training patients.
        draw: which of the draws of as many patients.
        seed: of initialisation, order and augmentation.
    """

    arm: str
    generator: str
    patients: int
    draw: int
    seed: int

    @property
    def key(self) -> str:
        """The cell's name in the names of files."""
        return f"{self.arm}_{file_name(self.generator)}_{self.place}_seed-{self.seed}"

    @property
    def place(self) -> str:
        """The draw in the names of files."""
        return f"{self.patients}-patients_draw-{self.draw}"


@dataclass(frozen=True)
class Comparison:
    """The comparison that is named before anything is run.

    Attributes:
        measure: what is compared.
        patients: number of training patients.
        arm: a name of `ARMS`.
        generator: title of a `GeneratorPlan`.
        against: the arm that it is compared with.
    """

    measure: str
    patients: int
    arm: str
    generator: str
    against: str


@dataclass(frozen=True)
class Plan:
    """An experiment; its cells are a function of it, and numbers of different plans are never compared.

    Attributes:
        primary: the comparison that is named before anything is run.
        arms: names of `ARMS`.
        generators: what makes synthetic slices.
        patients: numbers of training patients.
        num_training_patients: patients of the training split; a draw of all of them is made once.
        num_draws: draws of each smaller number of patients.
        num_seeds: trainings in each draw.
        num_steps: optimiser steps of each training, the same in all arms.
        target_group: the group to tell from the others.
        split: the split that is held out.
        dataset: fingerprint of training and held-out slices.
        version: of the package.
    """

    primary: Comparison
    arms: list[str]
    generators: list[GeneratorPlan]
    patients: list[int]
    num_training_patients: int
    num_draws: int
    num_seeds: int
    num_steps: int
    target_group: str
    split: str
    dataset: str
    version: str

    @property
    def hash(self) -> str:
        """The first 16 digits of SHA-256 over the plan."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()[:16]

    def cells(self) -> list[Cell]:
        """All cells, in the order in which they are run: a part of them from the start on has all arms alike."""
        return [
            Cell(arm, generator, patients, draw, seed)
            for seed in range(self.num_seeds)
            for draw in range(self.num_draws)
            for patients in self.ordered_patients()
            if draw < self.draws_of(patients)
            for arm in self.arms
            for generator in self.generators_of(arm)
        ]

    def ordered_patients(self) -> list[int]:
        """The numbers of training patients, that of the primary comparison first."""
        return sorted(self.patients, key=lambda number: (number != self.primary.patients, number))

    def draws_of(self, patients: int) -> int:
        """How many draws there are of a number of patients."""
        return 1 if patients == self.num_training_patients else self.num_draws

    def generators_of(self, arm: str) -> list[str]:
        """The titles of the generators that an arm is run with."""
        return [one.title for one in self.generators] if ARMS[arm].is_synthetic else [NO_GENERATOR]

    def generator(self, title: str) -> GeneratorPlan:
        """The generator of a title."""
        return next(one for one in self.generators if one.title == title)

    def check(self) -> None:
        """Refuse a plan that cannot be run.

        Raises:
            InputError: names the argument.
        """
        for name in self.arms:
            one_of("arm", name, ARMS)
        for name in (BASELINE, PRIMARY):
            if name not in self.arms:
                raise InputError(f"arms leaves out {name}, which the primary comparison needs; add it.")
        for name in ("num_draws", "num_seeds", "num_steps"):
            at_least(name, vars(self)[name], 1)
        for number in self.patients:
            if not 1 <= number <= self.num_training_patients:
                raise InputError(
                    f"patients {number}: the training split has {self.num_training_patients} patients; name 1 to "
                    f"{self.num_training_patients}."
                )
        if self.primary.patients not in self.patients:
            listed = " ".join(map(str, self.patients))
            raise InputError(f"primary_patients is {self.primary.patients}, which patients {listed} leaves out.")
        for argument, names in (
            ("arms", self.arms),
            ("patients", self.patients),
            ("closed and open_models", [one.title for one in self.generators]),
        ):
            if len(set(names)) < len(names):
                raise InputError(f"{argument} names something twice: {' '.join(map(str, names))}; name each once.")


def file_name(title: str) -> str:
    """A generator's title in the names of files."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in title)


def keep_plan(plan: Plan, output_dir: Path) -> None:
    """Write the plan before anything is run, or see that the folder's plan is this one.

    Raises:
        InputError: if the folder has another plan, or a damaged one.
    """
    path = output_dir / PLAN_FILE
    if not path.is_file():
        write_text(path, json.dumps(plain(plan) | {"hash": plan.hash}, indent=2) + "\n")
        return
    written = read_json(path)
    try:
        before = read_typed(Plan, written)
    except ValueError as error:
        raise InputError(f"{path} is damaged; restore it, or name another output_dir.") from error
    for name, value in plain(plan).items():
        if plain(before).get(name) != value:
            raise InputError(
                f"{output_dir} holds a plan with {name} {plain(before).get(name)}, not {value}; name another "
                "output_dir, for a plan is not changed once it is written."
            )


def draw_patients(groups: Mapping[str, str], number: int, draw: int) -> list[str]:
    """Draw training patients, of each group as many as its share; a larger number adds to a smaller one of the draw.

    Args:
        groups: the group of each training patient.
        number: of patients.
        draw: which draw.

    Returns:
        Their names, sorted.
    """
    random, placed = np.random.default_rng((13, draw)), []
    for group in random.permutation(sorted(set(groups.values()))):
        own = random.permutation(sorted(name for name, one in groups.items() if one == group))
        placed += [((index + 0.5) / len(own), str(name)) for index, name in enumerate(own)]
    return sorted(name for _, name in sorted(placed, key=lambda one: one[0])[:number])


def check_draws(plan: Plan, groups: Mapping[str, str]) -> None:
    """Refuse a number of patients with a draw that lacks the group of interest, or all others.

    Args:
        plan: the plan.
        groups: the group of each training patient.

    Raises:
        InputError: names the number and the group.
    """
    target = plan.target_group
    for number in plan.patients:
        for draw in range(plan.draws_of(number)):
            drawn = {groups[name] for name in draw_patients(groups, number, draw)}
            if target not in drawn or drawn == {target}:
                lacking = target if target not in drawn else f"another group than {target}"
                raise InputError(f"patients {number} is too few: draw {draw} has no patient of {lacking}; name more.")


def parse_shard(shard: str) -> tuple[int, int]:
    """The part of the work and the number of parts that a text such as "1/3" names.

    Raises:
        InputError: if it names none.
    """
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"shard '{shard}' is no part of the cells; write 1/3, 2/3 or 3/3 for three machines.")
    return int(part), int(parts)


def take_shard(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """The cells of one part of the work; all parts together are all cells, each once."""
    part, parts = parse_shard(shard)
    return list(cells[part - 1 :: parts])
