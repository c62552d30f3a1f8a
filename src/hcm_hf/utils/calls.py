"""Functions whose arguments are read now and that are called later."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any


def deferred(function: Callable[..., Any], **defaults: object) -> Callable[..., functools.partial]:
    """Return a function with the signature and docstring of `function` that returns the call instead of making it.

    Args:
        function: the function to call later.
        defaults: defaults that replace those of the signature.
    """

    @functools.wraps(function)
    def bind(**arguments: object) -> functools.partial:
        return functools.partial(function, **arguments)

    signature = inspect.signature(function)
    parameters = [one.replace(default=defaults.get(one.name, one.default)) for one in signature.parameters.values()]
    vars(bind)["__signature__"] = signature.replace(parameters=parameters)
    return bind


def arguments_of(call: functools.partial) -> Mapping[str, object]:
    """Return the arguments of a deferred call by name, with those of calls and dataclasses among them."""
    found: dict[str, object] = {}
    for name, value in call.keywords.items():
        if isinstance(value, functools.partial):
            found |= arguments_of(value)
        elif is_dataclass(value):
            found |= vars(value)
        else:
            found[name] = value
    return found
