import json

import numpy as np
import pytest
from PIL import Image
from tiny import build_tiny

from hcm_hf.errors import InputError
from hcm_hf.reproduction import draw_figures


def write_png(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), 128, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Runs of InfoGAN and DDPM, images of both and of a VAE; the DDPM's run has no `last/` yet."""
    for family in ("infogan", "ddpm"):
        run = tmp_path / "runs" / family
        build_tiny(family).pipeline().save_pretrained(run / "best")
        (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "epoch": 1, "some_loss": 1.0}) + "\n")
    for family in ("ddpm", "infogan", "vae"):
        write_png(tmp_path / "images" / family / "000000.png", 16)
    return tmp_path / "runs", tmp_path / "images"


def test_figures_of_the_families_that_are_there(folders, dataset_dir, tmp_path):
    output_dir = draw_figures(*folders, tmp_path / "figures", dataset_dir, columns=3)
    drawn = {path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*.png")}
    assert drawn == {"families.png", "infogan/losses.png", "infogan/controls.png", "ddpm/losses.png"}
    with Image.open(output_dir / "families.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 128 + 3 * 2, 20 + 3 * 128 + 2 * 2)  # real, VAE, InfoGAN, DDPM
    assert (pixels[130:258, 20:148] == 128).all() and (pixels[130:258, 150:] == 255).all()


def test_bad_input_is_named_and_writes_nothing(folders, dataset_dir, tmp_path):
    runs, images = folders
    for arguments, message in [
        ((images, images), "--runs .* holds no run of a family"),
        ((runs, runs / "ddpm"), "--images .* holds no images of a family"),
        ((runs, images, "--columns"), "--columns is 0"),
    ]:
        with pytest.raises(InputError, match=message):
            draw_figures(*arguments[:2], tmp_path / "figures", dataset_dir, columns=0 if len(arguments) == 3 else 3)
    write_png(images / "vae" / "000000.png", 32)
    with pytest.raises(InputError, match="vae holds images of 32 px, the dataset of 16 px"):
        draw_figures(runs, images, tmp_path / "figures", dataset_dir)
    assert not (tmp_path / "figures").exists()
