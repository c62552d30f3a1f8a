"""A small version of the campaigns of `make campaign`: every reader gets a few nearly good inputs."""

import pytest


pytest.importorskip("hypothesis")

from campaigns.damage import damage  # noqa: E402
from campaigns.fuzz import READERS, fuzz  # noqa: E402
from campaigns.outcomes import Outcomes  # noqa: E402

from hcm_hf.training.recipes import FAMILIES  # noqa: E402
from hcm_hf.utils.errors import InputError  # noqa: E402


# Of those that take a second an input or more, a part stands for the others.
QUICK = tuple(name for name in READERS if not name.startswith(("model_index", "config", "conditions", "scheduler")))


def test_readers_take_anything_and_answer_in_one_sentence(tmp_path):
    outcomes = Outcomes()
    fuzz(tmp_path, outcomes, tries=4, of=(*QUICK, "config.json, AC-GAN", "conditions, paired AC-GAN"))
    outcomes.check()
    assert outcomes.tries == 4 * (len(QUICK) + 2)


def test_damaged_files_are_refused_or_harmless(tmp_path, monkeypatch):
    for name, family in FAMILIES.items():  # the campaign makes them tiny; they come back afterwards
        monkeypatch.setitem(FAMILIES, name, family)
    outcomes = Outcomes()
    damage(tmp_path, outcomes, tries=2)
    outcomes.check()


def test_a_failure_is_counted_and_shown(tmp_path):
    """The campaign itself: an error that is none of the package's, a message of two lines, and much memory."""

    def refuse():
        raise InputError("a.csv is damaged; copy it again.")

    def crash():
        raise KeyError("patient")

    outcomes = Outcomes()
    for attempt in (refuse, crash, lambda: bytearray(2**31), lambda: None):
        outcomes.record("a", attempt, "input")
    assert outcomes.tries == 4 and outcomes.harmless["a"] == 1 and outcomes.refused["a"].total() == 1
    assert [name.split(" at ")[0] for name in outcomes.failures["a"]] == ["KeyError", "MemoryError"]
    assert "| a | 4 | 2 |" in outcomes.table()
    with pytest.raises(AssertionError, match="KeyError: 'patient'"):
        outcomes.check()
