"""Functions that are read now, and imported or called later."""

import ast
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lazy(address: str) -> Callable[..., Any]:
    """Return a function of this package that imports its module when it is called.

    Its signature and docstring are read off the source: of the module only what the signature names is run. So
    `--help` and wrong flags are answered without the libraries that the work needs.

    Args:
        address: "module:function", the module within `hcm_hf`.
    """
    module, _, name = f"hcm_hf.{address}".partition(":")
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    statements = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    function = next(one for one in statements if isinstance(one, ast.FunctionDef) and one.name == name)
    function.body, function.returns = function.body[:1], None  # the docstring
    kept: list[ast.stmt] = [function]
    wanted = _names(function)
    for statement in reversed(statements[: statements.index(function)]):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [one for one in statement.names if (one.asname or one.name) in wanted]
            kept += [statement] if statement.names else []
        elif isinstance(statement, ast.Assign) and wanted & set().union(*map(_names, statement.targets)):
            kept.append(statement)
            wanted |= _names(statement)
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile(ast.Module(kept[::-1], []), spec.origin, "exec"), namespace)

    @functools.wraps(namespace[name])
    def call(*arguments: object, **options: object) -> object:
        return vars(import_module(module))[name](*arguments, **options)

    return call


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def deferred(
    function: Callable[..., Any], without: Sequence[str] = (), **defaults: object
) -> Callable[..., functools.partial]:
    """Return a function with the signature and docstring of `function` that returns the call instead of making it.

    Args:
        function: the function to call later.
        without: parameters that are given when it is called, and are no part of the signature.
        defaults: defaults that replace those of the signature.
    """

    @functools.wraps(function)
    def bind(**arguments: object) -> functools.partial:
        return functools.partial(function, **arguments)

    signature = inspect.signature(function)
    parameters = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(one.name, one.default))
        for one in signature.parameters.values()
        if one.name not in without
    ]
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
