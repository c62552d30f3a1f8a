import datasets
import pytest

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.utils.errors import InputError


OTHERS = Vocabulary(("HCM", "amyloid", "athlete"))


def test_a_choice_is_made_by_name():
    assert OTHERS.choose("all") == ("HCM", "amyloid", "athlete") and OTHERS.choose("target") == ("HCM",)
    assert OTHERS.choose(["athlete"]) == ("athlete",)
    assert Vocabulary(OTHERS.groups, "amyloid").choose("target") == ("amyloid",)
    with pytest.raises(InputError, match="Unknown group 'NOR' in groups; choose among HCM, amyloid, athlete"):
        OTHERS.choose(["NOR"])


def test_axes_and_defaults_are_those_of_the_groups():
    assert OTHERS.axes == {"group": OTHERS.groups, "phase": ("ED", "ES"), "level": ("base", "mid", "apex")}
    assert OTHERS.defaults == {"group": "HCM"} and Vocabulary(OTHERS.groups, "athlete").defaults["group"] == "athlete"


def test_a_dataset_without_the_target_group_is_named_where_it_matters():
    without = Vocabulary(("amyloid", "athlete"))
    assert without.choose("all") == without.groups  # an encoder has no disease of interest
    for ask in (lambda: without.choose("target"), lambda: without.defaults):
        with pytest.raises(InputError, match="no group 'HCM'; name one of amyloid, athlete as target_group"):
            ask()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("HCM", "hcm"), "group 'HCM' is called like another group"),
        (("HCM", "es"), "group 'es' is called like another group, a phase, a level or 'any'"),
        (("HCM", "Any"), "group 'Any' is called like"),
        (("HCM", "old scar"), "group 'old scar' is no single word"),
        (("HCM", "../HCM"), "is no single word"),
        (("HCM", ""), "group '' is no single word"),
    ],
)
def test_a_word_means_one_thing(groups, message):
    features = datasets.Features({"group": datasets.ClassLabel(names=list(groups))})
    dataset = datasets.DatasetDict(train=datasets.Dataset.from_dict({"group": [0]}, features=features))
    with pytest.raises(InputError, match=message):
        Vocabulary.of(dataset)


def test_acdcs_groups_are_words():
    Vocabulary(GROUPS).check()
