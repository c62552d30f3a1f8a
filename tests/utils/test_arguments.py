import pytest

from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.errors import InputError


def test_a_value_below_the_smallest_is_refused_by_name():
    at_least("num_images", 1, 1)
    for value in (0, -1, float("nan")):
        with pytest.raises(InputError, match=f"^num_images is {value}; it must be at least 1.$"):
            at_least("num_images", value, 1)


def test_an_unknown_name_lists_the_known_ones():
    one_of("scheduler", "ddpm", ("ddpm", "ddim"))
    with pytest.raises(InputError, match="^Unknown scheduler 'heun'; choose among ddpm, ddim.$"):
        one_of("scheduler", "heun", ("ddpm", "ddim"))
