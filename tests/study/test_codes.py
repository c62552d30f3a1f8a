import json

import numpy as np
import pytest
import torch
from tiny import build_tiny, save_encoder

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.typed import plain
from hcm_hf.generation.images import generate_images
from hcm_hf.models import SliceEncoder
from hcm_hf.study import codes
from hcm_hf.study.codes import correlate_categories, examine_codes, measure_slices, rank_correlation
from hcm_hf.utils.errors import InputError


def test_a_rank_correlation_is_one_for_any_rising_curve_and_its_interval_holds_it():
    values = np.random.default_rng(0).uniform(-1, 1, 60)
    rising = rank_correlation(values, np.exp(values))
    assert [rising.value, rising.low, rising.high] == pytest.approx([1, 1, 1]) and rising.n_generated == 60
    assert rank_correlation(values, -(values**3)).value == pytest.approx(-1)
    chance = rank_correlation(values, np.random.default_rng(1).normal(size=60))
    assert chance.low < 0 < chance.high


def test_slices_that_cannot_be_measured_do_not_count():
    values = np.arange(40.0)
    found = rank_correlation(values, np.where(values < 25, values, np.nan))
    assert found.value == pytest.approx(1) and found.n_generated == 25
    for nothing in (np.full(40, np.nan), np.full(40, 3.0), np.where(values < 19, values, np.nan)):
        found = rank_correlation(values, nothing)
        assert found.value is None and found.low is None


def test_categories_get_their_order_from_images_that_are_not_correlated():
    """A meaning of the categories is found whatever their numbers; chance alone is not taken for one."""
    generator = np.random.default_rng(0)
    categories = generator.integers(10, size=400)
    meant = generator.permutation(10)[categories] + generator.normal(0, 0.1, 400)
    found = correlate_categories(categories, {"meant": meant, "chance": generator.normal(size=400)})
    assert found["meant"].value > 0.95 and found["meant"].n_generated == 200
    assert found["chance"].low < 0 < found["chance"].high


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    return save_encoder(tmp_path / "encoder", SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (4, 8)).eval())


def test_walls_are_those_of_end_diastole(encoder):
    images = np.random.default_rng(0).random((12, 16, 16), np.float32)
    measured = measure_slices(images, load_encoder(encoder).segmenter)
    seen = load_encoder(encoder).segmenter.predict(images)
    assert np.isnan(measured["wall_thickness_ed"][seen.phases != PHASES.index("ED")]).all()
    shown = (seen.phases == PHASES.index("ED")) & (seen.masks == 3).any((1, 2))
    areas = np.where(shown, (seen.masks == 3).sum((1, 2)) * 8.0**2, np.nan)
    np.testing.assert_array_equal(measured["lv_area_ed"], areas)
    np.testing.assert_array_equal(measured["end_diastole"], seen.phases == PHASES.index("ED"))
    np.testing.assert_allclose(measured["brightness"], images.mean((1, 2)), rtol=1e-6)


def test_a_code_that_brightens_is_found_and_written_down(encoder, tmp_path):
    infogan = build_tiny("infogan").pipeline()

    def brighter(network, latents, labels=None):
        return (network.body(latents) / 4 + latents[:, -1, None, None, None] / 2).clamp(-1, 1)

    infogan.save_pretrained(tmp_path / "infogan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(infogan.network), "decode", brighter)
        found = examine_codes(tmp_path / "infogan", encoder, tmp_path / "codes", num_images=60)
    last = list(found)[-1]
    assert last.startswith("continuous") and found[last]["brightness"].low > 0.9
    assert abs(found["continuous 1"]["brightness"].value) < 0.5
    written = json.loads((tmp_path / "codes" / "codes.json").read_text())
    assert written["codes"] == plain(found) and written["n_generated"] == 60
    table = (tmp_path / "codes" / "codes.md").read_text()
    assert all(f"| {name} |" in table for name in found) and written["encoder"] in table


def test_the_images_are_those_that_the_seed_generates(encoder, tmp_path, monkeypatch):
    build_tiny("infogan").pipeline().save_pretrained(tmp_path / "infogan")
    seen = []
    watched = lambda images, segmenter: seen.append(images) or measure_slices(images, segmenter)  # noqa: E731
    monkeypatch.setattr(codes, "measure_slices", watched)
    examine_codes(tmp_path / "infogan", encoder, tmp_path / "codes", num_images=20, seed=3)
    folder = generate_images(tmp_path / "infogan", tmp_path / "images", 20, seed=3, save_npy=True)
    generated = np.stack([np.load(path)[..., 0] for path in sorted(folder.glob("*.npy"))])
    np.testing.assert_allclose(seen[0], generated, atol=1e-6)


def test_an_encoder_of_another_size_and_a_folder_that_holds_something_are_refused(encoder, tmp_path):
    build_tiny("infogan").pipeline().save_pretrained(tmp_path / "infogan")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.txt").write_text("kept")
    with pytest.raises(InputError, match="output_dir .*mine exists and holds something else"):
        examine_codes(tmp_path / "infogan", encoder, tmp_path / "mine", num_images=20)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["kept.txt"]
    larger = save_encoder(tmp_path / "larger", SliceEncoder(STRUCTURES, GROUPS, PHASES, 32, (4, 8)).eval())
    with pytest.raises(InputError, match="encoder .*larger is for images of 32 px, those of model .* have 16"):
        examine_codes(tmp_path / "infogan", larger, tmp_path / "codes", num_images=20)
    assert not (tmp_path / "codes").exists()


def test_bad_arguments_leave_nothing(encoder, tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "dcgan")
    build_tiny("infogan").pipeline().save_pretrained(tmp_path / "infogan")
    for model, options, message in (
        ("dcgan", {}, "has no codes; name an InfoGAN"),
        ("infogan", {"num_images": 3}, "num_images is 3"),
        ("infogan", {"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(InputError, match=message):
            examine_codes(tmp_path / model, encoder, tmp_path / "codes", **options)
        assert not (tmp_path / "codes").exists()
