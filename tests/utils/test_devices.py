import pytest
import torch

from hcm_hf.utils.devices import autocast, find_device, name_device
from hcm_hf.utils.errors import InputError


def test_the_device_is_the_accelerator_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    for there, expected in ((True, "cuda"), (False, "cpu")):  # torch was built for CUDA in both
        monkeypatch.setattr(torch.accelerator, "is_available", lambda there=there: there)
        assert find_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=f"device {name} .*; leave it out to use "):
        find_device(name)


def test_a_named_device_is_taken():
    assert find_device("cpu") == torch.device("cpu") and name_device(torch.device("cpu"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("no", None), (None, None)])
def test_the_precision_is_that_of_its_name(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


def test_a_precision_of_another_name_is_refused():
    with pytest.raises(InputError, match="mixed_precision is fp8; choose among no, fp16, bf16"):
        autocast(torch.device("cpu"), "fp8")
