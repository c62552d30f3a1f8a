"""A small version of the campaigns of `make campaign`: every reader gets a few nearly good inputs."""

import pytest


pytest.importorskip("hypothesis")

from campaigns.damage import damage  # noqa: E402
from campaigns.fuzz import READERS, fuzz  # noqa: E402
from campaigns.outcomes import Outcomes  # noqa: E402

from hcm_hf.training.recipes import FAMILIES  # noqa: E402
from hcm_hf.utils.errors import InputError  # noqa: E402


# One reader of each kind; `make campaign` gives far more to all.
FEW = (
    *("NIfTI", "Info.cfg", "cohort.csv", "report.json", "training_config.json", "preparation.json", "metrics.jsonl"),
    *("config.json, AC-GAN", "weights' header", "conditions, paired AC-GAN"),
)


def test_readers_take_anything_and_answer_in_one_sentence(tmp_path):
    outcomes = Outcomes()
    fuzz(tmp_path, outcomes, tries=5, of=FEW)
    outcomes.check()
    assert outcomes.tries == 5 * len(FEW) and set(FEW) <= set(READERS)


def test_damaged_files_are_refused_or_harmless(tmp_path, monkeypatch):
    for name, family in FAMILIES.items():  # the campaign makes them tiny; they come back afterwards
        monkeypatch.setitem(FAMILIES, name, family)
    outcomes = Outcomes()
    damage(tmp_path, outcomes, tries=6, of=("dataset", "GAN"))
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
