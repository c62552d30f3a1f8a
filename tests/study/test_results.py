import pytest
from PIL import Image
from tiny import build_tiny

from hcm_hf.study.results import write_controls


@pytest.mark.parametrize(("family", "rows"), [("infogan", 3), ("acgan", 5)])
def test_controls_have_a_row_each(family, rows, tmp_path):
    assert write_controls(build_tiny(family).pipeline(), tmp_path / "controls.png", num_images=4)
    with Image.open(tmp_path / "controls.png") as picture:
        assert picture.height == rows * 128 + (rows - 1) * 2


def test_without_controls_there_is_no_figure(tmp_path):
    assert not write_controls(build_tiny("dcgan").pipeline(), tmp_path / "controls.png")
    assert not list(tmp_path.iterdir())
