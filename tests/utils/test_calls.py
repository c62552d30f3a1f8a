import inspect
from importlib import import_module

import pytest

from hcm_hf.cli import COMMANDS
from hcm_hf.utils.calls import lazy


@pytest.mark.parametrize("address", sorted({command.function for command in COMMANDS.values()}))
def test_a_lazy_function_has_the_signature_and_docstring_of_the_function(address):
    module, _, name = address.partition(":")
    real = vars(import_module(f"hcm_hf.{module}"))[name]
    read = lazy(address)
    parameters = (inspect.signature(function).parameters.values() for function in (read, real))
    for one, other in zip(*parameters, strict=True):
        assert (one.name, one.default, one.kind) == (other.name, other.default, other.kind)
        assert one.annotation == other.annotation or "prepare" in one.name  # a constructor is made anew each time
    assert read.__doc__ == real.__doc__


def test_a_lazy_function_calls_the_function():
    assert lazy("data.vocabulary:check_groups")(("HCM",), ("HCM",)) is None
    with pytest.raises(ValueError, match="HOCM"):
        lazy("data.vocabulary:check_groups")(("HOCM",), ("HCM",))
