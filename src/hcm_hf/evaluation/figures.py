"""Pictures of an evaluation report: closest pairs, wall thickness, power spectra, precision and recall.

Rows are named as in the report. Their colours are those of `COLOURS`, by how the name begins: "generated", "real",
"mean image"; a row of any other name is black. Rows of one colour differ in their dashes.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from hcm_hf.metrics.anatomy import THICK
from hcm_hf.utils.figures import new_figure
from hcm_hf.utils.files import write_bytes
from hcm_hf.utils.pictures import image_grid, save_png


if TYPE_CHECKING:
    from matplotlib.figure import Figure


LABELS = {  # of a report's rows
    "generated": "generated",
    "real": "real",
    "true_masks": "true masks of the real",
    "mean_image": "mean image",
}
COLOURS = {"generated": "#d55e00", "real": "#0072b2", "mean image": "#808080"}  # the colour-blind can distinguish them

_BANDS = 3  # of the contact sheet
_TILE = 64  # pixels: side of an image on the contact sheet, so that ten of them are 700 pixels wide
_MARGIN, _GAP, _SPACE, _FONT = 16, 2, 8, 12  # pixels: for labels, between images, between bands, of letters
_BIN = 2.0  # mm
_WAVELENGTHS = (32, 16, 8, 6, 5, 4, 3, 2)  # mm


def write_closest_pairs(
    generated: np.ndarray,
    train: np.ndarray,
    correlation: np.ndarray,
    index: np.ndarray,
    figure_file: str | Path,
    columns: int = 10,
) -> None:
    """Write the generated images that are most like a training image, each above it, in up to three bands.

    The best pair stands first, and every pair under its correlation coefficient.

    Args:
        generated: images, (N, H, W) in [0, 1], N at least 1.
        train: training images, (L, H, W) in [0, 1].
        correlation: of each generated image with the most alike training image, (N,), as `best_match` returns it.
        index: which one that is, (N,).
        figure_file: the PNG file to write; images above 64 pixels are means over blocks of pixels.
        columns: pairs in a band, at most.
    """
    best = np.argsort(-correlation, kind="stable")[: _BANDS * columns]
    generated, train = _shrunk(generated[best]), _shrunk(train[index[best]])
    scale = -(-_TILE // max(generated.shape[1:]))
    height, width = (side * scale + _GAP for side in generated.shape[1:])  # of a tile with its gap
    pitch = _MARGIN + 2 * height + _SPACE  # from band to band
    bands = [slice(start, start + columns) for start in range(0, len(best), columns)]
    canvas = Image.new("L", (_MARGIN + min(columns, len(best)) * width, len(bands) * pitch - _SPACE), 255)
    for top, places in zip(range(0, canvas.height, pitch), bands, strict=True):
        canvas.paste(image_grid((generated[places], train[places]), scale, _GAP), (_MARGIN, top + _MARGIN))
        for column, value in enumerate(correlation[best[places]]):
            canvas.paste(_text(f"{value:.2f}", width - _GAP), (_MARGIN + column * width, top))
        for row, name in enumerate(("generated", "training")):
            canvas.paste(_text(name, height - _GAP).rotate(90, expand=True), (0, top + _MARGIN + row * height))
    save_png(canvas, figure_file)


def write_thickness_histograms(
    thickness: Mapping[str, Mapping[str, np.ndarray]], figure_file: str | Path, threshold: float = THICK
) -> None:
    """Write the histograms of wall thickness, a panel for each phase. The threshold is an edge of the 2 mm bins.

    Args:
        thickness: by phase ("ED", "ES") and by row, (N,), mm; not a number where nothing could be measured, which is
            left out. The arrays may be empty.
        figure_file: the PNG file to write.
        threshold: mm, marked by a dashed line.
    """
    measured = {
        phase: {label: values[~np.isnan(values)] for label, values in rows.items()}
        for phase, rows in thickness.items()
    }
    top = max(
        [2 * threshold, *(values.max() for rows in measured.values() for values in rows.values() if len(values))]
    )
    edges = threshold + _BIN * np.arange(-np.ceil(threshold / _BIN), np.ceil((top - threshold) / _BIN) + 1)
    figure = new_figure(7, 4)
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    styles = _styles(dict.fromkeys(label for rows in measured.values() for label in rows))
    handles = {}
    for axes, (phase, rows) in zip(panels, measured.items(), strict=True):
        for label, values in rows.items():
            percent = np.histogram(values, edges)[0] * (100 / max(1, len(values)))
            if label.startswith("generated"):
                axes.stairs(percent, edges, fill=True, alpha=0.25, color=styles[label]["color"])
            handles[label] = axes.stairs(percent, edges, label=label, linewidth=1.5, **styles[label])
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f" {threshold:g} mm", (threshold, 0.98), xycoords=("data", "axes fraction"), va="top", fontsize=9
        )
        axes.set(title=phase, xlabel="greatest wall thickness (mm)", xlim=(0, edges[-1]))
    for label, handle in handles.items():
        counts = ", ".join(f"{len(rows[label])} {phase}" for phase, rows in measured.items() if label in rows)
        handle.set_label(f"{label} (n = {counts})")
    figure.legend(handles=list(handles.values()), loc="outside lower center", frameon=False, fontsize=9)
    panels[0].set_ylabel(f"slices per {_BIN:g} mm (%)")
    _save(figure, figure_file)


def write_spectra(spectra: Mapping[str, np.ndarray], pixel_spacing: float, figure_file: str | Path) -> None:
    """Write the mean power spectrum of each row, and where the middle 80 % of the first real row's images lie.

    Frequency 0, the mean brightness, is left out.

    Args:
        spectra: by row, (N, S // 2 + 1) as `log_radial_spectra` returns them for images of an even side S, S the same
            for all; they may be empty.
        pixel_spacing: of the images, mm.
        figure_file: the PNG file to write.
    """
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    reference = next((label for label in spectra if label.startswith("real")), None)
    for label, style in _styles(spectra).items():
        rows = spectra[label][np.isfinite(spectra[label]).all(1), 1:]
        frequencies = np.arange(1, rows.shape[1] + 1) / (2 * rows.shape[1] * pixel_spacing)
        mean = rows.mean(0) if len(rows) else np.full_like(frequencies, np.nan)
        axes.plot(frequencies, mean, label=f"{label} (n = {len(rows)})", **style)
        if label == reference and len(rows):
            low, high = np.percentile(rows, (10, 90), axis=0)
            axes.fill_between(frequencies, low, high, color=style["color"], alpha=0.15, label="their middle 80 %")
    nyquist = 1 / (2 * pixel_spacing)
    axes.set(xlabel="frequency (cycles per mm)", ylabel="power (natural logarithm)", xlim=(0, nyquist))
    above = axes.secondary_xaxis("top")
    wavelengths = [length for length in _WAVELENGTHS if 1 / length <= nyquist]
    above.set_xticks([1 / length for length in wavelengths], list(map(str, wavelengths)))
    above.set_xlabel("wavelength (mm)")
    axes.legend(frameon=False)
    _save(figure, figure_file)


def write_precision_recall(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], figure_file: str | Path) -> None:
    """Write curves of precision over recall; the nearer to the upper right corner, the better.

    Args:
        curves: by row, precision and recall as `precision_recall_curve` returns them, in [0, 1]; they may be empty.
        figure_file: the PNG file to write.
    """
    figure = new_figure(5, 5.4)
    axes = figure.subplots()
    for label, style in _styles(curves).items():
        precision, recall = curves[label]
        axes.plot(recall, precision, label=label, **style)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _save(figure, figure_file)


def _save(figure: "Figure", figure_file: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    write_bytes(figure_file, buffer.getvalue())


def _styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    styles: dict[str, dict[str, Any]] = {}
    used: Counter[str] = Counter()
    for label in labels:
        colour = next((colour for name, colour in COLOURS.items() if label.startswith(name)), "black")
        styles[label] = {"color": colour, "linestyle": ("-", "--", ":", "-.")[used[colour] % 4]}
        used[colour] += 1
    return styles


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Means over blocks of pixels, so that no side is longer than a tile and a half."""
    count, height, width = images.shape
    block = max(1, round(max(height, width) / _TILE))
    rows, columns = height // block, width // block
    whole = images[:, : rows * block, : columns * block]
    return whole.reshape(count, rows, block, columns, block).mean((2, 4))


def _text(text: str, width: int) -> Image.Image:
    label = Image.new("L", (width, _MARGIN), 255)
    ImageDraw.Draw(label).text((width / 2, _MARGIN / 2), text, fill=0, anchor="mm", font_size=_FONT)
    return label
