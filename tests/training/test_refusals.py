"""What a training refuses, and leaves as it was."""

import json
import resource
import sys
import threading
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest
import torch
from filelock import FileLock
from runs import tensors

from hcm_hf.training import run as runs
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError


SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--family", "stylegan"], f"error: Unknown --family 'stylegan'; choose among {', '.join(FAMILIES)}.\n"),
        (["--famly", "dcgan"], "--famly"),
    ],
)
def test_script_says_what_is_wrong_in_one_line(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    with pytest.raises(SystemExit) as end:
        run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in said
    assert said == message if message.endswith("\n") else message in said


def test_help_names_every_family():
    listed = ", ".join(list(FAMILIES)[:-1]) + f" or {list(FAMILIES)[-1]}"
    assert f"family: the model family: {listed}." in TrainingConfig.__doc__
