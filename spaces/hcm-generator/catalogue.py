"""Where the page finds its generators: in a folder of runs, or by the names of folders and repositories."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from generators import Generator
from notes import read_losses, read_notes
from scores import Scores, read_reports, read_scores

from hcm_hf.hub.push import METRICS_FILE
from hcm_hf.hub.serving import one_line
from hcm_hf.pipelines.auto import find_pipeline, hash_model
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.training.run import LOSS_FIGURE
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import download, first_line, parse_repository
from hcm_hf.utils.names import CONFIG_FILE


_HUB_FILES = [METRICS_FILE, LOSS_FIGURE, CONFIG_FILE]


def find_generators(
    models: Path | Sequence[str], reports: Path | None = None
) -> tuple[dict[str, Generator], list[str]]:
    """The generators in a folder of runs, or those of some folders and repositories.

    Args:
        models: a run, a folder of runs, or names of folders and repositories of the Hub.
        reports: folder in which to look for `score`'s reports on local runs, at any depth.

    Returns:
        The generators by name, and a sentence for each that cannot be had.
    """
    found, problems = {}, []
    scored = read_reports(reports)
    for given in _candidates(models):
        repository = parse_repository(given)
        short = repository[0] if repository else Path(given).resolve().name
        name, numbers = short, count(2)
        while name in found:
            name = f"{short} ({next(numbers)})"
        try:
            generator = _find(given, name, repository, scored)
            generator.try_out()
            found[name] = generator
        except Exception as error:  # whatever one repository brings about: the others are served
            reason = str(error) if isinstance(error, InputError) else f"it cannot be used ({first_line(error)})."
            problems.append(one_line(f"{name} is left out: {reason}"))
    return found, problems


def _find(given: str, name: str, repository: tuple | None, scored: Mapping[str, Scores]) -> Generator:
    folder = find_pipeline(given)
    extras = folder.parent if (folder.parent / CONFIG_FILE).is_file() else folder
    if repository is not None:
        extras = download(
            repository[0], _HUB_FILES, revision=folder.parent.name if folder.name == "best" else folder.name
        )
    notes = read_notes(folder, local=repository is None)
    scores = scored.get(hash_model(folder)) or read_scores(extras)
    page = f"https://huggingface.co/{repository[0]}" if repository else None
    return Generator(name, folder, notes, scores, read_losses(extras), page)


def _candidates(models: Path | Sequence[str]) -> list[str]:
    if not isinstance(models, Path):
        return [name for name in models if name]
    runs = [models, *sorted(path for path in models.iterdir() if path.is_dir())] if models.is_dir() else [models]
    runs = [path for path in runs if any((path / part / "model_index.json").is_file() for part in ("", "best"))]
    runs.sort(key=_place)
    return [str(path) for path in runs if path.name not in ("best", "last")] or [str(models)]


def _place(run: Path) -> int:
    """Where a run's family stands among the families."""
    try:
        family = read_notes(run, local=True).family
    except InputError:
        family = None
    return list(FAMILIES).index(family) if family else len(FAMILIES)


def split_names(text: str) -> list[str]:
    """Names separated by commas or spaces."""
    return [name for name in re.split(r"[,\s]+", text) if name]
