"""The metric in the browser: two sets of images, a protocol, three numbers."""

from pathlib import Path

import evaluate
import gradio as gr
import numpy as np
from PIL import Image, UnidentifiedImageError


MOST_IMAGES = 200  # of each set
METRIC = evaluate.load(str(Path(__file__).parent / "slice-similarity.py"))


def read(files: list[str] | None, name: str) -> np.ndarray:
    """Images of one size as floats (N, H, W) in [0, 1]."""
    if not files:
        raise gr.Error(f"Add images to {name}.", print_exception=False)
    if len(files) > MOST_IMAGES:
        raise gr.Error(f"{name} holds {len(files)} images; {MOST_IMAGES} at most.", print_exception=False)
    try:
        images = [np.asarray(Image.open(file).convert("L"), np.float32) / 255 for file in files]
    except (OSError, UnidentifiedImageError) as error:
        raise gr.Error(f"{name}: a file is no image.", print_exception=False) from error
    if len({image.shape for image in images}) > 1:
        raise gr.Error(f"The images of {name} differ in size; give images of one size.", print_exception=False)
    return np.stack(images)


def compare(generated: list[str], real: list[str], protocol: str) -> dict[str, float]:
    """SSIM, CC and MSE of generated and real images; which meets which is the protocol's."""
    try:
        return METRIC.compute(
            predictions=read(generated, "generated images"), references=read(real, "real images"), protocol=protocol
        )
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def build_demo() -> gr.Blocks:
    """The page."""
    card = (Path(__file__).parent / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    with gr.Blocks(title="Slice similarity") as demo:
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
        gr.Button("Compare", variant="primary").click(compare, [generated, real, protocol], result, api_name="compare")
        with gr.Accordion("Metric card", open=False):
            gr.Markdown(card)
    return demo


if __name__ == "__main__":
    build_demo().launch()
