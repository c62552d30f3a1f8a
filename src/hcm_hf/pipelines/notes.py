"""What a training run notes of itself, `training_config.json`: checked once, where it is read."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import TypeGuard

from hcm_hf.data.identity import read_identities
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import parse_repository


Check = Callable[[object], bool]
_LARGEST = 1e15
_WORD = re.compile(r"[\w-]{1,64}")


def check_training(training: Mapping, path: Path) -> dict:
    """The notes of a training run, read from `path`, if all that others rely on is there and of its kind.

    Raises:
        InputError: names the file, and the first entry that is missing or of another kind.
    """
    for name in _NEEDED:
        if name not in training:
            raise InputError(f"{path} lacks '{name}'; it is damaged or half-empty: copy the model's run again.")
    return check_notes(training, path)


def check_notes(training: Mapping, path: Path, advice: str = "copy the model's run again") -> dict:
    """The same of notes that need not be complete, such as those that go with generated images.

    Args:
        training: the notes.
        path: of their file.
        advice: what to do about a damaged one.

    Raises:
        InputError: names the file, and the first entry of another kind.
    """
    if (odd := _odd(training, _NEEDED | _OPTIONAL)) is not None:
        raise InputError(f"{path} is damaged: its '{odd}' makes no sense; {advice}.")
    if "train_patients" in training:
        read_identities(training["train_patients"], str(path))
    return dict(training)


def without_paths(training: Mapping) -> dict:
    """The notes of a training run as they may be published: what is known of them, without paths of the machine."""
    kept = {name: value for name, value in training.items() if name in _PUBLISHED}
    for name, known in (("environment", {"hcm_hf", "platform", *_ENVIRONMENT}), ("progress", set(_PROGRESS))):
        if kept.get(name):
            kept[name] = {key: value for key, value in kept[name].items() if key in known}
    for name in ("dataset", "teacher", "guide"):
        if kept.get(name) and parse_repository(kept[name]) is None:
            kept[name] = run_name(kept[name])
    return kept


def run_name(folder: str) -> str:
    """The name of a run's folder, also where its best model is named."""
    path = PureWindowsPath(folder)  # of any system
    return path.parent.name if path.name == "best" else path.name


def _odd(value: Mapping, checks: Mapping[str, Check]) -> str | None:
    """The name of the first entry that does not pass its check."""
    return next((name for name, check in checks.items() if name in value and not check(value[name])), None)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_number(value: object) -> TypeGuard[float]:
    return _is_finite(value) and value >= 0


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and _is_number(value)


def _is_seed(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: object) -> TypeGuard[Mapping]:
    return isinstance(value, Mapping)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _mapping_to(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _all_of(checks: Mapping[str, Check]) -> Check:
    """Whether a value is an object with all of these entries, each of its kind."""
    return lambda value: isinstance(value, Mapping) and set(checks) <= set(value) and _odd(value, checks) is None


_PROGRESS: dict[str, Check] = {
    "step": _is_whole,
    "best_step": _is_whole,
    "best_loss": _or_none(_is_finite),
    "seconds": _is_number,
}
_ENVIRONMENT: dict[str, Check] = {
    **{"packages": _mapping_to(_is_text), "python": _is_text, "processor": _is_text},
    **{"cores": _or_none(_is_whole), "torch_threads": _is_whole, "accelerator": _is_text},
}
_NEEDED: dict[str, Check] = {
    **{"family": _is_word, "recipe": _is_word, "version": _is_text, "groups": _list_of(_is_text)},
    **{"resolution": lambda value: _is_whole(value) and value > 0, "dataset": _is_text},
    **{"train_patients": _is_mapping},  # `read_identities` looks into it
}
_OPTIONAL: dict[str, Check] = {
    **dict.fromkeys(("dataset_repository", "dataset_source", "dataset_license"), _or_none(_is_text)),
    **dict.fromkeys(("dataset_fingerprint", "output_dir"), _or_none(_is_text)),
    **dict.fromkeys(("teacher", "teacher_hash", "guide", "guide_hash"), _or_none(_is_text)),
    **dict.fromkeys(("mixed_precision", "training_precision"), _or_none(_is_word)),
    **{"target_group": _is_text},
    **dict.fromkeys(("num_epochs", "train_batch_size", "num_processes", "patience"), _is_whole),
    "seed": _is_seed,
    **{
        "num_train_slices": _is_whole,
        "num_steps": _or_none(_is_whole),
        "learning_rate": _is_number,
        "ema_decay": _is_number,
    },
    **{"adam_betas": _list_of(_is_number), "relative_rates": _or_none(_mapping_to(_is_number))},
    **{"objective": _is_mapping, "sizes": _is_mapping, "finished": lambda value: isinstance(value, bool)},
    **{"progress": _all_of(_PROGRESS), "environment": _or_none(_all_of(_ENVIRONMENT))},
}
_PUBLISHED = {
    *(_NEEDED | _OPTIONAL),
    *("lr_scheduler", "num_inference_steps", "checkpointing_epochs", "sample_epochs"),
} - {"output_dir"}
