"""Students and their teachers."""

from dataclasses import replace
from pathlib import Path

import pytest
from runs import small_config, written
from tiny import build_tiny

from hcm_hf.pipelines.auto import HCMPipeline, hash_model
from hcm_hf.training.loop import train
from hcm_hf.utils.errors import InputError


@pytest.fixture(scope="module")
def teacher(shrunk, dataset_dir, tmp_path_factory):
    """A tuned diffusion model."""
    folder = tmp_path_factory.mktemp("teacher") / "tuned"
    return str(train(small_config(dataset_dir, folder, family="ddpm", recipe="tuned", num_epochs=1)))


def test_a_student_needs_a_teacher_that_can_teach_it_and_no_other_has_one(config, teacher, tmp_path):
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(tmp_path / "unknown")
    student = replace(config, family="ddpm", recipe="distilled", teacher=teacher)
    distilled = train(replace(student, num_epochs=1, output_dir=str(tmp_path / "distilled")))
    for change, message in [
        (
            {"teacher": None},
            "recipe distilled of ddpm needs a teacher: train recipe tuned and pass its run as teacher",
        ),
        ({"teacher": str(tmp_path / "none")}, "teacher .*none does not exist"),
        ({"teacher": str(tmp_path / "unknown")}, "unknown has no record of a training of ddpm, tuned"),
        ({"teacher": str(distilled)}, "distilled has no record of a training of ddpm, tuned"),
        ({"recipe": "tuned"}, "recipe tuned of ddpm has no teacher; leave teacher out"),
        ({"guide": str(distilled)}, "guide .*distilled has no record of a training of ddpm, tuned"),
        ({"recipe": "tuned", "teacher": None, "guide": teacher}, "has no teacher; leave guide out"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be at least 1"),
        (
            {"recipe": "tuned", "num_inference_steps": 2},
            "num_inference_steps is for distilled students only; leave it",
        ),
        ({"groups": ("NOR",)}, "was trained on other slices; use the same dataset and groups for both"),
    ]:
        with pytest.raises(InputError, match=message):
            train(replace(student, **change))
        assert not Path(config.output_dir).exists()


def test_a_student_goes_on_with_its_own_teacher_alone(config, teacher, tmp_path):
    student = replace(config, family="ddpm", recipe="distilled", num_epochs=1, teacher=teacher, num_inference_steps=2)
    student = replace(student, guide=str(Path(teacher) / "last"))
    taught, own = (written(Path(run)) for run in (teacher, train(student)))
    assert taught["train_patients"] == own["train_patients"] and own["teacher_hash"] == hash_model(teacher)
    assert own["guide_hash"] == hash_model(student.guide)
    assert HCMPipeline.from_pretrained(config.output_dir).config.num_inference_steps == 2
    tuned = replace(config, family="ddpm", recipe="tuned", num_epochs=1, output_dir=str(tmp_path / "other"), seed=1)
    with pytest.raises(InputError, match="holds a run with teacher_hash"):
        train(replace(student, teacher=str(train(tuned))))
    with pytest.raises(InputError, match="holds a run with guide_hash"):
        train(replace(student, guide=None))
