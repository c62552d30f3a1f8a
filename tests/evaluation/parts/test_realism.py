"""Sets of images whose faults are known: what the part of a report on realism must say of them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hcm_hf.evaluation import extractors
from hcm_hf.evaluation.comparison import Comparison, Reference
from hcm_hf.evaluation.images import GeneratedImages, RealSlices
from hcm_hf.evaluation.parts.realism import realism_rows
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.metrics import bootstrap
from hcm_hf.metrics.realism import brightness_spread, noise_level


ON_FEATURES = {"c2st_auc", "kid_imagenet", "patient_recall"}
TEXTURE = {"noise_level", "edge_kurtosis", "edge_coherence", "brightness_spread", "bright_outside_heart"}
Z = {"noise_level_z", "edge_kurtosis_z", "edge_coherence_z"}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    monkeypatch.setattr(extractors, "HF_HOME", str(tmp_path))


def scenes(patients: int, seed: int, slices: int = 4, size: int = 64) -> np.ndarray:
    """A bright disc in a grey chest, alike within a patient: (patients * slices, size, size)."""
    generator = np.random.default_rng(seed)
    down, right = np.mgrid[:size, :size] - (size - 1) / 2
    images = []
    for _ in range(patients):
        radius, light, grain = generator.uniform((8, 0.4, 0.005), (16, 0.8, 0.02))
        for step in range(slices):
            disc = light * (np.hypot(down, right) < radius - step) + 0.3 * (np.abs(right) > 24)
            images.append(gaussian_filter(disc + 0.1, 0.6) + grain * generator.standard_normal((size, size)))
    return np.clip(images, 0, 1).astype(np.float32)


def real_slices(patients: int, seed: int) -> RealSlices:
    images = scenes(patients, seed)
    names = np.repeat([f"{seed}-{index}" for index in range(patients)], 4)
    count = len(images)
    return RealSlices(
        images=images,
        masks=np.full(images.shape, -1, np.int8),
        patients=names,
        groups=np.full(count, "HCM"),
        phases=np.zeros(count, int),
        positions=np.full(count, 0.5, np.float32),
        identities={name: [name] for name in names.tolist()},
    )


def rows_of(images: np.ndarray, heldout: int = 6) -> dict[str, dict[str, float]]:
    reference = Reference(real_slices(8, 1), real_slices(heldout, 2))
    rows = realism_rows(Comparison(GeneratedImages(images), reference), None)
    return {name: {label: number.value for label, number in row.items()} for name, row in rows.items()}


def test_texture_needs_no_extra_and_the_report_says_what_does():
    reference = Reference(real_slices(8, 1), real_slices(6, 2))
    report = evaluate_images(GeneratedImages(scenes(6, 3)), reference)
    assert set(report.parts["realism"]) == TEXTURE | Z
    assert report.left_out["realism"].endswith("pip install 'hcm_hf[realism]'.")
    real = {name: number.value for name, number in report.rows["real"].items()}
    assert real["noise_level"] == pytest.approx(noise_level(reference.heldout.images).mean())
    assert real["brightness_spread"] == pytest.approx(brightness_spread(reference.heldout.images))
    assert all(abs(real[name]) < 1 for name in Z)
    assert "\n## Realism\n" in report.to_markdown()


@pytest.mark.usefixtures("with_imagenet")
def test_other_real_patients_pass_and_noise_and_blur_do_not():
    rows = rows_of(scenes(6, 3))
    assert set(rows["generated"]) == set(rows["real"]) == set(rows["mean_image"]) == TEXTURE | Z | ON_FEATURES
    generator = np.random.default_rng(0)
    noisy = rows_of((scenes(6, 3) + 0.06 * generator.standard_normal((24, 64, 64))).clip(0, 1).astype(np.float32))
    blurred = rows_of(gaussian_filter(scenes(6, 3), (0, 1.5, 1.5)))
    fine = rows["generated"]
    assert noisy["generated"]["noise_level_z"] > 3 > abs(fine["noise_level_z"])
    assert blurred["generated"]["noise_level_z"] < -1
    for damaged in (noisy, blurred):
        assert damaged["generated"]["c2st_auc"] > fine["c2st_auc"] + 0.1
        assert damaged["generated"]["kid_imagenet"] > 2 * abs(fine["kid_imagenet"])
        assert damaged["real"] == rows["real"]  # which does not depend on what is offered
    assert fine["patient_recall"] > 0.5


@pytest.mark.usefixtures("with_imagenet")
def test_one_held_out_patient_leaves_unknown_what_needs_more():
    generated = rows_of(scenes(6, 3), heldout=1)["generated"]
    assert generated["c2st_auc"] is None and generated["patient_recall"] is None
    assert generated["kid_imagenet"] is not None and generated["noise_level"] is not None
