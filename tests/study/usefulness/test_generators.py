import json

import pytest
import torch
from tiny import build_tiny, notes

from hcm_hf.data.identity import shared_patients
from hcm_hf.study.usefulness.cells import identities_of, of_patients
from hcm_hf.study.usefulness.generators import Request, make_slices, plan_closed, plan_open
from hcm_hf.utils.errors import InputError


def save_model(folder, train_patients, recipe="tuned"):
    """A model that knows whom it has seen, and has met all groups of the cohort."""
    objective = build_tiny("ddpm", recipe=recipe)
    if recipe == "tuned":
        objective.label_counts[:24] = torch.ones(24)
    objective.pipeline().save_pretrained(folder)
    written = notes(family="ddpm", recipe=recipe) | {"train_patients": train_patients}
    (folder / "training_config.json").write_text(json.dumps(written))
    return folder


def test_an_open_model_says_how_many_patients_it_has_seen(splits, tmp_path):
    training, held_out = (identities_of(splits[split]) for split in ("train", "test"))
    model = save_model(tmp_path / "public", training)
    plan = plan_open(str(model), 16, held_out)
    assert (plan.title, plan.num_seen) == ("open public", len(training)) and len(plan.model_hash) == 16


def test_a_model_that_has_seen_a_held_out_patient_is_refused(splits, tmp_path):
    training, held_out = (identities_of(splits[split]) for split in ("train", "test"))
    one = {"under another name": next(iter(held_out.values()))}
    model = save_model(tmp_path / "public", training | one)
    with pytest.raises(InputError, match=f"was trained on patient {next(iter(held_out))}, whom it must not have seen"):
        plan_open(str(model), 16, held_out)
    path = model / "training_config.json"
    written = json.loads(path.read_text())
    del written["train_patients"]
    path.write_text(json.dumps(written))
    with pytest.raises(InputError, match="lacks 'train_patients'"):
        plan_open(str(model), 16, held_out)


def test_a_model_without_segmentations_is_refused(splits, tmp_path):
    model = save_model(tmp_path / "public", identities_of(splits["train"]), recipe="paper")
    with pytest.raises(InputError, match="makes no segmentations"):
        plan_open(str(model), 16, {})


def test_a_model_of_another_size_is_refused(splits, tmp_path):
    model = save_model(tmp_path / "public", identities_of(splits["train"]))
    with pytest.raises(InputError, match="makes slices of 16 px, and the dataset's have 64"):
        plan_open(str(model), 64, {})


def test_the_steps_of_a_closed_generator_are_those_of_the_whole_training_split():
    assert plan_closed("acgan/paired", 320, None).num_steps == {"paired": 280 * 10}
    assert plan_closed("ddpm/distilled", 33, None).num_steps == {"tuned": 150 * 2, "distilled": 20 * 2}
    assert plan_closed("ddpm/distilled", 33, 7).num_steps == {"tuned": 7, "distilled": 7}


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("acgan", None, "closed 'acgan' names no recipe; write FAMILY/RECIPE"),
        ("transformer/paper", None, "Unknown family 'transformer'"),
        ("segmenter/default", None, "Unknown family 'segmenter'"),
        ("acgan/magic", None, "Unknown recipe 'magic' of acgan"),
        ("acgan/paired", 0, "generator_steps is 0; it must be at least 1"),
    ],
)
def test_unknown_closed_generators(name, steps, message):
    with pytest.raises(InputError, match=message):
        plan_closed(name, 320, steps)


def test_a_closed_generator_and_its_teacher_see_the_drawn_patients_alone(splits, tiny, tmp_path):
    drawn = sorted(set(splits["train"]["patient"]))[:2]
    rows = of_patients(splits["train"], drawn)
    everyone = identities_of(splits["train"])
    undrawn = {name: volumes for name, volumes in everyone.items() if name not in drawn}
    request = Request(plan_closed("ddpm/distilled", 10, 1), rows, tmp_path / "model", 0, {}, "HCM")
    made = make_slices(request, 12, tmp_path / "images", identities_of(splits["test"]), undrawn)
    assert sum(map(len, made.values())) == 40  # the least that make a dataset
    for recipe in ("tuned", "distilled"):
        run = json.loads((tmp_path / "model" / recipe / "training_config.json").read_text())
        assert sorted(run["train_patients"]) == drawn and run["progress"]["step"] == 1 and run["finished"]
        assert not shared_patients(run["train_patients"], identities_of(splits["test"]))
    with pytest.raises(InputError, match=f"was trained on patient {drawn[0]}"):
        make_slices(request, 12, tmp_path / "images", {}, everyone)
