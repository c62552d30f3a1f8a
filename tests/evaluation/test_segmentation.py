import pickle

import numpy as np
import pytest

from hcm_hf.evaluation import segmentation
from hcm_hf.evaluation.segmentation import find_segmenter
from hcm_hf.utils.errors import InputError


def test_the_published_segmenter_is_found_and_can_go_to_another_process():
    segmenter = find_segmenter()
    assert segmenter is not None
    masks = pickle.loads(pickle.dumps(segmenter))(np.zeros((2, 64, 64), np.uint8))
    assert masks.shape == (2, 64, 64) and masks.dtype == np.uint8 and masks.max() <= 3


def test_without_one_there_is_none_and_a_wrong_folder_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="segmenter .*nowhere does not exist; name a folder"):
        find_segmenter(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no encoder"):
        find_segmenter(tmp_path)
    monkeypatch.setattr(segmentation, "PUBLISHED", "hcm-nowhere")
    assert find_segmenter() is None
