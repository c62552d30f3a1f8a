import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hcm_hf.evaluation.report import Report, Source
from hcm_hf.utils.errors import InputError


PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "acdc-64-paper" / "dcgan"


@pytest.fixture(scope="module")
def good():
    return json.loads((PUBLISHED / "report.json").read_text())


def changed(report, *path, to):
    report = copy.deepcopy(report)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return report


def without(report, name):
    return {key: value for key, value in report.items() if key != name}


KINDS = {
    "a list": lambda good: [good],
    "no rows": lambda good: without(good, "rows"),
    "no generated row": lambda good: changed(good, "rows", to={"real": {}}),
    "text for a number": lambda good: changed(good, "rows", "generated", "ssim_random", "value", to="high"),
    "NaN": lambda good: changed(good, "rows", "generated", "ssim_random", "value", to=float("nan")),
    "infinity": lambda good: changed(good, "rows", "generated", "ssim_random", "high", to=float("inf")),
    "a number that no float holds": lambda good: changed(good, "rows", "generated", "ssim_random", "low", to=10**400),
    "a number without its interval": lambda good: changed(good, "rows", "generated", "ssim_random", to={"value": 1}),
    "markup for a name": lambda good: changed(good, "rows", "<form>", to={}),
    "markup for a number's name": lambda good: changed(
        good, "rows", "generated", "<img>", to=good["rows"]["generated"]["ssim_random"]
    ),
    "markup for a protocol": lambda good: changed(good, "rows", "generated", "ssim_random", "protocol", to="<b>"),
    "markup for a group": lambda good: changed(good, "dataset", "groups", to=["<b>"]),
    "counts as text": lambda good: changed(good, "n_generated", to="many"),
    "counts below 0": lambda good: changed(good, "n_heldout", to=-1),
    "a part without its numbers": lambda good: changed(good, "parts", "similarity", to=["nothing"]),
    "no generator": lambda good: changed(good, "generator", to=None),
    "no seed": lambda good: without(good, "seed"),
    "half a spread of the speed": lambda good: changed(good, "speed", "low", to=1.0),
    "a time below 0": lambda good: changed(good, "speed", "seconds_per_1000_images", to=-1.0),
    "a speed without its batch": lambda good: changed(good, "speed", to=without(good["speed"], "batch_size")),
    "markup for a precision": lambda good: changed(good, "training_precision", to="<b>"),
    "an encoder without its hash": lambda good: changed(good, "encoder", to=without(good["encoder"], "hash")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_report_is_named_in_one_sentence(tmp_path, good, kind):
    (tmp_path / "report.json").write_text(json.dumps(KINDS[kind](good)))
    with pytest.raises(InputError, match="report.json") as caught:
        Report.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_or_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="report.json"):
        Report.load(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match="report.json"):
        Report.load(tmp_path)


def test_every_published_report_is_read_and_written_as_it_was(tmp_path):
    found = list(PUBLISHED.parents[1].rglob("report.json"))
    assert len(found) > 10
    for path in found:
        report = Report.load(path)
        report.save(tmp_path)
        assert json.loads((tmp_path / "report.json").read_text()) == json.loads(path.read_text())
        assert Report.load(tmp_path) == report


def test_a_report_is_written_without_paths_for_others():
    report = Report.load(PUBLISHED).renamed("user/hearts", "slices", "encoder")
    assert (report.generator.model, report.dataset.name, report.encoder.source) == ("user/hearts", "slices", "encoder")
    both = replace(report, segmenter=replace(report.encoder, source="/home/me", hash="f" * 16))
    assert both.renamed("user/hearts", "slices", "encoder").segmenter.source == "encoder"
    assert replace(report, encoder=None).renamed("a", "b", None).encoder is None


def test_both_networks_stand_side_by_side(good):
    """Reports of before, whose encoder was one network, show that one."""
    before = Report.from_json(good)
    assert before.segmenter is None and "The segmenter:" not in before.to_markdown()
    both = replace(before, segmenter=replace(before.encoder, hash="f" * 16))
    assert Report.from_json(both.to_json()) == both
    text = both.to_markdown()
    for name, one in (("feature encoder", both.encoder), ("segmenter", both.segmenter)):
        assert f"The {name}: {one.source}, hash {one.hash}, trained by hcm_hf {one.version}." in text
    assert "|  | feature encoder | segmenter |" in text


def test_the_settings_of_images_are_those_that_there_are():
    assert Source("runs/gan").settings() == []
    assert Source(classes=["HCM"], guidance_scale=1.0).settings() == ["class HCM"]
    assert Source(scheduler="ddim", num_inference_steps=5, guidance_scale=2).settings() == [
        "ddim, 5 steps, guidance 2"
    ]
