import pytest
import torch

from hcm_hf.utils.devices import autocast, find_device, make_accelerator, name_device
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


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps at 4"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "dynamo_backend at inductor"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "use_deepspeed at true"),
        ("ACCELERATE_USE_FSDP", "true", "use_fsdp at true"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "^mixed_precision (is )?fp8"),
    ],
)
def test_what_accelerate_was_told_and_nothing_here_uses_is_refused(variable, value, message, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=message):
        make_accelerator()


def test_what_accelerate_launch_sets_when_it_is_told_nothing_is_taken(monkeypatch):
    for variable, value in (("GRADIENT_ACCUMULATION_STEPS", "1"), ("DYNAMO_BACKEND", "NO"), ("USE_FSDP", "false")):
        monkeypatch.setenv(f"ACCELERATE_{variable}", value)
    assert make_accelerator().num_processes == 1
