"""The words for what a slice shows: the groups of its cohort, and the phases and levels of all."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeGuard

from hcm_hf.data.cohort import LEVELS, PHASES
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import TARGET_GROUP


if TYPE_CHECKING:  # as it takes a second, and the synthetic cohort is drawn without it
    import datasets


Chosen = Sequence[str] | Literal["all", "target"]  # groups by name, or by what they are to a training
_WORD = re.compile(r"[\w+-][\w+.-]{0,63}")


@dataclass(frozen=True)
class Vocabulary:
    """What a model or an evaluation on one dataset can speak of.

    Attributes:
        groups: the names of the cohort's groups; a group's index in the dataset is its place here.
        target_group: the disease of interest.
    """

    groups: tuple[str, ...]
    target_group: str = TARGET_GROUP

    @classmethod
    def of(cls, dataset: "datasets.DatasetDict", target_group: str = TARGET_GROUP) -> "Vocabulary":
        """The words of a prepared dataset.

        Raises:
            InputError: if a group's name cannot be asked for, or is that of another group or of a phase or level.
        """
        vocabulary = cls(tuple(dataset["train"].features["group"].names), target_group)
        vocabulary.check()
        return vocabulary

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What can be asked of a slice: the answers by question."""
        return {"group": self.groups, "phase": PHASES, "level": LEVELS}

    @property
    def target(self) -> str:
        """The disease of interest.

        Raises:
            InputError: if the dataset has no such group.
        """
        if self.target_group not in self.groups:
            known = ", ".join(self.groups)
            raise InputError(f"The dataset has no group '{self.target_group}'; name one of {known} as target_group.")
        return self.target_group

    @property
    def defaults(self) -> dict[str, str]:
        """What a slice shows unless something else is asked for."""
        return {"group": self.target}

    def choose(self, groups: Chosen) -> tuple[str, ...]:
        """The names of all groups, of the target group, or those that are given.

        Raises:
            InputError: if the dataset has no such group.
        """
        if groups == "all":
            return self.groups
        if groups == "target":
            return (self.target,)
        check_groups(groups, self.groups)
        return tuple(groups)

    def check(self) -> None:
        """See that each word means one thing, as those of a stranger's dataset may not; case does not count.

        Raises:
            InputError: names the group.
        """
        taken = Counter(word.casefold() for words in self.axes.values() for word in (*words, "any"))
        for group in self.groups:
            if not is_word(group):
                raise InputError(f"The dataset's group {group!r} is no single word; give it another name.")
            if taken[group.casefold()] > 1:
                raise InputError(
                    f"The dataset's group '{group}' is called like another group, a phase, a level or 'any'; give it "
                    "another name."
                )


def is_word(value: object) -> TypeGuard[str]:
    """Whether a value may be the name of a group: letters, digits and a few signs, safe in the name of a file."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def check_groups(groups: Sequence[str], known: Sequence[str]) -> None:
    """Raise an `InputError` for a group that is not among the known ones."""
    for group in groups:
        if group not in known:
            raise InputError(f"Unknown group '{group}' in groups; choose among {', '.join(known)}.")
