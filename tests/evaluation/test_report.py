import copy
import json
from pathlib import Path

import pytest

from hcm_hf.evaluation.report import read_report
from hcm_hf.utils.errors import InputError


PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "acdc-64-paper" / "dcgan"


@pytest.fixture(scope="module")
def good():
    return read_report(PUBLISHED)


def changed(report, *path, to):
    report = copy.deepcopy(report)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return report


KINDS = {
    "a list": lambda good: [good],
    "no rows": lambda good: {key: value for key, value in good.items() if key != "rows"},
    "no generated row": lambda good: changed(good, "rows", to={"real": {}}),
    "text for a number": lambda good: changed(good, "rows", "generated", "ssim_random", "value", to="high"),
    "NaN": lambda good: changed(good, "rows", "generated", "ssim_random", "value", to=float("nan")),
    "infinity": lambda good: changed(good, "rows", "generated", "ssim_random", "high", to=float("inf")),
    "markup for a name": lambda good: changed(good, "rows", "<form>", to={}),
    "markup for a number's name": lambda good: changed(
        good, "rows", "generated", "<img>", to=good["rows"]["generated"]["ssim_random"]
    ),
    "markup for a group": lambda good: changed(good, "dataset", "groups", to=["<b>"]),
    "counts as text": lambda good: changed(good, "n_generated", to="many"),
    "a part without its numbers": lambda good: changed(good, "parts", "similarity", to=["nothing"]),
    "no generator": lambda good: changed(good, "generator", to=None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_report_is_named_in_one_sentence(tmp_path, good, kind):
    (tmp_path / "report.json").write_text(json.dumps(KINDS[kind](good)))
    with pytest.raises(InputError, match="report.json") as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_or_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="report.json"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match="report.json"):
        read_report(tmp_path)


def test_every_published_report_is_read():
    found = list(PUBLISHED.parents[1].rglob("report.json"))
    assert len(found) > 10 and all(read_report(path)["rows"]["generated"] for path in found)
