import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import ACDC, MODELS, build_tiny, resized, sample, tiny_families

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.identity import shared_patients
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.generation.images import generate_images
from hcm_hf.models import SliceEncoder
from hcm_hf.pipelines.auto import HCMPipeline, hash_model
from hcm_hf.training import checkpoint as checkpoints
from hcm_hf.training import run as runs
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.encoder import train_encoder
from hcm_hf.training.loop import batch_indices, step_seed, train
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS
from hcm_hf.utils.errors import Diverged, InputError, Interrupted


SCRIPTS = Path(__file__).parents[2] / "scripts"
WEIGHTS = "diffusion_pytorch_model.safetensors"
every_family = pytest.mark.parametrize("family", FAMILIES)
every_model = pytest.mark.parametrize(("family", "recipe"), MODELS)


@pytest.fixture(autouse=True)
def shrunk(monkeypatch):
    for name, family in tiny_families().items():
        monkeypatch.setitem(FAMILIES, name, family)


@pytest.fixture
def config(dataset_dir, tmp_path):
    return TrainingConfig(
        dataset=str(dataset_dir),
        output_dir=str(tmp_path / "run"),
        groups=("HCM",),
        num_epochs=3,
        train_batch_size=16,
        checkpointing_epochs=1,
        sample_epochs=2,
    )


@pytest.fixture(scope="module")
def teachers(dataset_dir, tmp_path_factory):
    """Diffusion models that can teach, trained once, by recipe."""
    taught = {recipe.taught_by for recipe in FAMILIES["ddpm"].recipes.values() if recipe.taught_by}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "ddpm", tiny_families()["ddpm"])
        return {
            recipe: str(
                train(
                    TrainingConfig(
                        family="ddpm",
                        recipe=recipe,
                        dataset=str(dataset_dir),
                        output_dir=str(tmp_path_factory.mktemp("taught") / recipe),
                        groups=("HCM",),
                        num_epochs=1,
                        train_batch_size=16,
                        sample_epochs=2,
                    )
                )
            )
            for recipe in sorted(taught)
        }


@pytest.fixture
def teacher(teachers):
    """A tuned diffusion model."""
    return teachers["tuned"]


def of_model(config, family, recipe, teachers):
    """The configuration for a family's recipe; students get their teacher."""
    taught = FAMILIES[family].recipes[recipe].taught_by
    return replace(config, family=family, recipe=recipe, teacher=teachers[taught] if taught else None)


