import hcm_hf
from hcm_hf import errors
from hcm_hf.utils.errors import InputError


def test_the_exceptions_are_found_where_earlier_versions_had_them():
    assert errors.InputError is InputError is hcm_hf.InputError
    assert issubclass(errors.Diverged, errors.InputError) and issubclass(errors.Interrupted, Exception)
