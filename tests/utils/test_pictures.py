import numpy as np
from PIL import Image

from hcm_hf.utils.pictures import STRUCTURE_COLORS, draw_masks, image_grid, write_captions, write_grid, write_rows


def test_grid_places_rows_and_columns():
    rows = [np.zeros((3, 4, 4)), np.full((2, 4, 4), 0.5)]
    pixels = np.asarray(image_grid(rows, scale=2, gap=1))
    assert pixels.shape == (17, 26)
    assert (pixels[:8, :8] == 0).all() and (pixels[9:, :8] == 128).all()
    assert (pixels[8] == 255).all() and (pixels[9:, 18:] == 255).all()


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


def test_captions_stand_in_the_lower_left_corner():
    images = np.full((2, 128, 128, 3), 0.5)
    written = write_captions(images, ["16 mm", ""])
    assert written.shape == images.shape and (written[1] == written[1, 0, 0]).all()
    changed = np.argwhere((written[0] != written[1]).any(-1))
    assert len(changed) and changed[:, 0].min() > 100 and changed[:, 1].max() < 64
    assert written.max() > 0.9 and written.min() < 0.1  # white, outlined in black
