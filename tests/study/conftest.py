import pytest
from tiny import tiny_families, tiny_instruments

from hcm_hf.data import phantom
from hcm_hf.metrics import bootstrap
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS


@pytest.fixture(scope="module")
def shrunk():
    """Tiny families and instruments, and few resamples."""
    with pytest.MonkeyPatch.context() as patch:
        for known, tiny in ((FAMILIES, tiny_families()), (INSTRUMENTS, tiny_instruments())):
            for name, family in tiny.items():
                patch.setitem(known, name, family)
        patch.setattr(bootstrap, "RESAMPLES", 30)
        yield


@pytest.fixture(scope="session")
def acdc(tmp_path_factory):
    """Seven patients each of HCM and NOR; three and one of them in the testing half."""
    folder = tmp_path_factory.mktemp("reproduction") / "acdc"
    phantom.write_cohort(folder, num_patients_per_group=7, groups=("HCM", "NOR"), num_proc=1)
    (folder / "testing").mkdir()
    for number in (1, 2, 3, 8):
        (folder / "training" / f"patient{number:03}").rename(folder / "testing" / f"patient{number:03}")
    return folder
