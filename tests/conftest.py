import json
import os
import signal
import tempfile

from hub_server import HubServer, environment


# The clients of the Hub read their environment when they are imported: the tests' own Hub goes before everything else.
_HOME = tempfile.TemporaryDirectory(prefix="hcm_hf-tests-")
_HUB = HubServer()
_HUB.start()
for _name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(_name, None)
os.environ |= environment(_HUB.url, _HOME.name, token="ada-writes") | {"GRADIO_ANALYTICS_ENABLED": "False"}

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from shared import shared_folder  # noqa: E402
from tiny import build_tiny, notes  # noqa: E402

from hcm_hf.data import phantom  # noqa: E402
from hcm_hf.data.dataset import prepare_dataset  # noqa: E402
from hcm_hf.evaluation import extractors  # noqa: E402
from hcm_hf.metrics import bootstrap  # noqa: E402


_EXTRA = extractors._PACKAGES


@pytest.fixture(autouse=True, scope="session")
def quiet_and_single_threaded(tmp_path_factory):
    # In the background of a shell, or under nohup, these are ignored; tests send them.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()


@pytest.fixture(autouse=True, scope="session")
def without_power_cuts():
    """No test waits until the disk has what it wrote, some milliseconds a file; `test_files.py` sees what would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def without_imagenet():
    """Reports of most tests leave out the numbers on ImageNet features, which take 50 ms an image."""
    extractors._PACKAGES = ("of_no_wheel",)


@pytest.fixture
def with_imagenet(monkeypatch):
    """The extra `realism`, as users have it."""
    monkeypatch.setattr(extractors, "_PACKAGES", _EXTRA)
    extractors.load_imagenet.cache_clear()


@pytest.fixture(scope="module")
def few_resamples():
    """Few resamples in each interval; what many of them give is tested with the bootstrap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 50)
        yield


@pytest.fixture
def hub(monkeypatch):
    """An empty Hub; ada is logged in, and has a second token that may only read. The client tries again at once."""
    _HUB.reset()
    for name, token, can_write in (
        ("ada", "ada-writes", True),
        ("ada", "ada-reads", False),
        ("bob", "bob-writes", True),
    ):
        _HUB.add_account(name, token, can_write)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return _HUB


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A synthetic cohort on disk: four patients each of HCM and NOR, one with its cine."""
    folder = tmp_path_factory.mktemp("cohort") / "acdc"
    phantom.write_cohort(folder, num_patients_per_group=4, groups=("HCM", "NOR"), num_proc=1)
    return folder


@pytest.fixture(scope="session")
def dataset_dir(cohort, tmp_path_factory):
    """The cohort as a dataset of 16-pixel slices, on disk."""
    folder = tmp_path_factory.mktemp("dataset") / "cohort-16"
    prepare_dataset(cohort, folder, resolution=16)
    return folder


@pytest.fixture(scope="session")
def splits(dataset_dir):
    """The same dataset, opened."""
    return datasets.load_from_disk(dataset_dir)


@pytest.fixture(scope="session")
def dataset_of_twenty(tmp_path_factory, worker_id):
    """Ten synthetic patients each of HCM and NOR as a dataset of 32-pixel slices."""

    def make(folder):
        phantom.write_cohort(folder / "acdc", num_patients_per_group=10, groups=("HCM", "NOR"), num_proc=1)
        prepare_dataset(folder / "acdc", folder / "dataset", resolution=32)

    return shared_folder(tmp_path_factory, worker_id, "twenty", make) / "dataset"


@pytest.fixture(scope="session")
def paired_model(tmp_path_factory):
    """A saved model that makes slices with their segmentations and has met all groups but RV, some more often."""
    folder = tmp_path_factory.mktemp("models") / "paired"
    objective = build_tiny("ddpm", recipe="tuned")
    objective.label_counts[:24] = torch.arange(24) % 5 + 1
    for parameter in objective.parameters():  # so that labels matter to an untrained network
        parameter.data *= 1.5
    objective.pipeline().save_pretrained(folder)
    written = notes(
        family="ddpm", recipe="tuned", dataset_source="acdc", dataset_license="cc-by-nc-sa-4.0", dataset="acdc-16"
    )
    (folder / "training_config.json").write_text(json.dumps(written))
    return folder