def metrics(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def tensors(output_dir, name="last"):
    return load_file(output_dir / name / checkpoints.STATE_FILE)


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    for name in ("best", "last"):
        weights = [load_file(next((run / name).rglob(WEIGHTS))) for run in (one, other)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@every_model
def test_a_run_leaves_what_it_promises(family, recipe, config, teachers):
    output_dir = train(of_model(config, family, recipe, teachers))
    steps = [record for record in metrics(output_dir) if "validation_loss" not in record]
    validations = [record for record in metrics(output_dir) if "validation_loss" in record]
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    assert [record["epoch"] for record in validations] == [1, 2, 3]
    length = len(steps) // 3
    assert [record["epoch"] for record in steps] == [1] * length + [2] * length + [3] * length
    best = min(validations, key=lambda record: record["validation_loss"])
    written = json.loads((output_dir / "best" / "training_config.json").read_text())
    assert written["progress"]["best_step"] == best["step"] and written["family"] == family
    assert [path.name for path in (output_dir / "samples").iterdir()] == ["epoch-0002.png"]
    assert (output_dir / "losses.png").exists()
    for name in ("best", "last"):
        assert sample(family, HCMPipeline.from_pretrained(output_dir / name)).shape == (3, 16, 16, 1)
    assert not [path for path in output_dir.rglob("*") if path.name.endswith((".tmp", ".previous", ".bin", ".pt"))]
    files = [path for path in output_dir.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.stat().st_mode for path in files} == {(output_dir / "metrics.jsonl").stat().st_mode}


def test_a_linear_rate_falls_over_the_whole_training(config, monkeypatch):
    """Each network's by its own part of the rate: the first step has all of it, after the last there would be none."""
    recipe = replace(FAMILIES["dcgan"].recipes["paper"], relative_rates={"generator": 0.5})
    monkeypatch.setitem(FAMILIES["dcgan"].recipes, "paper", recipe)
    rates, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *rest, **named: (rates.append(self.param_groups[0]["lr"]), step(self, *rest, **named))[1],
    )
    output_dir = train(replace(config, lr_scheduler="linear", learning_rate=0.01))
    count = len([record for record in metrics(output_dir) if "validation_loss" not in record])
    expected = [0.01 * (1 - done / count) for done in range(count)]
    assert rates[::2] == pytest.approx(expected)  # discriminator
    assert rates[1::2] == pytest.approx([rate / 2 for rate in expected])


class StopAfter:
    """Delivers a real signal to this process when a run's metrics reach a step."""

    def __init__(self, output_dir, step, number=signal.SIGTERM):
        self.path, self.step, self.number = Path(output_dir) / "metrics.jsonl", step, number
        self.over = False
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self.over:
            if self.path.exists() and f'"step": {self.step},' in self.path.read_text():
                os.kill(os.getpid(), self.number)
                return
            time.sleep(0.001)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


@pytest.mark.parametrize(
    ("family", "recipe", "number"),
    [(*model, (signal.SIGTERM, signal.SIGINT)[index % 2]) for index, model in enumerate(MODELS)],
)
def test_interrupted_and_resumed_equals_uninterrupted(family, recipe, number, config, teachers, tmp_path):
    config = replace(of_model(config, family, recipe, teachers), ema_decay=0.9, num_epochs=5)
    whole = train(config)
    config = replace(config, output_dir=str(tmp_path / "halves"))
    with (
        pytest.raises(Interrupted, match="run the same command to go on") as stop,
        StopAfter(config.output_dir, 3, number),
    ):
        train(config)
    assert stop.value.signal_number == number
    stopped = json.loads((tmp_path / "halves/last/training_config.json").read_text())["progress"]["step"]
    assert 3 <= stopped < metrics(whole)[-1]["step"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_run(whole, train(config))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_terminal_that_closes_and_a_scheduler_stop_a_run_with_its_state_saved(number, config):
    """And a second signal acts as it did before the training."""
    received, before = [], signal.getsignal(number)
    signal.signal(number, lambda number, frame: received.append(number))
    try:
        with pytest.raises(Interrupted) as stop, StopAfter(config.output_dir, 3, number):
            train(replace(config, num_epochs=100_000))
        assert stop.value.signal_number == number and not received
        os.kill(os.getpid(), number)
        assert received == [number]
    finally:
        signal.signal(number, before)
    saved = json.loads((Path(config.output_dir) / "last/training_config.json").read_text())
    assert saved["progress"]["step"] == metrics(Path(config.output_dir))[-1]["step"]


def random_numbers():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_drawn(config, monkeypatch):
    def seed():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)

    seed()
    expected = random_numbers()
    seed()
    train(replace(config, num_epochs=1))
    assert random_numbers() == expected
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.adversarial_loss", lambda logits, target: logits.mean() * float("nan")
    )
    seed()
    with pytest.raises(Diverged):
        train(config)
    assert random_numbers() == expected


def test_a_call_knows_nothing_of_the_precision_of_the_one_before(config, tmp_path, monkeypatch):
    config = replace(config, family="vae", num_epochs=1)

    def precision(name, **told):
        output_dir = train(replace(config, output_dir=str(tmp_path / name), **told))
        return json.loads((output_dir / "training_config.json").read_text())["mixed_precision"]

    def images(name):
        generate_images(tmp_path / "full", tmp_path / name, num_images=4)
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))]

    assert precision("full") == "no"
    before = images("before")
    assert precision("half", mixed_precision="bf16") == "bf16"
    assert images("after") == before
    assert precision("again") == "no" and precision("told", mixed_precision="no") == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # what `accelerate launch` was told
    assert precision("launched") == "bf16"
    settings = json.loads((generate_images(tmp_path / "full", tmp_path / "fast", 1) / "generation.json").read_text())
    assert settings["mixed_precision"] == "bf16"


