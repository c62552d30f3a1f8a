"""ACDC itself, where it is: 100 patients, who take a minute."""

import hashlib
import os
from pathlib import Path

import pytest

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.dataset import build_dataset


ACDC = Path(os.environ.get("HCM_ACDC", Path(__file__).parents[3] / "shared" / "acdc"))


@pytest.mark.skipif(not ACDC.is_dir(), reason="the real ACDC is not here; name it in HCM_ACDC")
def test_real_acdc_has_its_known_counts_and_a_duplicate():
    splits, report = build_dataset(ACDC)
    rows = (
        [row for row in report.slices if row["split"] != "test"]
        if len(find_cohort(ACDC).patients) > 100
        else report.slices
    )
    assert sum(row["slices"] for row in rows) == 1902 and sum(row["patients"] for row in rows) == 100
    assert sum(row["slices"] for row in rows if row["group"] == "HCM") == 378
    assert "patient074 and patient076" in "\n".join(report.notes)
    assert report.source == "acdc" and splits["train"].info.license == "cc-by-nc-sa-4.0"
    digests = [{hashlib.sha256(image.tobytes()).digest() for image in split["image"]} for split in splits.values()]
    assert not digests[0] & digests[1] and not digests[0] & digests[2] and not digests[1] & digests[2]
