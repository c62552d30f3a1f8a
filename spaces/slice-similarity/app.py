"""The metric in the browser: two sets of images, a protocol, three numbers."""

from pathlib import Path

from hcm_hf.hub.serving import SLOW, Page, hide_folders  # isort: split


import evaluate
import gradio as gr
import numpy as np
from PIL import Image

from hcm_hf.utils.errors import InputError


KEEP_SECONDS = 3600  # how long files are kept
MOST_IMAGES = 200  # of each set
MOST_PIXELS = 2**24  # of each set: 200 images of 289 pixels a side
MOST_WORK = 2**30  # pairs times pixels
UPLOAD_BYTES = 2**25
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
METRIC = evaluate.load(str(Path(__file__).parent / "slice-similarity.py"))


def read(files: list[str] | None, name: str) -> np.ndarray:
    """Images of one size as floats (N, H, W) in [0, 1]; none is decoded before all are known to be small enough.

    Raises:
        InputError: if there are none, too many, images of several sizes, or what is no image in 8 bit.
    """
    if not files:
        raise InputError(f"Add images to {name}.")
    if len(files) > MOST_IMAGES:
        raise InputError(f"{name} holds {len(files)} images; {MOST_IMAGES} at most.")
    sizes = {_size(file, name) for file in files}
    if len(sizes) > 1:
        raise InputError(f"The images of {name} differ in size; give images of one size.")
    ((width, height),) = sizes
    if len(files) * width * height > MOST_PIXELS:
        raise InputError(
            f"{name} holds {len(files)} images of {width} x {height} pixels, more than {MOST_PIXELS} pixels in all; "
            "give fewer or smaller ones."
        )
    try:
        images = [np.asarray(Image.open(file, formats=FORMATS).convert("L"), np.float32) for file in files]
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{name}: an image is damaged.") from error
    return np.stack(images) / 255


def _size(file: str, name: str) -> tuple[int, int]:
    """Width and height as the file's head says."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            size, mode = image.size, image.mode
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: an image has more than {MOST_PIXELS} pixels; give a smaller one.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{name}: a file is no image in one of {', '.join(FORMATS)}.") from error
    if mode.startswith(("I", "F")):
        raise InputError(f"{name}: an image has more than 8 bits per pixel; save it with 8.")
    return size


def compare(generated: list[str], real: list[str], protocol: str) -> dict[str, float]:
    """SSIM, CC and MSE of generated and real images; which meets which is the protocol's."""
    try:
        predictions, references = read(generated, "generated images"), read(real, "real images")
        pairs = len(predictions) * (1 if protocol == "pairs" else len(references))
        if pairs * predictions[0].size > MOST_WORK:
            raise InputError(f"{pairs} pairs of such images take too long; give fewer or smaller ones.")
        return METRIC.compute(predictions=predictions, references=references, protocol=protocol)
    except ValueError as error:  # InputError, and what the metric refuses
        raise gr.Error(hide_folders(str(error)), print_exception=False) from error


def build_demo() -> gr.Blocks:
    """The page."""
    card = (Path(__file__).parent / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    options = {"title": "Slice similarity", "delete_cache": (KEEP_SECONDS // 6, KEEP_SECONDS)}
    with Page(most_bytes=2**18, upload_bytes=UPLOAD_BYTES, **options) as demo:
        gr.Markdown("# Slice similarity\nSSIM, CC and MSE of grey images in 8 bit, read as [0, 1] (`data_range` 1).")
        with gr.Row():
            generated = gr.File(label="Generated images", file_count="multiple", file_types=["image"])
            real = gr.File(label="Real images", file_count="multiple", file_types=["image"])
        protocol = gr.Radio(
            [
                ("each with each", "all"),
                ("each generated image with the real one most like it", "best"),
                ("the i-th with the i-th", "pairs"),
            ],
            value="all",
            label="Protocol",
        )
        result = gr.JSON(label="Means")
        gr.Button("Compare", variant="primary").click(
            compare, [generated, real, protocol], result, api_name="compare", concurrency_limit=1, concurrency_id=SLOW
        )
        with gr.Accordion("Metric card", open=False):
            gr.Markdown(card)
    return demo.queue()


if __name__ == "__main__":
    build_demo().launch()