@every_model
def test_killed_and_resumed_equals_uninterrupted(family, recipe, config, teachers, tmp_path, monkeypatch):
    """A crash between checkpoints: the steps after the last one are made again, and logged once."""
    config = replace(of_model(config, family, recipe, teachers), num_epochs=4, checkpointing_epochs=2)
    whole = train(config)
    config = replace(config, output_dir=str(tmp_path / "halves"))
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(runs.Run, "sample", lambda run, epoch: crash() if epoch == 4 else None)
        train(config)
    assert metrics(tmp_path / "halves")[-1]["epoch"] == 4
    assert_same_run(whole, train(config))


def crash():
    raise MemoryError


def test_more_epochs_go_on_and_a_finished_run_stays(config):
    output_dir = train(replace(config, num_epochs=1))
    before = metrics(output_dir)
    assert metrics(train(replace(config, num_epochs=1))) == before
    after = metrics(train(config))
    assert after[: len(before)] == before and after[-1]["epoch"] == 3


def test_early_stopping_keeps_the_best(config, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.GAN.validation_loss", lambda self, batch: torch.tensor(next(losses))
    )
    output_dir = train(replace(config, num_epochs=50, patience=3))
    records = [record for record in metrics(output_dir) if "validation_loss" in record]
    assert [record["validation_loss"] for record in records] == [3.0, 1.0, 2.0, 2.0, 2.0]
    written = json.loads((output_dir / "best" / "training_config.json").read_text())
    assert written["progress"]["best_loss"] == 1.0
    losses = iter([3.0, 1.0])
    two = train(replace(config, num_epochs=2, output_dir=config.output_dir + "-two"))
    weights = [
        load_file(run / "network" / WEIGHTS) for run in (output_dir / "best", two / "last", output_dir / "last")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_number_of_steps_is_taken_whatever_the_slices_and_the_patience(config):
    output_dir = train(replace(config, num_epochs=1, num_steps=5, patience=1))
    assert [record["step"] for record in metrics(output_dir) if "validation_loss" not in record] == [1, 2, 3, 4, 5]
    written = json.loads((output_dir / "last" / "training_config.json").read_text())
    assert written["progress"]["step"] == written["num_steps"] == 5
    short = train(replace(config, num_steps=1, output_dir=config.output_dir + "-short"))  # less than an epoch
    assert json.loads((short / "training_config.json").read_text())["progress"]["step"] == 1


def test_a_recipe_of_ones_own_is_trained(config):
    own = replace(FAMILIES["dcgan"].recipes["paper"], adam_betas=(0.1, 0.2), learning_rate=1.0)
    output_dir = train(replace(config, num_steps=1, learning_rate=1e-4), own)
    written = json.loads((output_dir / "training_config.json").read_text())
    assert (written["adam_betas"], written["learning_rate"]) == ([0.1, 0.2], 1e-4)


def test_training_drives_the_loss_down(config):
    output_dir = train(replace(config, num_epochs=25, learning_rate=2e-3))
    losses = [record["discriminator_loss"] for record in metrics(output_dir) if "discriminator_loss" in record]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@every_family
def test_averaged_weights_are_saved_and_sampled(family, config):
    output_dir = train(replace(config, family=family, num_epochs=1, ema_decay=0.99))
    state, sampled = tensors(output_dir), build_tiny(family).sampled
    saved = load_file(next((output_dir / "last").rglob(WEIGHTS)))
    assert all(torch.equal(saved[name], state[f"average.{name}"]) for name in saved)
    assert any(not torch.equal(saved[name], state[f"objective.{sampled}.{name}"]) for name in saved)


def test_batch_order_is_whole_shuffled_passes():
    stream = np.concatenate([batch_indices(10, 4, step, seed=1) for step in range(5)])
    for epoch in (stream[:10], stream[10:]):
        assert sorted(epoch) == list(range(10))
    assert (stream[:10] != stream[10:]).any() and (stream[:10] != np.arange(10)).any()
    assert (batch_indices(10, 4, 3, seed=2) != batch_indices(10, 4, 3, seed=1)).any()


def test_processes_share_the_batch():
    whole = batch_indices(10, 8, 3, seed=0)
    parts = [batch_indices(10, 8, 3, seed=0, process_index=rank, num_processes=2) for rank in (0, 1)]
    assert (np.stack(parts, axis=1).flatten() == whole).all()


def test_seeds_differ_by_step_and_seed():
    seeds = {step_seed(s, n) for s in range(10) for n in range(10)}
    assert len(seeds) == 100 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "stylegan"}, "Unknown family 'stylegan'"),
        ({"recipe": "best"}, "Unknown recipe 'best'"),
        ({"dataset": "nowhere"}, "dataset nowhere does not exist"),
        ({"resolution": 64}, "images of 16 px, not 64; leave resolution out"),
        ({"groups": ("ABC",)}, "Unknown group 'ABC'"),
        ({"groups": ("RV",)}, "No slice of groups RV is in the split 'train'"),
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"train_batch_size": 0}, "train_batch_size is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"lr_scheduler": "cosine"}, "Unknown lr_scheduler 'cosine'; choose among constant, linear"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"sample_epochs": 0}, "sample_epochs is 0"),
        ({"report_to": ("wandb",)}, "The tracker wandb of report_to is not installed"),
        ({"seed": -1}, "seed is -1"),
        ({"output_dir": "n" * 300}, "Cannot .*nnn.* .File name too long.; choose a shorter name"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(config, change, message):
    with pytest.raises(InputError, match=message) as caught:
        train(replace(config, **change))
    assert "\n" not in str(caught.value)
    assert not Path(config.output_dir).exists()


def test_a_folder_of_another_run_or_of_something_else_is_left_alone(config, splits, tmp_path, monkeypatch):
    output_dir = train(replace(config, num_epochs=1))
    before = {path: path.read_bytes() for path in output_dir.rglob("*") if path.is_file()}
    dcgan = FAMILIES["dcgan"]
    monkeypatch.setitem(FAMILIES, "dcgan", replace(dcgan, recipes=dcgan.recipes | {"other": dcgan.recipes["paper"]}))
    splits["validation"], validation = splits["validation"].select(range(8)), splits["validation"]
    splits.save_to_disk(tmp_path / "fewer")
    splits["validation"] = validation
    for change, message in [
        ({"family": "vae"}, "holds a run with family dcgan, not vae"),
        ({"recipe": "other"}, "holds a run with recipe paper, not other"),
        ({"dataset": str(tmp_path / "fewer")}, "holds a run on other slices than those of dataset .*fewer"),
        ({"seed": 1}, "holds a run with seed 0, not 1"),
        ({"groups": ("NOR",)}, "holds a run with groups"),
        ({"learning_rate": 1e-3}, "holds a run with learning_rate 0.0002, not 0.001"),
    ]:
        with pytest.raises(InputError, match=message):
            train(replace(config, **change))
    assert before == {path: path.read_bytes() for path in output_dir.rglob("*") if path.is_file()}
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        train(replace(config, output_dir=str(tmp_path / "thesis")))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("family", ["dcgan", "acgan"])
def test_a_run_from_before_there_was_a_target_group_goes_on(config, family, tmp_path):
    config = replace(config, family=family)
    whole = train(replace(config, output_dir=str(tmp_path / "whole"), num_epochs=2))
    output_dir = train(replace(config, num_epochs=1))
    for folder in (output_dir, output_dir / "last", output_dir / "best"):
        path = folder / "training_config.json"
        written = json.loads(path.read_text())
        assert written.pop("target_group") == "HCM"
        path.write_text(json.dumps(written | {"sizes": {}}))
    with pytest.raises(InputError, match="holds a run with target_group HCM, not NOR"):
        train(replace(config, num_epochs=2, target_group="NOR"))
    assert_same_run(whole, train(replace(config, num_epochs=2)))
    assert json.loads((output_dir / "training_config.json").read_text())["target_group"] == "HCM"


def test_divergence_is_reported_and_the_checkpoint_kept(config, monkeypatch):
    output_dir = train(replace(config, num_epochs=1))
    before = tensors(output_dir)
    monkeypatch.setattr(
        "hcm_hf.training.objectives.gan.adversarial_loss", lambda logits, target: logits.mean() * float("nan")
    )
    with pytest.raises(Diverged, match="discriminator_loss is nan at step .* lower learning_rate"):
        train(config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(output_dir).items())


def test_full_disk_keeps_the_previous_checkpoint(config):
    output_dir = train(replace(config, num_epochs=1))
    before = tensors(output_dir)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"Cannot write .*(best|last)"):
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(output_dir).items())
    assert not [path for path in output_dir.rglob("*") if path.name.endswith(".tmp")]
    train(config)  # and it goes on once there is room


