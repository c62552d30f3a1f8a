import hcm_hf
from hcm_hf import errors
from hcm_hf.utils.errors import InputError


def test_the_exceptions_are_found_where_earlier_versions_had_them():
    assert errors.InputError is InputError is hcm_hf.InputError
    assert issubclass(errors.Diverged, errors.InputError) and issubclass(errors.Interrupted, Exception)


def test_a_message_is_one_printable_line_whatever_it_quotes():
    message = str(InputError("a.csv has the group 'a\x1b[2J\nb\ud800'; correct it."))
    assert message == r"a.csv has the group 'a\x1b[2J\nb\ud800'; correct it."
    long = str(InputError(f"a.csv has the group '{'x' * 10**6}'; correct it."))
    assert len(long) < 1100 and long.startswith("a.csv has") and long.endswith("correct it.")
    assert str(InputError("Wände sind 15 mm dick.")) == "Wände sind 15 mm dick."
