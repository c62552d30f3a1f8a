import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import build_tiny

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.figures import (
    STRUCTURE_COLORS,
    draw_masks,
    image_grid,
    loss_curves,
    plot_losses,
    write_controls,
    write_grid,
    write_rows,
)


def test_grid_places_rows_and_columns():
    rows = [np.zeros((3, 4, 4)), np.full((2, 4, 4), 0.5)]
    pixels = np.asarray(image_grid(rows, scale=2, gap=1))
    assert pixels.shape == (17, 26)
    assert (pixels[:8, :8] == 0).all() and (pixels[9:, :8] == 128).all()
    assert (pixels[8] == 255).all() and (pixels[9:, 18:] == 255).all()


TRAINING = [{"step": s, "epoch": -(-s // 4), "a_loss": 1 / s, "b_loss": 2 / s} for s in range(1, 13)]
VALIDATION = [{"step": s, "epoch": s // 4, "validation_loss": 1 + abs(s - 8)} for s in (4, 8, 12)]


def test_losses_are_in_one_plot_and_the_best_epoch_is_marked():
    above, below = plot_losses(TRAINING, VALIDATION).axes
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["a", "b"]
    means = [line for line in above.lines if not line.get_label().startswith("_")]
    np.testing.assert_allclose(means[0].get_ydata(), [np.mean([1 / s for s in range(e, e + 4)]) for e in (1, 5, 9)])
    curve, marker = below.lines
    assert curve.get_xydata().tolist() == [[1, 5], [2, 1], [3, 5]]
    assert marker.get_xydata().tolist() == [[2, 1]] and marker.get_label() == "best: 1 at epoch 2"


def test_loss_curves_are_written_with_and_without_a_validation(tmp_path):
    for records in (TRAINING, TRAINING + VALIDATION):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
        with Image.open(tmp_path / "losses.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_no_losses_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="metrics.jsonl holds no training loss"):
        loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()


def test_comparison_grid_has_a_real_row_above_the_generated_ones(tmp_path):
    real, generated = np.zeros((12, 8, 8)), np.ones((25, 8, 8)) * np.linspace(0.2, 1, 25)[:, None, None]
    write_grid(real, generated, tmp_path / "grid.png", columns=10)
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)[:, 20:]  # beside the labels
    assert pixels.shape == (4 * 128 + 3 * 2, 10 * 128 + 9 * 2)
    assert (pixels[:128, :128] == 0).all() and (pixels[130:258, :128] == round(0.2 * 255)).all()
    assert (pixels[-128:, 5 * 130 :] == 255).all()  # the last row holds what is left


def test_rows_are_labelled_and_in_order(tmp_path):
    write_rows({"real": [np.zeros((2, 64, 64))], "vae": [np.full((3, 64, 64), 0.5)] * 2}, tmp_path / "rows.png")
    with Image.open(tmp_path / "rows.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 128 + 2 * 2, 20 + 3 * 128 + 2 * 2)
    labels, images = pixels[:, :20], pixels[:, 20:]
    assert (images[:128, :128] == 0).all() and (images[:128, 260:] == 255).all() and (images[-128:, :128] == 128).all()
    assert (labels[:128] < 128).any() and (labels[130:] < 128).any()  # something is written beside each


@pytest.mark.parametrize(("family", "rows"), [("infogan", 3), ("acgan", 5)])
def test_controls_have_a_row_each(family, rows, tmp_path):
    assert write_controls(build_tiny(family).pipeline(), tmp_path / "controls.png", num_images=4)
    with Image.open(tmp_path / "controls.png") as picture:
        assert picture.height == rows * 128 + (rows - 1) * 2


def test_without_controls_there_is_no_figure(tmp_path):
    assert not write_controls(build_tiny("dcgan").pipeline(), tmp_path / "controls.png")
    assert not list(tmp_path.iterdir())


def test_masks_are_outlined_in_the_colours_of_their_structures():
    images = np.full((1, 6, 12), 0.5)
    masks = np.zeros((1, 6, 12), np.uint8)
    for label in (1, 2, 3):
        masks[0, 1:5, 4 * label - 4 : 4 * label - 1] = label
    drawn = draw_masks(images, masks, scale=4)
    assert drawn.shape == (1, 24, 48, 3) and (drawn[0, :4] == 0.5).all()
    for label, color in enumerate(STRUCTURE_COLORS.values(), 1):
        left, middle = 16 * label - 16, 16 * label - 10
        np.testing.assert_allclose(drawn[0, 4:6, middle], [np.array(color) / 255] * 2)  # two of four pixels
        inside = drawn[0, 12, middle]
        assert (inside != 0.5).any() and np.abs(inside - 0.5).max() < np.abs(np.array(color) / 255 - 0.5).max()
        assert (drawn[0, 12, left + 12 : left + 16] == 0.5).all()
    grid = image_grid([drawn, drawn], scale=1, gap=2)
    assert grid.mode == "RGB" and grid.size == (48, 50)


NOTEBOOKS = "module://matplotlib_inline.backend_inline"


@pytest.mark.parametrize(("backend", "left"), [(NOTEBOOKS, ("agg", "inline")), ("none", ("agg",)), ("svg", ("svg",))])
def test_figures_need_no_backend_and_leave_the_one_that_is_named(backend, left, tmp_path):
    """A notebook hands the name of its own to the commands that it runs, whether they have it or not."""
    code = f"""
import numpy as np
from hcm_hf.utils.figures import new_figure
from hcm_hf.evaluation.figures import write_spectra
new_figure(3, 2).savefig({str(tmp_path / "figure.png")!r})
write_spectra({{"real": np.ones((2, 9))}}, 2.0, {str(tmp_path / "spectra.png")!r})
import matplotlib
print(matplotlib.get_backend())
"""
    environment = os.environ | {"MPLBACKEND": backend}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] in left and len(list(tmp_path.iterdir())) == 2
