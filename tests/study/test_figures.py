import json

import numpy as np
import pytest
from PIL import Image
from tiny import build_tiny

from hcm_hf.study.figures import draw_figures, write_controls, write_losses
from hcm_hf.utils.errors import InputError


@pytest.mark.parametrize(("family", "rows"), [("infogan", 3), ("acgan", 5)])
def test_controls_have_a_row_each(family, rows, tmp_path):
    assert write_controls(build_tiny(family).pipeline(), tmp_path / "controls.png", num_images=4)
    with Image.open(tmp_path / "controls.png") as picture:
        assert picture.height == rows * 128 + (rows - 1) * 2


def test_without_controls_there_is_no_figure(tmp_path):
    assert not write_controls(build_tiny("dcgan").pipeline(), tmp_path / "controls.png")
    assert not list(tmp_path.iterdir())


def test_the_losses_of_all_runs_are_in_one_picture(tmp_path):
    for name in ("vae", "gan", "encoder", "ddpm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "epoch": 1, "some_loss": 1.0}) + "\n")
    write_losses([tmp_path / name for name in ("vae", "gan", "encoder", "ddpm")], tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 3
    tiles = [pixels[y * height : (y + 1) * height, x * width : (x + 1) * width] for y in (0, 1) for x in range(3)]
    assert all((tile[:24] < 128).any() and (tile[24:] < 128).any() for tile in tiles[:4])  # a name above curves
    assert (tiles[4] == 255).all() and (tiles[5] == 255).all()


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
    assert drawn == {"families.png", "losses.png", "infogan/controls.png"}
    with Image.open(output_dir / "families.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 128 + 3 * 2, 20 + 3 * 128 + 2 * 2)  # real, VAE, InfoGAN, DDPM
    assert (pixels[130:258, 20:148] == 128).all() and (pixels[130:258, 150:] == 255).all()


def test_figures_refuse_what_does_not_fit(folders, dataset_dir, tmp_path):
    runs, images = folders
    for arguments, message in [
        ((images, images), "runs .* holds no run of a family"),
        ((runs, runs / "ddpm"), "images .* holds no images of a family"),
        ((runs, images, "columns"), "columns is 0"),
    ]:
        with pytest.raises(InputError, match=message):
            draw_figures(*arguments[:2], tmp_path / "figures", dataset_dir, columns=0 if len(arguments) == 3 else 3)
    write_png(images / "vae" / "000000.png", 32)
    with pytest.raises(InputError, match="vae holds images of 32 px, the dataset of 16 px"):
        draw_figures(runs, images, tmp_path / "figures", dataset_dir)
    assert not (tmp_path / "figures").exists()
