"""The exceptions that a user meets, at the address of earlier versions; `hcm_hf.InputError` is the one to catch."""

from hcm_hf.utils.errors import Diverged, InputError, Interrupted


__all__ = ["Diverged", "InputError", "Interrupted"]
