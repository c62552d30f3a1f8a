"""Checks of arguments; their messages name the argument as a caller in Python wrote it."""

from collections.abc import Iterable

from hcm_hf.utils.errors import InputError


def at_least(name: str, value: float, least: float) -> None:
    """Raise an `InputError` if an argument is below its smallest value, or not a number."""
    if not value >= least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise an `InputError` that lists the known values if an argument is none of them."""
    known = list(known)
    if value not in known:
        raise InputError(f"Unknown {name} '{value}'; choose among {', '.join(known)}.")
