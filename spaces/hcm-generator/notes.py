"""What lies beside a model's weights, of its run: a stranger may have written it."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hcm_hf.data.vocabulary import is_word
from hcm_hf.pipelines.auto import read_training
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.training.run import LOSS_FIGURE
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import TARGET_GROUP


MOST_BYTES = 8 * 2**20  # of one file
MOST_FIGURE_PIXELS = 2**24
LARGEST_NUMBER = 1e9
MOST_GROUPS = 30  # that a model may know, each by a name of its own
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9._-]{1,96}")
RECIPES = {recipe for family in FAMILIES.values() for recipe in family.recipes}


@dataclass(frozen=True)
class Notes:
    """What a model's run says of itself, as far as it makes sense.

    Attributes:
        family: a name of a family.
        recipe: a name of a recipe.
        resolution: pixels a side.
        groups: the groups of patients that the model was trained on.
        dataset: the folder of the dataset, where the run lies on this machine.
        repository: the dataset's repository.
    """

    family: str | None = None
    recipe: str | None = None
    resolution: int | None = None
    groups: tuple[str, ...] = (TARGET_GROUP,)
    dataset: str | None = None
    repository: str | None = None


def read_notes(folder: Path, local: bool) -> Notes:
    """What the run of a saved pipeline says of itself.

    Args:
        folder: of the pipeline.
        local: whether the run lies on this machine; a repository may name no folder here.

    Raises:
        InputError: if that is damaged.
    """
    try:
        training = read_training(folder)
    except (ValueError, RecursionError):
        training = None
    if not isinstance(training, dict):
        raise InputError("its training_config.json is damaged; copy it again.")
    names = ("family", "recipe", "resolution", "groups", "dataset", "dataset_repository")
    family, recipe, resolution, groups, dataset, repository = (training.get(name) for name in names)
    return Notes(
        family if isinstance(family, str) and family in FAMILIES else None,
        recipe if isinstance(recipe, str) and recipe in RECIPES else None,
        resolution if is_count(resolution) else None,
        tuple(groups) if groups and are_groups(groups) else Notes.groups,
        dataset if local and isinstance(dataset, str) else None,
        repository if isinstance(repository, str) and REPOSITORY.fullmatch(repository) else None,
    )


def read_losses(extras: Path) -> Path | None:
    """The figure of a run's losses, if it is one that a browser can show."""
    path = extras / LOSS_FIGURE
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        with Image.open(path, formats=("PNG",)) as figure:
            return path if math.prod(figure.size) <= MOST_FIGURE_PIXELS else None
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def are_groups(value: object) -> bool:
    """Whether a value is a list of groups' names."""
    return isinstance(value, list) and len(value) <= MOST_GROUPS and all(map(is_word, value))


def is_number(value: object) -> bool:
    """Whether a value is a number of a size that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 up."""
    return isinstance(value, int) and is_number(value) and value >= 0
