from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from hcm_hf.evaluation import figures as report_figures
from hcm_hf.evaluation.figures import (
    COLOURS,
    write_closest_pairs,
    write_precision_recall,
    write_spectra,
    write_thickness_histograms,
)
from hcm_hf.metrics.distribution import PrecisionRecallCurve
from hcm_hf.metrics.memorization import best_match
from hcm_hf.metrics.spectrum import log_radial_spectra


def noise(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (n, size, size))


def pixels(path, mode: str = "RGB") -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert(mode)).astype(int)


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that were written."""
    figures, save = [], report_figures._save

    def keep(figure, figure_file):
        figures.append(figure)
        save(figure, figure_file)
        assert Path(figure_file).stat().st_size < 60_000

    monkeypatch.setattr(report_figures, "_save", keep)
    return figures


def legend(of) -> list[str]:
    return [text.get_text() for text in of.get_texts()]


# Closest pairs: a margin of 16 pixels, tiles of 64 with a gap of 2, 8 between bands


def tiles(path, band: int, column: int, side: int = 64) -> list[np.ndarray]:
    """The generated image at a place of the sheet and the training slice below it, in [0, 1]."""
    sheet = pixels(path, "L") / 255
    left = 16 + column * (side + 2)
    tops = [16 + band * (16 + 2 * (side + 2) + 8) + row * (side + 2) for row in (0, 1)]
    return [sheet[top : top + side, left : left + side] for top in tops]


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


def test_the_sheet_shows_the_best_pairs_in_order(tmp_path):
    train, generated = noise(20), noise(50, seed=1)
    for place, (source, weight) in {31: (7, 1.0), 4: (12, 0.9), 49: (3, 0.8), 0: (9, 0.7)}.items():
        generated[place] = weight * train[source] + (1 - weight) * generated[place]
    write_closest_pairs(generated, train, *best_match(train, generated), tmp_path / "pairs.png", columns=3)
    for i, (place, source) in enumerate([(31, 7), (4, 12), (49, 3), (0, 9)]):
        above, below = tiles(tmp_path / "pairs.png", *divmod(i, 3))
        np.testing.assert_allclose(above, enlarged(generated[place]), atol=0.004)
        np.testing.assert_allclose(below, enlarged(train[source]), atol=0.004)
    copy, original = tiles(tmp_path / "pairs.png", 0, 0)
    assert (copy == original).all()


def test_the_sheet_has_three_bands_at_most_and_labels(tmp_path):
    train = noise(5)
    for count, size in ((50, (16 + 4 * 66, 3 * 156 - 8)), (6, (16 + 4 * 66, 2 * 156 - 8)), (2, (16 + 2 * 66, 148))):
        generated = noise(count, seed=1)
        write_closest_pairs(generated, train, *best_match(train, generated), tmp_path / "pairs.png", columns=4)
        sheet = pixels(tmp_path / "pairs.png", "L")
        assert sheet.shape[::-1] == size
        assert (sheet[:16, 16:82] < 128).any()  # a correlation
        assert (sheet[16:80, :16] < 128).any() and (sheet[82:146, :16] < 128).any()  # what the rows are
    generated = noise(6, seed=1)
    write_closest_pairs(generated, train, *best_match(train, generated), tmp_path / "pairs.png", columns=4)
    assert (pixels(tmp_path / "pairs.png", "L")[156:, 16 + 2 * 66 :] == 255).all()  # nothing beside the last pair


@pytest.mark.parametrize("size, side", [(16, 64), (48, 96), (64, 64), (128, 64), (130, 65)])
def test_the_sheet_is_as_large_for_images_of_any_size(size, side, tmp_path):
    train = noise(3, size)
    best, index = best_match(train, train)
    write_closest_pairs(train, train, best, index, tmp_path / "pairs.png")
    last = np.argsort(-best, kind="stable")[2]  # 1 but for rounding
    assert pixels(tmp_path / "pairs.png", "L").shape == (16 + 2 * (side + 2), 16 + 3 * (side + 2))
    above, below = tiles(tmp_path / "pairs.png", 0, 2, side)
    assert above.mean() == pytest.approx(train[last].mean(), abs=0.02)
    assert (above == below).all()


def test_a_full_sheet_is_small(tmp_path):
    y, x, radius = np.random.default_rng(0).uniform((20, 20, 8), (44, 44, 20), (40, 3)).T[:, :, None, None]
    grid = np.arange(64)
    images = 0.2 + 0.5 / (1 + np.exp(np.hypot(grid[:, None] - y, grid - x) - radius)) + 0.1 * noise(40, 64)
    write_closest_pairs(images, images, *best_match(images, images), tmp_path / "pairs.png")
    assert pixels(tmp_path / "pairs.png").shape == (460, 676, 3)
    assert (tmp_path / "pairs.png").stat().st_size < 200_000


# Diagrams


ROWS = ("generated", "real held-out slices, segmented alike", "real held-out slices, true masks")


def test_thickness_is_in_percent_of_the_measured_slices_of_each_phase(drawn, tmp_path):
    thickness = {
        "ED": dict(
            zip(ROWS, (np.array([14.9, 15, 16.9, np.nan, 17]), np.array([9.0]), np.array([3.0, 90])), strict=True)
        ),
        "ES": dict(zip(ROWS, (np.array([20.0]), np.array([21.0, 22.0]), np.array([np.nan])), strict=True)),
    }
    write_thickness_histograms(thickness, tmp_path / "thickness.png")
    assert pixels(tmp_path / "thickness.png").shape == (400, 700, 3)
    first, second = drawn[0].axes
    assert (first.get_title(), second.get_title()) == ("ED", "ES")
    counts = "4 ED, 1 ES", "1 ED, 2 ES", "2 ED, 0 ES"
    assert legend(drawn[0].legends[0]) == [f"{name} (n = {n})" for name, n in zip(ROWS, counts, strict=True)]
    generated, _, true = (patch for patch in first.patches if patch.get_label())
    values, edges, _ = generated.get_data()
    assert (np.diff(edges) == 2).all() and 15 in edges and edges[0] <= 0 and edges[-1] >= 90
    assert {edge: value for edge, value in zip(edges[:-1], values, strict=True) if value} == {13: 25, 15: 50, 17: 25}
    assert true.get_data().values.sum() == 100
    for axes in (first, second):
        assert list(axes.lines[0].get_xdata()) == [15, 15] and axes.texts[0].get_text() == " 15 mm"
        colours = [to_hex(patch.get_edgecolor()) for patch in axes.patches if patch.get_label()]
        assert colours == [COLOURS["generated"], COLOURS["real"], COLOURS["real"]]


@pytest.mark.parametrize("nothing", [np.array([]), np.full(3, np.nan)])
def test_thickness_that_is_nowhere_measured_is_drawn_too(nothing, drawn, tmp_path):
    for rows in ({"generated": nothing, "real": np.array([15.0])}, {"generated": nothing}):
        write_thickness_histograms({"ED": rows, "ES": {"real": np.array([15.0])}}, tmp_path / "thickness.png")
        assert pixels(tmp_path / "thickness.png").shape == (400, 700, 3)
        assert legend(drawn[-1].legends[0])[0] == "generated (n = 0 ED)"


def test_spectra_stand_at_their_wavelengths_with_the_band_of_the_real_row(drawn, tmp_path):
    wave = 0.5 + 0.4 * np.cos(2 * np.pi * 8 * np.arange(32) / 32) * np.ones((20, 32, 1))  # 4 pixels long
    real = log_radial_spectra(noise(20))
    spectra = {"generated": log_radial_spectra(wave), "real held-out slices": real, "mean image": real[:1]}
    write_spectra(spectra, 2.0, tmp_path / "spectra.png")
    assert pixels(tmp_path / "spectra.png").shape == (420, 700, 3)
    axes = drawn[0].axes[0]
    assert [line.get_color() for line in axes.lines] == list(COLOURS.values())
    generated, heldout, _ = axes.lines
    assert generated.get_xdata()[generated.get_ydata().argmax()] == 1 / 8  # 8 mm
    assert generated.get_xdata()[-1] == 1 / 4  # the Nyquist frequency
    np.testing.assert_allclose(heldout.get_ydata(), real.mean(0)[1:])
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().ymax == pytest.approx(np.percentile(real, 90, axis=0)[1:].max())
    assert axes.child_axes[0].get_xlabel() == "wavelength (mm)"
    assert [tick.get_text() for tick in axes.child_axes[0].get_xticklabels()] == ["32", "16", "8", "6", "5", "4"]


def test_precision_is_drawn_over_recall(drawn, tmp_path):
    recall = np.linspace(0, 1, 50)
    curves = {"generated": (recall**2, recall), "real training slices": PrecisionRecallCurve(1 - recall, recall)}
    curves |= {"real other patients": curves["generated"], "other": curves["generated"]}
    write_precision_recall(curves, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (540, 500, 3)
    generated, real, other_real, other = drawn[0].axes[0].lines
    assert (generated.get_xdata() == recall).all() and (generated.get_ydata() == recall**2).all()
    assert (real.get_xdata() == recall).all() and (real.get_ydata() == 1 - recall).all()
    assert real.get_color() == other_real.get_color() == COLOURS["real"]
    assert real.get_linestyle() != other_real.get_linestyle()
    assert other.get_color() == "black"
    assert drawn[0].axes[0].get_xlabel() == "recall"
    assert legend(drawn[0].legends[0]) == list(curves)


def test_rows_without_numbers_are_no_errors(drawn, tmp_path):
    real = log_radial_spectra(noise(3))
    for rows in (real[:0], real * np.nan):
        write_spectra({"generated": real, "real held-out slices": rows}, 2.0, tmp_path / "spectra.png")
        assert legend(drawn[-1].axes[0].get_legend()) == ["generated (n = 3)", "real held-out slices (n = 0)"]
    for nothing in (np.array([]), np.full(5, np.nan)):
        write_precision_recall({"generated": (nothing, nothing)}, tmp_path / "curves.png")
        assert pixels(tmp_path / "curves.png").any()
