import datasets
import pytest
import torch

from hcm_hf.data import phantom
from hcm_hf.data.dataset import build_dataset


@pytest.fixture(autouse=True, scope="session")
def quiet_and_single_threaded(tmp_path_factory):
    torch.set_num_threads(1)
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A synthetic cohort on disk: four patients each of HCM and NOR, one with its cine."""
    folder = tmp_path_factory.mktemp("cohort") / "acdc"
    phantom.write_cohort(folder, num_patients_per_group=4, groups=("HCM", "NOR"))
    return folder


@pytest.fixture(scope="session")
def splits(cohort):
    """The cohort as a dataset of 16-pixel slices."""
    return build_dataset(cohort, resolution=16)[0]


@pytest.fixture(scope="session")
def dataset_dir(splits, tmp_path_factory):
    """The same dataset on disk."""
    folder = tmp_path_factory.mktemp("dataset") / "cohort-16"
    splits.save_to_disk(folder)
    return folder
