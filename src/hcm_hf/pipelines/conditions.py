"""What a slice can be asked to show: a group, a phase and a part of the heart as one label, and a wall's thickness."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch

from hcm_hf.models.latent import Generators
from hcm_hf.utils.errors import InputError


OPEN = "any"  # leaves a question open, also one with a default
Asked = Mapping[str, str | float | None] | str | int | None
Answers = dict[str, str | float | None]


@dataclass(frozen=True)
class Conditions:
    """Several questions with a choice of answers each; a label is the index of one combination of answers.

    The last question's answers vary fastest. One label more, `null_label`, leaves everything open. Beside the label
    there may be amounts, such as a wall thickness in mm.

    Attributes:
        axes: by the question's name, the names of its answers; no two answers share one.
        frequencies: how often each label was met in training, in any unit; for what is not asked for.
        defaults: answers that hold unless others are asked for.
        ranges: by the name of an amount, the least and the greatest of training; beyond them nothing is known.
    """

    axes: Mapping[str, Sequence[str]]
    frequencies: Sequence[float]
    defaults: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of answers to each question."""
        return tuple(len(names) for names in self.axes.values())

    @property
    def null_label(self) -> int:
        """The label that says nothing; as many labels say something."""
        return count_labels(self.axes)

    def check(self) -> None:
        """See that they make sense, as those from a file may not.

        Raises:
            InputError: names what does not.
        """
        answers = [name for names in self.axes.values() for name in names]
        for name in (*self.axes, *answers):
            if not isinstance(name, str) or name == OPEN or re.split(r"[\s,]", name) != [name] or not name:
                raise InputError(f"its axes hold {name!r}, which is no word that can be asked for.")
        if len(set(answers)) != len(answers) or not all(self.axes.values()):
            raise InputError("its axes lack answers, or two of them are the same.")
        if len(self.frequencies) != self.null_label:
            raise InputError(f"it has {len(self.frequencies)} frequencies for {self.null_label} labels.")
        if not all(isinstance(number, int | float) and 0 <= number < math.inf for number in self.frequencies):
            raise InputError("its frequencies must be finite numbers of 0 or more.")
        for axis, name in self.defaults.items():
            if axis not in self.axes or name not in self.axes[axis]:
                raise InputError(f"its default {axis} is {name!r}, which is none of its answers.")
        for name, ends in self.ranges.items():
            numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
            if name in self.axes or len(ends) != 2 or not numbers or not ends[0] < ends[1]:
                raise InputError(f"its range of {name} is {list(ends)}; it must be two numbers, the smaller first.")

    def describe(self, label: int) -> Answers:
        """The answers of a label by question; None for all of them if it is the one that says nothing."""
        if label == self.null_label:
            return dict.fromkeys(self.axes)
        indices = np.unravel_index(label, self.sizes)
        return {axis: names[int(index)] for (axis, names), index in zip(self.axes.items(), indices, strict=True)}

    def complete(self, asked: Asked) -> Answers:
        """The answers that are asked for, by question, with the defaults for questions that are not answered.

        Args:
            asked: a mapping such as {"group": "HCM", "phase": "ED", "wall_thickness": 21.0}, in which "any" leaves a
                question open and None keeps its default; a label; None for the defaults alone; or, for one more
                release, names in any order as a string ("HCM ED mid").

        Raises:
            InputError: if there is no such question, answer or label, or an amount is beyond its range.
        """
        if isinstance(asked, Integral) and not isinstance(asked, bool):
            if not 0 <= asked < self.null_label:
                raise InputError(f"class_labels is {asked}; choose from 0 to {self.null_label - 1}.")
            return self.describe(int(asked))
        if isinstance(asked, str):
            asked = self._parse(asked)
        elif not isinstance(asked, Mapping | None):
            raise InputError(f"class_labels {asked!r} is no name and no whole number.")
        given = {axis: answer for axis, answer in (asked or {}).items() if answer is not None}
        amounts = {name: self._amount(name, given.pop(name)) for name in self.ranges if name in given}
        for axis, answer in given.items():
            if axis not in self.axes:
                questions = ", ".join((*self.axes, *self.ranges))
                known = f"choose among {questions}" if questions else "this model takes no conditions"
                raise InputError(f"conditions name the unknown {axis!r}; {known}.")
            if answer not in (answers := (OPEN, *self.axes[axis])):
                raise InputError(f"conditions: {axis} is {answer!r}; choose among {', '.join(answers)}.")
        chosen = dict(self.defaults) | given
        words: Answers = {
            axis: chosen[axis] for axis in self.axes if chosen.get(axis, OPEN) != OPEN or axis in self.defaults
        }
        return words | {name: amount for name, amount in amounts.items() if amount is not None}

    def _amount(self, name: str, asked: str | float) -> float | None:
        """An amount that is asked for as a number; None where it is left open."""
        if asked == OPEN:
            return None
        least, most = self.ranges[name]
        try:
            amount = float(asked)
        except (TypeError, ValueError):
            amount = math.nan
        if isinstance(asked, bool) or not least <= amount <= most:
            raise InputError(
                f"conditions: {name} is {asked!r}; this model was trained on {least:g} to {most:g}, give a number "
                "between them."
            )
        return amount

    def amounts(self, asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor, count: int) -> list[Answers]:
        """The amounts that are asked for of each of `count` images; None where one is left open. See `draw`."""
        found = [self.complete(one) for one in _each(asked, count)]
        return [{name: one.get(name) for name in self.ranges} for one in found]

    def _parse(self, names: str) -> dict[str, str]:
        """The answers in a string, by question; the word "any" opens the questions that have a default."""
        words = names.replace(",", " ").split()
        found = dict.fromkeys(self.defaults, OPEN) if OPEN in words else {}
        asked = {}
        for name in (word for word in words if word != OPEN):
            axis = next((axis for axis, answers in self.axes.items() if name in answers), None)
            if axis is None:
                known = "; ".join(f"{axis}: {', '.join(answers)}" for axis, answers in self.axes.items())
                raise InputError(f"class_labels '{names}': unknown '{name}'; choose among {known}.")
            if axis in asked:
                raise InputError(f"class_labels '{names}' names two of {axis}; name one.")
            asked[axis] = name
        return found | asked

    def allowed(self, asked: Asked) -> torch.Tensor:
        """Return which labels answer what is asked for, see `complete`: bool (labels,)."""
        complete = self.complete(asked)
        allowed = torch.ones(self.sizes, dtype=torch.bool)
        for dimension, (axis, names) in enumerate(self.axes.items()):
            if (answer := complete.get(axis, OPEN)) != OPEN:
                fits = torch.tensor([name == answer for name in names])
                allowed &= fits.view(-1, *[1] * (len(self.axes) - dimension - 1))
        return allowed.flatten()

    def draw(
        self, asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor, batch_size: int, generator: Generators = None
    ) -> torch.Tensor:
        """Labels (batch_size,), int64, that answer what is asked for; what is left open is drawn as it was met.

        Args:
            asked: see `complete`, for all images; a list, array or tensor has one entry for each.
            batch_size: number of labels.
            generator: source of randomness, on the CPU; a list gives each label its own.

        Raises:
            InputError: as `allowed`, or if their number is wrong.
        """
        each = _each(asked, batch_size)
        frequencies = torch.tensor(self.frequencies, dtype=torch.float64)
        labels = []
        for index in range(batch_size):
            allowed = self.allowed(each[index])
            weights = frequencies * allowed
            weights = weights if weights.sum() > 0 else allowed.double()  # never met: any is as good
            own = generator[index] if isinstance(generator, list) else generator
            device = "cpu" if own is None else own.device
            point = torch.rand((), generator=own, device=device, dtype=torch.float64).cpu() * weights.sum()
            label = torch.searchsorted(weights.cumsum(0), point, right=True).clamp(max=self.null_label - 1)
            labels.append(int(label) if allowed[label] else int(allowed.nonzero()[-1]))
        return torch.tensor(labels)


def _each(asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor, count: int) -> Sequence[Asked]:
    """What is asked for of each of `count` images."""
    if isinstance(asked, np.ndarray | torch.Tensor):
        asked = asked.tolist()
    each = asked if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked] * count
    if len(each) != count:
        raise InputError(f"class_labels has {len(each)} entries for a batch_size of {count}.")
    return each


def count_labels(axes: Mapping[str, Sequence[str]]) -> int:
    """Number of combinations of answers."""
    return math.prod(map(len, axes.values()))


def join_labels(axes: Mapping[str, Sequence[str]], answers: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Labels (B,) of answers, by question an index each (B,); where one is below 0, the label that says nothing."""
    labels = torch.zeros_like(next(iter(answers.values())))
    for axis, names in axes.items():
        labels = labels * len(names) + answers[axis]
    unknown = torch.stack([answers[axis] < 0 for axis in axes]).any(0)
    return labels.masked_fill(unknown, count_labels(axes))
