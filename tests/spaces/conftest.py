"""Tiny models that are trained here, and the generators' Space that serves them."""

import pytest
from shared import shared_folder
from space import NAMES, PAIRED, PAIRED_GAN, opened_space
from tiny import tiny_families

from hcm_hf.evaluation.scoring import score
from hcm_hf.metrics import bootstrap
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES


@pytest.fixture(scope="module")
def app():
    with opened_space() as names:
        yield names


@pytest.fixture(scope="session")
def runs(dataset_dir, tmp_path_factory, worker_id):
    """A run of each family, one of each recipe that makes masks, and a report on the DCGAN."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            for name, tiny in tiny_families().items():
                patch.setitem(FAMILIES, name, tiny)
            others = {PAIRED: ("ddpm", "tuned"), PAIRED_GAN: ("acgan", "paired")}
            for name in NAMES:
                family, recipe = others.get(name, (name, "paper"))
                train(TrainingConfig(family, recipe, str(dataset_dir), str(folder / "runs" / name), num_epochs=1))
            patch.setattr(bootstrap, "RESAMPLES", 50)
            score(folder / "reports" / "dcgan", model=folder / "runs" / "dcgan", dataset=dataset_dir, num_images=20)

    return shared_folder(tmp_path_factory, worker_id, "runs-of-all-families", make) / "runs"


@pytest.fixture(scope="module")
def url(app, runs):
    """Where the page is served."""
    generators, problems = app["find_generators"](runs, runs.parent / "reports")
    assert list(generators) == list(NAMES) and problems == []
    demo = app["build_demo"](generators)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, i18n=app["t"], css=app["CSS"], show_error=True)
    yield url
    demo.close()
