"""Dataclasses as JSON, and back with their types checked."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


_LARGEST = 1e300  # infinity and NaN are not below it


def plain(value: Any) -> Any:
    """Dataclasses as JSON has them; what is None by default is left out."""
    if is_dataclass(value):
        known = ((one, getattr(value, one.name)) for one in fields(value))
        return {one.name: plain(item) for one, item in known if item not in (None, "") or item != one.default}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def read_typed(kind: Any, value: Any) -> Any:
    """Read JSON as a type: a dataclass, a list, a dictionary, text or a finite number.

    Raises:
        ValueError: if it is of another one.
    """
    inner = get_args(kind)
    if get_origin(kind) is types.UnionType:
        return None if value is None else read_typed(inner[0], value)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        found = {name: read_typed(hint, value[name]) for name, hint in _hints(kind).items() if name in value}
        try:
            return kind(**found)
        except TypeError as error:
            raise ValueError(str(error)) from error
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: read_typed(inner[1], item) for key, item in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        return [read_typed(inner[0], item) for item in value]
    if kind is float and isinstance(value, int | float) and abs(value) < _LARGEST:
        return value
    if kind in (int, bool, str) and isinstance(value, kind):
        return value
    raise ValueError(f"{value!r} is no {kind}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's attributes."""
    return get_type_hints(kind)
