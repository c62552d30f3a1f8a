"""Folders of images, models and datasets to a report's folder."""

import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from tiny import build_tiny, notes

from hcm_hf.data.acdc import GROUPS
from hcm_hf.evaluation import scoring
from hcm_hf.evaluation.images import read_split
from hcm_hf.evaluation.parts import PARTS
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import generate_images
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError


pytestmark = pytest.mark.usefixtures("few_resamples")


def test_a_model_that_has_seen_a_held_out_patient_is_refused(splits, dataset_dir, tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "run" / "best")
    known = read_split(splits, "test", ["HCM"]).identities
    name = sorted(known)[0]
    written = notes(train_patients={"somebody": known[name]})
    (tmp_path / "run" / "training_config.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match=f"was trained on patient {name}, who is held out"):
        score(tmp_path / "report", model=tmp_path / "run", dataset=dataset_dir, num_images=3)
    assert not (tmp_path / "report" / "report.json").exists()


def test_who_was_trained_on_is_told_by_the_images_not_by_what_lies_at_a_path(
    splits, dataset_dir, tmp_path, monkeypatch
):
    """The manifest names the model by a relative path, where another run may lie by now."""
    monkeypatch.chdir(tmp_path)
    known = read_split(splits, "test", ["HCM"]).identities
    name = sorted(known)[0]
    for run, patients in (("run", known), ("innocent", {"patient": ["0"]})):
        build_tiny("dcgan").pipeline().save_pretrained(tmp_path / run / "best")
        (tmp_path / run / "training_config.json").write_text(json.dumps(notes(train_patients=patients)))
    generate_images("run", "images", 3)
    shutil.rmtree("run")
    (tmp_path / "innocent").rename(tmp_path / "run")
    with pytest.raises(InputError, match=f"was trained on patient {name}, who is held out"):
        score("report", images="images", dataset=dataset_dir)
    # The same weights with other notes: who is in either has been seen.
    with pytest.raises(InputError, match=f"was trained on patient {name}, who is held out"):
        score("report", images="images", model="run", dataset=dataset_dir)


def test_the_report_says_who_and_what_is_not_known(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("hcm_hf.evaluation.images.MOST_IMAGES", 3)
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "model")
    report = score(tmp_path / "report", model=tmp_path / "model", dataset=dataset_dir, num_images=4)
    assert "neither the images nor a model say whom it has seen" in report.left_out["patients"]
    assert "1 of 4 images: 3 were drawn at random" in report.left_out["images"] and report.n_generated == 3


def test_images_of_another_model_are_refused(dataset_dir, tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        build_tiny("vae", seed).pipeline().save_pretrained(tmp_path / name)
    images = generate_images(tmp_path / "one", tmp_path / "images", 3)
    with pytest.raises(InputError, match="not by model"):
        score(tmp_path / "report", images=images, model=tmp_path / "other", dataset=dataset_dir)
    report = score(tmp_path / "report", images=images, model=tmp_path / "one", dataset=dataset_dir)
    assert report.speed.network_calls == 1 and report.speed.seconds_per_1000_images > 0


@pytest.fixture
def paired(tmp_path):
    """A tiny model of slices with segmentations that has met every label of HCM and NOR."""
    objective = build_tiny("ddpm", recipe="tuned")
    for group in ("HCM", "NOR"):
        first = 6 * GROUPS.index(group)
        objective.label_counts[first : first + 6] = 1
    objective.pipeline().save_pretrained(tmp_path / "paired")
    return tmp_path / "paired"


def test_a_model_with_segmentations_is_made_and_scored_in_one(paired, dataset_dir, tmp_path):
    sampling = Sampling({"group": "any"}, num_inference_steps=2, guidance_scale=2)
    report = score(tmp_path / "report", model=paired, dataset=dataset_dir, num_images=30, sampling=sampling)
    assert report.asked_groups == ["HCM", "NOR"]
    assert report.generator.guidance_scale == 2 and report.speed.network_calls == 4
    assert {"mask_valid_topology", "mask_wall_distance_nor_es", "ssim_matched"} <= report.rows["generated"].keys()
    assert "membership" not in report.parts
    assert "2 steps, guidance 2)" in (tmp_path / "report" / "report.md").read_text()
    again = score(tmp_path / "again", images=tmp_path / "report" / "images", dataset=dataset_dir)
    assert again.rows == report.rows


def test_a_group_that_the_dataset_does_not_have_is_refused(paired, dataset_dir, tmp_path):
    asked = Sampling({"group": "DCM", "phase": "ED"})
    with pytest.raises(InputError, match=r"Split 'train' has no segmented slices like those .* \(DCM\)"):
        score(tmp_path / "report", model=paired, dataset=dataset_dir, num_images=2, sampling=asked)


def test_groups_that_are_not_there_are_refused_before_images_are_made(paired, dataset_dir, tmp_path):
    with pytest.raises(InputError, match="no slices of RV"):
        score(tmp_path / "report", model=paired, dataset=dataset_dir, groups=("RV",), num_images=2)
    assert not (tmp_path / "report").exists()


def test_guidance_is_for_generating(dataset_dir, tmp_path):
    with pytest.raises(InputError, match="guidance_scale 2 is for generating"):
        score(tmp_path / "report", images=tmp_path, dataset=dataset_dir, sampling=Sampling(guidance_scale=2))


def named_figures(folder):
    return re.findall(r"^Figure (\S+):", (folder / "report.md").read_text(), re.MULTILINE)


def test_figures_of_a_report_survive_an_interruption_and_go_with_it(dataset_dir, tmp_path, monkeypatch):
    build_tiny("vae").pipeline().save_pretrained(tmp_path / "model")
    images = generate_images(tmp_path / "model", tmp_path / "images", 6)
    folder = tmp_path / "report"

    def scored(stop=False, **options):
        part = PARTS["memorization"]

        def interrupted(comparison, figures):
            part.assess(comparison, figures)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            patch.setitem(PARTS, "memorization", replace(part, assess=interrupted) if stop else part)
            score(folder, images=images, dataset=dataset_dir, **options)
        return {path.name for path in folder.glob("*.png")}

    scored(stop=True)
    assert scored() == {"spectra.png", "closest_pairs.png", "grid.png"}
    assert named_figures(folder) == ["spectra.png", "closest_pairs.png"] and not (folder / ".parts").exists()
    drawn, text = (folder / "spectra.png").read_bytes(), (folder / "report.md").read_text()
    (folder / "mask_thickness_hcm.png").write_bytes(drawn)  # of a report with segmentations
    assert "mask_thickness_hcm.png" in scored(stop=True, seed=1)  # the old report is whole until there is a new one
    assert (folder / "report.md").read_text() == text and (folder / "spectra.png").read_bytes() == drawn
    assert scored(seed=1) == {"spectra.png", "closest_pairs.png", "grid.png"}
    assert named_figures(folder) == ["spectra.png", "closest_pairs.png"]


def test_all_networks_are_where_the_device_says(dataset_dir, tmp_path, monkeypatch):
    """The tests have one device, so it is followed: what the generator, the encoder and the speed are given."""
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "model")
    given = []
    make = scoring.generate_images
    monkeypatch.setattr(scoring, "generate_images", lambda *a, **k: given.append(k["device"]) or make(*a, **k))
    report = score(tmp_path / "report", model=tmp_path / "model", dataset=dataset_dir, num_images=3, device="cpu")
    assert given == ["cpu"] and report.speed.device == "cpu"
    for device in ("cuda:99", "abacus", "meta"):
        with pytest.raises(InputError, match=f"device {device} .*; leave it out to use"):
            score(tmp_path / "other", model=tmp_path / "model", dataset=dataset_dir, num_images=3, device=device)
    assert not (tmp_path / "other").exists()


def test_the_precisions_stand_in_the_report(dataset_dir, tmp_path):
    build_tiny("dcgan").pipeline().save_pretrained(tmp_path / "run" / "best")
    written = notes(mixed_precision="bf16", train_patients={"somebody": ["0123456789abcdef"]})
    (tmp_path / "run" / "training_config.json").write_text(json.dumps(written))
    images = generate_images(tmp_path / "run", tmp_path / "images", 3)
    for name, options in (("of images", {}), ("of both", {"model": tmp_path / "run"})):
        report = score(tmp_path / name, images=images, dataset=dataset_dir, **options)
        assert report.training_precision == "bf16"
        assert "Trained in bf16; the images were generated in fp32." in (tmp_path / name / "report.md").read_text()
    made = score(tmp_path / "new", model=tmp_path / "run", dataset=dataset_dir, num_images=3)
    assert made.training_precision == "bf16"
