import json

import pytest
from tiny import build_tiny, shrink

from hcm_hf.evaluation.scoring import score
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.encoder import train_encoder
from hcm_hf.training.loop import train


@pytest.fixture(scope="session")
def run(dataset_dir, tmp_path_factory):
    """A trained run of a family, each trained once."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def trained(family):
        if family not in runs:
            config = TrainingConfig(family, dataset=str(dataset_dir), output_dir=str(folder / family), num_epochs=1)
            with pytest.MonkeyPatch.context() as patch:
                shrink(patch)
                runs[family] = train(config)
        return runs[family]

    return trained


@pytest.fixture(scope="session")
def report(run, dataset_dir, tmp_path_factory):
    """A report on the DCGAN, with an encoder."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        encoder = train_encoder(folder / "judge", str(dataset_dir), num_epochs=1)
    score(folder / "out", model=run("dcgan"), dataset=dataset_dir, encoder=encoder, num_images=60)
    return folder / "out"


@pytest.fixture
def fresh(tmp_path):
    """Where nothing is cached."""
    return {"cache_dir": tmp_path / "cache"}


@pytest.fixture
def paired_run(run, tmp_path):
    """A model that makes masks, untrained, in the run of a student whose teacher lies on this machine."""
    folder = tmp_path / "student"
    pipeline = build_tiny("ddpm", recipe="tuned").pipeline()
    pipeline.register_to_config(num_inference_steps=3)
    pipeline.save_pretrained(folder / "best")
    written = json.loads((run("ddpm") / "training_config.json").read_text())
    written |= {"recipe": "distilled", "teacher": str(tmp_path / "tuned" / "best"), "teacher_hash": "0123456789abcdef"}
    (folder / "training_config.json").write_text(json.dumps(written))
    return folder
