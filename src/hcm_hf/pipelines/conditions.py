"""What a slice can be asked to show, as one label: a group, a phase and a part of the heart."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hcm_hf.utils.errors import InputError


OPEN = "any"  # asks for no default


@dataclass(frozen=True)
class Conditions:
    """Several questions with a choice of answers each; a label is the index of one combination of answers.

    The last question's answers vary fastest. One label more, `null_label`, leaves everything open.

    Attributes:
        axes: by the question's name, the names of its answers; no two answers share one.
        frequencies: how often each label was met in training, in any unit; for what is not asked for.
        defaults: answers that hold unless others are asked for.
    """

    axes: Mapping[str, Sequence[str]]
    frequencies: Sequence[float]
    defaults: Mapping[str, str]

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

    def describe(self, label: int) -> dict[str, str | None]:
        """The answers of a label by question; None for all of them if it is the one that says nothing."""
        if label == self.null_label:
            return dict.fromkeys(self.axes)
        answers = {}
        for axis, names in reversed(self.axes.items()):
            label, index = divmod(label, len(names))
            answers[axis] = names[index]
        return {axis: answers[axis] for axis in self.axes}

    def allowed(self, class_labels: str | int | None) -> torch.Tensor:
        """Which labels answer what is asked for: bool (labels,).

        Args:
            class_labels: answers in any order, separated by spaces or commas ("HCM ED mid", "NOR"), a label, or None.
                Questions with a default keep it unless they are answered or the word "any" opens them; the others
                stay open.

        Raises:
            InputError: if an answer or label does not exist, or two answer the same question.
        """
        if isinstance(class_labels, int) and not isinstance(class_labels, bool):
            if not 0 <= class_labels < self.null_label:
                raise InputError(f"class_labels is {class_labels}; choose from 0 to {self.null_label - 1}.")
            return torch.arange(self.null_label) == class_labels
        if class_labels is not None and not isinstance(class_labels, str):
            raise InputError(f"class_labels {class_labels!r} is no name and no whole number.")
        names = (class_labels or "").replace(",", " ").split()
        asked = {}
        for name in (name for name in names if name != OPEN):
            axis = next((axis for axis, names in self.axes.items() if name in names), None)
            if axis is None:
                known = "; ".join(f"{axis}: {', '.join(names)}" for axis, names in self.axes.items())
                raise InputError(f"class_labels '{class_labels}': unknown '{name}'; choose among {known}.")
            if axis in asked:
                raise InputError(f"class_labels '{class_labels}' names two of {axis}; name one.")
            asked[axis] = name
        answers = asked if OPEN in names else dict(self.defaults) | asked
        matches = [self.describe(label) for label in range(self.null_label)]
        return torch.tensor([all(match[axis] == name for axis, name in answers.items()) for match in matches])

    def draw(
        self,
        class_labels: str | int | Sequence[str | int] | torch.Tensor | None,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """Labels (batch_size,), int64, that answer what is asked for; what is left open is drawn as it was met.

        Args:
            class_labels: as in `allowed`, for all images; a list or tensor has one for each.
            batch_size: number of labels.
            generator: source of randomness, on the CPU; a list gives each label its own.

        Raises:
            InputError: as `allowed`, or if their number is wrong.
        """
        if isinstance(class_labels, torch.Tensor):
            class_labels = class_labels.tolist()
        each = class_labels if isinstance(class_labels, Sequence) and not isinstance(class_labels, str) else None
        if each is not None and len(each) != batch_size:
            raise InputError(f"class_labels has {len(each)} entries for a batch_size of {batch_size}.")
        frequencies = torch.tensor(self.frequencies, dtype=torch.float64)
        labels = []
        for index in range(batch_size):
            allowed = self.allowed(class_labels if each is None else each[index])
            weights = frequencies * allowed
            weights = weights if weights.sum() > 0 else allowed.double()  # never met: any is as good
            own = generator[index] if isinstance(generator, list) else generator
            device = "cpu" if own is None else own.device
            point = torch.rand((), generator=own, device=device, dtype=torch.float64).cpu() * weights.sum()
            label = torch.searchsorted(weights.cumsum(0), point, right=True).clamp(max=self.null_label - 1)
            labels.append(int(label) if allowed[label] else int(allowed.nonzero()[-1]))
        return torch.tensor(labels)


def count_labels(axes: Mapping[str, Sequence[str]]) -> int:
    """Number of combinations of answers."""
    count = 1
    for names in axes.values():
        count *= len(names)
    return count


def join_labels(axes: Mapping[str, Sequence[str]], answers: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Labels (B,) of answers, by question an index each (B,); where one is below 0, the label that says nothing."""
    labels = torch.zeros_like(next(iter(answers.values())))
    for axis, names in axes.items():
        labels = labels * len(names) + answers[axis]
    unknown = torch.stack([answers[axis] < 0 for axis in axes]).any(0)
    return labels.masked_fill(unknown, count_labels(axes))
