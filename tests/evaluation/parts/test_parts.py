"""Planted failures on the synthetic cohort: what each number must catch, and what it cannot."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from PIL import Image

from hcm_hf.evaluation.comparison import Comparison, Reference
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import GeneratedImages, read_split
from hcm_hf.evaluation.parts import PARTS
from hcm_hf.evaluation.parts.features import COMPONENTS
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.metrics import bootstrap
from hcm_hf.study import planted
from hcm_hf.study.planted import planted_sets, score_planted
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import INSTRUMENT_FOLDERS


FAILURES = {  # as the tests call them
    "copies": "copies",
    "copies, shifted": "shifted",
    "copies, blur 1 px": "blurred",
    "copies, noise 0.1": "noised",
    "copies, brighter by .1": "brighter",
    "copies, dark chest wall": "no_chest",
    "copies, masks shifted by 1 px": "masks_1",
    "copies, masks shifted by 3 px": "masks_3",
    "the mean image": "mean_image",
    "half of the patients": "half",
    "real NOR": "healthy",
}


@pytest.fixture(scope="module")
def cohort(dataset_of_twenty, tmp_path_factory):
    """Ten patients each of HCM and NOR; three of each are held out."""
    folder = tmp_path_factory.mktemp("planted")
    for name in INSTRUMENT_FOLDERS:
        train(
            TrainingConfig(
                family=name,
                recipe="default",
                dataset=str(dataset_of_twenty),
                output_dir=str(folder / "encoder" / name),
                num_epochs=30,
                patience=30,
                sample_epochs=100,
                checkpointing_epochs=100,
            )
        )
    splits = datasets.load_from_disk(dataset_of_twenty)
    splits["test"] = datasets.concatenate_datasets([splits["validation"], splits["test"]])
    return splits, load_encoder(folder / "encoder")


@pytest.fixture(scope="module")
def reports(cohort):
    """A report of each planted set; real patients stand in each as the row `real`."""
    splits, encoder = cohort
    sets = planted_sets(read_split(splits, "train"))
    assert set(FAILURES) < set(sets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 30)
        reference = Reference.read(splits)
        return {short: evaluate_images(sets[name], reference, encoder=encoder) for name, short in FAILURES.items()}


def evaluate(images, splits, **options):
    offered = images if isinstance(images, GeneratedImages) else GeneratedImages(images)
    return evaluate_images(offered, Reference.read(splits), **options)


def values(reports, failure: str, row: str = "generated") -> dict[str, float]:
    return {name: number.value for name, number in reports[failure].rows[row].items()}


@pytest.mark.parametrize("failure", ["copies", "shifted", "blurred", "noised"])
def test_only_the_tests_of_memorisation_catch_every_kind_of_copy(reports, failure):
    generated, real = values(reports, failure), values(reports, failure, "real")
    assert generated["copy_rate"] > 0.7 > 0.4 > real["copy_rate"]  # of three patients
    assert generated["nearest_neighbour_ratio"] < 0.85 < real["nearest_neighbour_ratio"]
    assert generated["c_t"] < -3 < real["c_t"]
    assert generated["authenticity"] < 0.2 < real["authenticity"]


def test_copies_are_perfect_by_every_distance_of_distributions(reports):
    generated, real = values(reports, "copies"), values(reports, "copies", "real")
    assert generated["kid_acdc"] == pytest.approx(real["kid_acdc"])
    assert generated["relative_fd_acdc"] == pytest.approx(1, abs=0.15)
    assert generated["spectrum_distance"] == pytest.approx(real["spectrum_distance"])
    assert generated["ssim_copy_gap"] > 0.1 > real["ssim_copy_gap"]


@pytest.mark.parametrize("failure", ["blurred", "noised", "mean_image"])
def test_the_spectrum_sees_what_is_done_to_the_pixels(reports, failure):
    generated, real = values(reports, failure), values(reports, failure, "real")
    assert generated["spectrum_distance"] > 3 * real["spectrum_distance"]


def test_the_pixel_metrics_prefer_the_mean_image_to_real_patients(reports):
    generated, real = values(reports, "mean_image"), values(reports, "mean_image", "real")
    assert generated["mse_random"] < real["mse_random"]
    assert generated["cc_random"] > real["cc_random"]


@pytest.mark.parametrize("failure", ["mean_image", "healthy"])
def test_the_features_see_collapse_and_the_wrong_disease(reports, failure):
    generated = values(reports, failure)
    assert generated["relative_fd_acdc"] > 2
    assert generated["kid_acdc"] > values(reports, failure, "real")["kid_acdc"]
    assert generated["coverage_acdc"] < values(reports, failure, "real")["coverage_acdc"] - 0.1


def test_the_anatomy_sees_the_wrong_disease_and_the_pixel_metrics_do_not(reports):
    generated, real = values(reports, "healthy"), values(reports, "healthy", "real")
    assert generated["thick_share_ed"] < 0.2 < 0.5 < real["thick_share_ed"]
    assert generated["wall_thickness_ed"] < real["wall_thickness_ed"] - 3
    assert generated["group_share"] < 0.3 < 0.6 < real["group_share"]
    assert abs(generated["ssim_random"] - real["ssim_random"]) < 0.1
    assert generated["copy_rate"] < 0.2


def test_half_of_the_patients_are_nearly_as_good_as_all(reports):
    generated, copies = values(reports, "half"), values(reports, "copies")
    assert generated["relative_fd_acdc"] < 1.5
    assert copies["recall_acdc"] + 0.15 > generated["recall_acdc"]


def test_every_number_says_what_it_is_of(reports, cohort):
    report = reports["copies"]
    parts = ["similarity", "appearance", "realism", "features", "memorization", "anatomy", "masks"]
    assert list(report.parts) == parts
    for numbers in report.rows.values():
        for name, number in numbers.items():
            assert None not in (number.n_generated, number.n_real, number.n_patients) and number.protocol
            assert number.low <= number.high
            assert (number.encoder == cohort[1].features.hash) == ("acdc" in name)
            if name not in report.parts["masks"]:  # whose numbers say what they are of in a test of their own
                assert (number.encoder == cohort[1].segmenter.hash) == (number.protocol == "segmented")
    for one, instrument in ((report.encoder, cohort[1].features), (report.segmenter, cohort[1].segmenter)):
        assert one.hash == instrument.hash and f"hash {one.hash}" in report.to_markdown()
        assert one.quality["auc_patient"].value > 0.7 and one.quality["dice_lv"].value > 0.6
        assert {number.encoder for number in one.quality.values()} == {one.hash}
    assert "matched" in {number.protocol for number in report.rows["generated"].values()}


def test_real_slices_segmented_by_the_encoder_stand_beside_their_true_masks(reports):
    real, true = values(reports, "copies", "real"), values(reports, "copies", "true_masks")
    assert abs(real["wall_thickness_ed"] - true["wall_thickness_ed"]) < 6
    assert true["valid_topology"] > 0.7 and true["thick_share_ed"] > 0.5


def test_figures_are_drawn(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 5)
    splits, encoder = cohort
    evaluate(read_split(splits, "train", ["NOR"]).images[:40], splits, encoder=encoder, output_dir=tmp_path)
    names = {"spectra.png", "precision_recall_acdc.png", "closest_pairs.png", "thickness.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    for name in names:
        Image.open(tmp_path / name).verify()


def test_too_few_images_are_refused_with_the_number_that_is_needed(cohort):
    splits, encoder = cohort
    images = read_split(splits, "train", ["HCM"]).images[:COMPONENTS]
    with pytest.raises(InputError, match=r"needs at least 33 generated images, and there are 32; generate more"):
        evaluate(images, splits, encoder=encoder)


def test_parts_that_are_done_survive_an_interruption(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 5)
    splits, encoder = cohort
    images = read_split(splits, "train", ["NOR"]).images[:40]
    calls = []

    def part(name, stop=False):
        original = PARTS[name]

        def assess(comparison: Comparison, figures: Path | None):
            calls.append(name)
            if stop and calls.count(name) == 1:
                raise KeyboardInterrupt
            return original.assess(comparison, figures)

        return replace(original, assess=assess)

    for name in ("similarity", "appearance", "features"):
        monkeypatch.setitem(PARTS, name, part(name, stop=name == "features"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(images, splits, encoder=encoder, output_dir=tmp_path)
    report = evaluate(images, splits, encoder=encoder, output_dir=tmp_path)
    assert calls == ["similarity", "appearance", "features", "features"]
    evaluate(images[:-1], splits, encoder=encoder, output_dir=tmp_path)  # other images: nothing is taken over
    assert calls[4:] == ["similarity", "appearance", "features"]
    assert report.rows == evaluate(images, splits, encoder=encoder).rows


def test_the_chest_wall_and_the_light_are_seen_where_they_are_changed(reports):
    real = values(reports, "copies", "real")
    assert (
        values(reports, "no_chest")["bright_outside_heart"] < 0.5 * values(reports, "copies")["bright_outside_heart"]
    )
    assert values(reports, "brighter")["brightness_outliers"] > real["brightness_outliers"] + 0.1
    assert values(reports, "noised")["noise_level_z"] > 5 > 1 > abs(values(reports, "copies")["noise_level_z"])


def test_masks_that_do_not_fit_lose_their_dice(reports):
    dice = [values(reports, name)["mask_dice_myocardium"] for name in ("copies", "masks_1", "masks_3")]
    assert dice[0] > dice[1] > dice[2] + 0.1
    assert values(reports, "masks_3")["mask_valid_topology"] == values(reports, "copies")["mask_valid_topology"]


def test_the_table_of_planted_sets_says_what_catches_what(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 5)
    splits, encoder = cohort
    splits.save_to_disk(tmp_path / "dataset")
    few = planted_sets(read_split(splits, "train"))
    monkeypatch.setattr(planted, "planted_sets", lambda *_: {name: few[name] for name in ("copies", "real NOR")})
    score_planted(tmp_path / "planted", encoder.source, tmp_path / "dataset")
    record = json.loads((tmp_path / "planted" / "planted.json").read_text())
    assert list(record) == ["copies", "real NOR", "**real patients**"]
    assert record["copies"]["copy_rate"]["value"] == 1
    text = (tmp_path / "planted" / "planted.md").read_text()
    assert text.count("\n| ") == 4 + 2 + len(record)
    caught = dict(
        line.strip("| \n").split(" | ") for line in text.split("\n") if line.startswith("| ") and line.count("|") == 3
    )
    assert "copy_rate" in caught["copies"] and "kid_acdc" not in caught["copies"]
    assert "thick_share_ed" in caught["real NOR"]


def test_slices_without_a_segmentation_do_not_count_as_hearts_without_a_wall(cohort, reports, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 5)
    splits, encoder = cohort
    images = read_split(splits, "train", ["NOR"]).images
    first = splits["test"].filter(lambda row: row["group"] == 1)[0]["patient"]  # of HCM
    bare = [{} if row["patient"] != first else {"mask": None} for row in splits["test"]]
    some = {"train": splits["train"], "test": splits["test"].map(lambda row, index: bare[index], with_indices=True)}
    report = evaluate(images, datasets.DatasetDict(some), encoder=encoder)
    true, whole = report.rows["true_masks"], reports["healthy"].rows["true_masks"]
    assert true["valid_topology"].n_patients == whole["valid_topology"].n_patients - 1
    assert true["valid_topology"].n_real < report.rows["real"]["valid_topology"].n_real
    assert true["valid_topology"].value > 0.7 and true["lv_area_ed"].value > 0.8 * whole["lv_area_ed"].value
    none = splits["test"].map(lambda row: {"mask": None})
    report = evaluate(images, datasets.DatasetDict(train=splits["train"], test=none), encoder=encoder)
    assert "true_masks" not in report.rows