def test_trackers_get_the_losses(config):
    output_dir = train(replace(config, num_epochs=1, report_to=("tensorboard",)))
    logged = EventAccumulator(str(output_dir / "logs" / "hcm_hf")).Reload().Scalars("generator_loss")
    expected = [record for record in metrics(output_dir) if "generator_loss" in record]
    assert [event.step for event in logged] == [record["step"] for record in expected]
    np.testing.assert_allclose([event.value for event in logged], [record["generator_loss"] for record in expected])


SCRIPT = SCRIPTS / "train.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def arguments(config, *more):
    values = {
        "dataset": config.dataset,
        "output_dir": config.output_dir,
        "train_batch_size": 8,
        "checkpointing_epochs": 1,
    }
    return [str(SCRIPT), *(f"--{name}={value}" for name, value in values.items()), "--groups", "HCM", *more]


def two_processes(*command):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    return subprocess.run([*torchrun, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


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
    taught, own = (json.loads((Path(run) / "training_config.json").read_text()) for run in (teacher, train(student)))
    assert taught["train_patients"] == own["train_patients"] and own["teacher_hash"] == hash_model(teacher)
    assert HCMPipeline.from_pretrained(config.output_dir).config.num_inference_steps == 2
    tuned = replace(config, family="ddpm", recipe="tuned", num_epochs=2, output_dir=str(tmp_path / "other"))
    with pytest.raises(InputError, match="holds a run with teacher_hash"):
        train(replace(student, teacher=str(train(tuned))))


def test_two_processes_share_the_batch_stay_equal_and_resume(config, tmp_path):
    """Every family runs in two processes; its first loss is that of one process with the same batch.

    Where batch normalisation sees half of the batch, in DCGAN, AC-GAN and InfoGAN, the losses are only alike.
    """
    result = two_processes(str(Path(__file__).parents[1] / "parallel.py"), config.dataset, str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    tuned = [("ddpm", "tuned"), ("vae", "tuned")]
    for family, recipe in [*((family, "paper") for family in FAMILIES), *tuned]:
        name = family if recipe == "paper" else f"{family}-{recipe}"
        output_dir = str(tmp_path / "one" / name)
        one = train(replace(config, family=family, recipe=recipe, num_epochs=1, output_dir=output_dir))
        first, expected = (metrics(folder)[0] for folder in (tmp_path / "two" / name, one))
        mixes_slices = any(isinstance(module, torch.nn.BatchNorm2d) for module in build_tiny(family).modules())
        assert first == pytest.approx(expected, rel=0.3 if mixes_slices else 1e-4)
        written = json.loads((tmp_path / "two" / name / "training_config.json").read_text())
        assert written["num_processes"] == 2
    for name in ("dcgan", "vae-tuned"):
        assert_same_run(tmp_path / "two" / name, tmp_path / "two" / f"{name}-in-halves")
    # What they remember of the slices is of all of them.
    one, two = (tensors(tmp_path / number / "ddpm-tuned")["objective.label_counts"] for number in ("one", "two"))
    assert torch.equal(one, two)
    with pytest.raises(InputError, match="holds a run with"):  # one process would not go on from the same batches
        train(replace(config, output_dir=str(tmp_path / "two" / "dcgan"), train_batch_size=8, num_epochs=2))


def test_gradients_of_two_processes_are_averaged(tmp_path):
    code = """
import torch
from hcm_hf.utils.devices import make_accelerator
from hcm_hf.training.loop import _agreed, _average_gradients
accelerator = make_accelerator()
assert accelerator.num_processes == 2
network = torch.nn.Linear(2, 3)
for parameter in network.parameters():
    parameter.grad = (4.0 * accelerator.process_index + torch.arange(parameter.numel())).reshape(parameter.shape)
reduce, messages = accelerator.reduce, []
accelerator.reduce = lambda tensor, how: messages.append(tensor.shape) or reduce(tensor, how)
_average_gradients(network, accelerator)
assert torch.equal(network.weight.grad, 2 + torch.arange(6.0).reshape(3, 2))
assert torch.equal(network.bias.grad, 2 + torch.arange(3.0))
assert len(messages) == 1  # of all parameters together
assert _agreed(15 * accelerator.process_index, accelerator) == 15
"""
    (tmp_path / "check.py").write_text(code)
    result = two_processes(str(tmp_path / "check.py"))
    assert result.returncode == 0, result.stderr


def test_mixed_precision_trains_every_family_and_is_not_mixed_with_full_precision(config, tmp_path):
    script, folder = Path(__file__).parents[1] / "parallel.py", tmp_path / "bf16"
    command = [sys.executable, str(script), config.dataset, str(folder), "bf16"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert result.returncode == 0, result.stderr
    for family in FAMILIES:
        assert json.loads((folder / family / "training_config.json").read_text())["mixed_precision"] == "bf16"
    with pytest.raises(InputError, match="holds a run with mixed_precision bf16, not no"):
        train(replace(config, family="vae", output_dir=str(folder / "vae"), train_batch_size=8, num_epochs=1))


def test_a_signal_to_accelerate_launch_stops_the_run_with_its_state_saved(config):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1"]
    output_dir = Path(config.output_dir)
    launcher = subprocess.Popen(
        [*command, *arguments(config, "--num_epochs=100000")],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: (output_dir / "metrics.jsonl").exists() and len(metrics(output_dir)) > 3)
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(30)
    lock = FileLock(output_dir / ".lock", timeout=30)
    with lock:  # the training process has let go
        steps = [record["step"] for record in metrics(output_dir)]
    saved = json.loads((output_dir / "last" / "training_config.json").read_text())
    assert saved["progress"]["step"] == steps[-1]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_a_folder_in_use_is_refused(config, monkeypatch):
    output_dir = train(replace(config, num_epochs=1))
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.1)
    with FileLock(output_dir / ".lock"), pytest.raises(InputError, match="is in use by another training run"):
        train(config)


def test_a_run_that_has_begun_in_the_meantime_is_found(config, monkeypatch):
    """Both find the folder empty; the second waits for the first and then looks again."""
    output_dir = Path(config.output_dir)
    output_dir.mkdir()
    other = json.dumps({"family": "vae"})
    with FileLock(output_dir / ".lock", thread_local=False) as lock:
        check, checked = runs.Run._check, threading.Event()
        monkeypatch.setattr(runs.Run, "_check", lambda run: (check(run), checked.set()))

        def begin():
            checked.wait(60)
            (output_dir / "training_config.json").write_text(other)
            lock.release()

        thread = threading.Thread(target=begin)
        thread.start()
        with pytest.raises(InputError, match="holds a run with family vae, not dcgan"):
            train(config)
        thread.join()
    assert (output_dir / "training_config.json").read_text() == other


def test_script_says_what_is_wrong_in_one_line(config):
    known = ", ".join(FAMILIES)
    command = [sys.executable, str(SCRIPTS / "train.py"), "--family", "stylegan"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (2, f"error: Unknown --family 'stylegan'; choose among {known}.\n")
    result = subprocess.run([*command[:2], "--famly", "dcgan"], capture_output=True, text=True)
    assert result.returncode == 2 and "--famly" in result.stderr and "Traceback" not in result.stderr


def test_help_names_every_family():
    listed = ", ".join(list(FAMILIES)[:-1]) + f" or {list(FAMILIES)[-1]}"
    assert f"family: the model family: {listed}." in TrainingConfig.__doc__


# The encoder of the evaluation, in the same loop.


@pytest.fixture(params=["features", "segmenter"])
def encoder_config(request, config, monkeypatch):
    for name, family in INSTRUMENTS.items():
        recipe = resized(family.recipes["default"], {"encoder": {"block_out_channels": (4, 8)}})
        monkeypatch.setitem(INSTRUMENTS, name, replace(family, recipes={"default": recipe}))
    return replace(config, family=request.param, recipe="default", groups=None)


def test_an_interrupted_encoder_resumed_equals_an_uninterrupted_one(encoder_config, tmp_path):
    config = replace(encoder_config, num_epochs=8)
    whole = train(config)
    config = replace(config, output_dir=str(tmp_path / "halves"))
    with pytest.raises(Interrupted, match="run the same command to go on"), StopAfter(config.output_dir, 3):
        train(config)
    stopped = json.loads((tmp_path / "halves/last/training_config.json").read_text())["progress"]["step"]
    assert 3 <= stopped < metrics(whole)[-1]["step"]
    assert_same_run(whole, train(config))


def test_how_often_samples_are_drawn_does_not_change_an_encoder(encoder_config, tmp_path):
    """A look at the segmentation in the middle of training leaves no trace."""
    often = train(replace(encoder_config, sample_epochs=1))
    assert len(list((often / "samples").iterdir())) == 3
    assert_same_run(often, train(replace(encoder_config, sample_epochs=100, output_dir=str(tmp_path / "never"))))


def test_a_trained_encoder_is_loaded_as_the_judge_that_it_was_validated_as(encoder_config, splits):
    output_dir = train(encoder_config)
    best, last = (SliceEncoder.from_pretrained(output_dir / name).eval() for name in ("best", "last"))
    validations = [record["validation_loss"] for record in metrics(output_dir) if "validation_loss" in record]
    objective = INSTRUMENTS[encoder_config.family].recipes["default"].build(16, ACDC).eval()
    validation = Slices(splits["validation"], GROUPS).batch(slice(None))
    for one, expected in ((best, min(validations)), (last, validations[-1])):
        objective.encoder.load_state_dict(one.state_dict())
        with torch.no_grad():
            assert objective.validation_loss(validation).item() == pytest.approx(expected, rel=1e-5)
    assert best.config.sample_size == 16


def test_the_configuration_says_who_the_training_patients_are_and_nobody_else(encoder_config, splits):
    output_dir = train(replace(encoder_config, num_epochs=1))
    hashes = {name: Slices(split, GROUPS).identities() for name, split in splits.items()}
    for folder in (output_dir, output_dir / "best", output_dir / "last"):
        assert json.loads((folder / "training_config.json").read_text())["train_patients"] == hashes["train"]
    assert set(hashes["train"]) == set(splits["train"]["patient"])
    assert not any(shared_patients(hashes[split], hashes["train"]) for split in ("validation", "test"))


def test_a_generator_notes_its_patients_too_and_only_of_its_groups(config, splits):
    written = json.loads((train(replace(config, num_epochs=1)) / "training_config.json").read_text())
    hcm = Slices(splits["train"], ("HCM",))
    assert written["train_patients"] == hcm.identities() and set(written["train_patients"]) == set(hcm.patients)


@pytest.mark.parametrize("encoder_config", ["features"], indirect=True)
def test_the_encoders_script_trains_both_networks_and_says_where_they_are(
    encoder_config, dataset_dir, tmp_path, capsys, monkeypatch
):
    options = {"dataset": dataset_dir, "output_dir": tmp_path / "encoder", "num_epochs": 1, "seed": 3}
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["train_encoder.py", *flags])
    run_path(str(SCRIPTS / "train_encoder.py"), run_name="__main__")
    said, encoder = capsys.readouterr().out, load_encoder(tmp_path / "encoder")
    for name, label in (("features", "feature encoder"), ("segmenter", "segmenter")):
        assert f"{label}: {tmp_path / 'encoder' / name / 'best'}\n" in said
        written = json.loads((tmp_path / "encoder" / name / "training_config.json").read_text())
        assert (written["family"], written["recipe"], written["seed"]) == (name, "default", 3)
        assert written["groups"] == list(GROUPS)
        assert vars(encoder)[name].train_patients == written["train_patients"]
    with pytest.raises(InputError, match="features holds a run of one network; choose another output_dir"):
        train_encoder(tmp_path / "encoder" / "features", str(dataset_dir))


def test_an_encoder_that_does_not_fit_the_dataset_is_refused(config):
    """At 16 px the recipe's four halvings just fit; five do not."""
    family = INSTRUMENTS["segmenter"]
    recipe = resized(family.recipes["default"], {"encoder": {"block_out_channels": (4, 4, 4, 4, 4)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INSTRUMENTS, "segmenter", replace(family, recipes={"default": recipe}))
        with pytest.raises(
            InputError, match="segmenter cannot be built for this dataset: .* must be a multiple of 32"
        ):
            train(replace(config, family="segmenter", recipe="default", groups=None))
    assert not Path(config.output_dir).exists()
