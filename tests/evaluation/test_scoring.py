"""Images and real slices to a report."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
from PIL import Image

from hcm_hf.data.acdc import GROUPS
from hcm_hf.evaluation.comparison import Reference
from hcm_hf.evaluation.definitions import LIMITS
from hcm_hf.evaluation.images import GeneratedImages, read_split
from hcm_hf.evaluation.report import Report, Source
from hcm_hf.evaluation.scoring import evaluate_images
from hcm_hf.utils.errors import InputError


pytestmark = pytest.mark.usefixtures("few_resamples")
SIZE = 16
FEATURES = datasets.Features(
    {
        "image": datasets.Image(mode="L"),
        "mask": datasets.Image(mode="L"),
        "patient": datasets.Value("string"),
        "group": datasets.ClassLabel(names=list(GROUPS)),
        "phase": datasets.ClassLabel(names=["ED", "ES"]),
        "slice_index": datasets.Value("int32"),
        "num_slices": datasets.Value("int32"),
        "volume_sha256": datasets.Value("string"),
    }
)


def make_split(patients: dict[str, str], seed: int) -> datasets.Dataset:
    """Six slices of each patient, named with his group; the last lies between ED and ES."""
    generator = np.random.default_rng(seed)
    rows = {key: [] for key in FEATURES}
    for patient, group in patients.items():
        look = generator.integers(0, 200, (SIZE, SIZE))
        for index, phase in enumerate(("ED", "ED", "ED", "ES", "ES", None)):
            pixels = look + generator.integers(0, 55, (SIZE, SIZE))
            values = (
                Image.fromarray(pixels.astype(np.uint8)),
                None,
                patient,
                group,
                phase,
                index % 3,
                3,
                f"{patient} {phase}",
            )
            for key, value in zip(FEATURES, values, strict=True):
                rows[key].append(value)
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def make_dataset(n_heldout: int = 6) -> datasets.DatasetDict:
    return datasets.DatasetDict(
        train=make_split({f"train{i}": "HCM" for i in range(5)} | {"healthy": "NOR"}, 0),
        test=make_split({f"test{i}": "HCM" for i in range(n_heldout)} | {"dilated": "DCM"}, 1),
    )


def evaluate(images, dataset, source=None, **options) -> Report:
    """Score images against a dataset; options are those of the reference and of the evaluation."""
    named = {name: options.pop(name) for name in ("split", "groups", "seen_groups", "name") if name in options}
    return evaluate_images(GeneratedImages(images, source or Source()), Reference.read(dataset, **named), **options)


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def copies(dataset):
    return read_split(dataset, "train", ["HCM"]).images[::2]


@pytest.fixture(scope="module")
def report(dataset, copies):
    return evaluate(copies, dataset, source=Source("copier"), name="tiny", paper_compat=True)


def test_the_report_counts_what_it_compared(report):
    assert (report.n_train, report.n_train_patients) == (25, 5)  # other groups and unlabelled frames left out
    assert (report.n_heldout, report.n_heldout_patients, report.n_generated) == (30, 6, 13)
    assert report.n_reference == 25
    assert report.dataset.groups == ["HCM"] and report.dataset.resolution == SIZE
    assert list(report.rows) == ["generated", "real", "mean_image"]
    names = [f"{m}_{p}" for m in ("ssim", "cc", "mse") for p in ("random", "best_train", "best_heldout", "copy_gap")]
    assert report.parts == {
        "similarity": [*names, "cc_max_shift_random"],
        "appearance": ["spectrum_distance", "brightness_outliers"],
        "realism": [
            *(f"{texture}{z}" for texture in ("noise_level", "edge_kurtosis", "edge_coherence") for z in ("", "_z")),
            *("brightness_spread", "bright_outside_heart"),
        ],
        "memorization": ["copy_rate", "nearest_neighbour_ratio", "c_t", "authenticity"],
    }
    for row in report.rows.values():
        assert list(row) == [name for part in report.parts.values() for name in part]
    expected = {"protocol": "best_train", "n_generated": 30, "n_real": 25, "n_patients": 5}
    assert expected.items() <= vars(report.rows["real"]["cc_best_train"]).items()


def test_copies_stand_out_and_real_slices_do_not(report):
    rows = report.rows
    assert rows["generated"]["ssim_best_train"].value == pytest.approx(1, abs=1e-6)
    assert rows["generated"]["mse_best_train"].value == pytest.approx(0, abs=1e-9)
    assert rows["generated"]["ssim_copy_gap"].low > 0.2
    assert abs(rows["real"]["ssim_copy_gap"].value) < 0.1
    assert rows["real"]["ssim_best_heldout"].value < 0.5  # slices of one patient would give .9


def test_the_mean_image_beats_real_patients(report):
    rows = report.rows
    assert rows["mean_image"]["mse_random"].value < rows["real"]["mse_random"].value


def test_numbers_equal_those_computed_by_hand(dataset, copies, report):
    heldout, training = (read_split(dataset, split, ["HCM"]) for split in ("test", "train"))
    errors = np.square(copies[:, None].astype(float) - heldout.images).mean((2, 3))
    number = report.rows["generated"]["mse_random"]  # 30 held-out slices, fewer than 50: all of them
    assert number.value == pytest.approx(errors.mean(), abs=1e-7)
    errors = np.square(training.images.mean(0, dtype=float) - heldout.images).mean((1, 2))
    assert report.rows["mean_image"]["mse_random"].value == pytest.approx(errors.mean(), abs=1e-7)


def test_reports_are_functions_of_the_seed(dataset, copies, report):
    again = evaluate(copies, dataset, source=Source("copier"), name="tiny", paper_compat=True)
    assert again == report
    other = evaluate(copies, dataset, seed=1)
    assert other.rows != report.rows and other.dataset.fingerprint == report.dataset.fingerprint


def test_paper_compat_is_an_artefact_beside_the_rows(dataset, copies, report):
    artefact = report.paper_compat_artefact
    assert list(artefact.rows) == ["generated", "real"] and "ARTEFACT" in artefact.warning
    assert artefact.rows["real"]["ssim_random"].value > 0.95
    assert report.rows["real"]["ssim_random"].value < 0.2
    assert artefact.rows["real"]["mse_random"].value == pytest.approx(
        4 * report.rows["real"]["mse_random"].value, rel=1e-5
    )
    assert evaluate(copies, dataset).paper_compat_artefact is None


def test_a_single_heldout_patient_has_no_other_to_be_compared_with(copies):
    report = evaluate(copies, make_dataset(n_heldout=1))
    assert report.rows["real"]["ssim_random"].value is None
    assert report.rows["real"]["ssim_best_heldout"].value is None
    assert report.rows["generated"]["ssim_random"].value is not None
    assert report.rows["real"]["copy_rate"].value is None
    assert "too few" in report.to_markdown()


def test_reports_are_written_as_json_and_markdown(report, tmp_path):
    report.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report.to_json()
    assert Report.load(tmp_path / "new") == report
    text = (tmp_path / "new" / "report.md").read_text()
    assert text.startswith("# copier against tiny, split test, HCM\n")
    assert text.count("| generated | 0") + text.count("| generated | 1") == 8
    assert "ARTEFACT" in text and LIMITS in text and "Warning" not in text
    assert "needs an encoder" in text  # what is left out, and what to do


def test_few_patients_bring_a_warning(copies):
    assert "**Warning: only 4 held-out patients" in evaluate(copies, make_dataset(4)).to_markdown()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "validation"}, "no split 'validation'"),
        ({"groups": ["ABC"]}, "ABC"),
        ({"groups": ["RV"]}, "no slices of RV"),
        ({"split": "train"}, "both in split"),
        ({"real_per_image": 0}, "real_per_image"),
        ({"images": np.zeros((2, 32, 32))}, "16x16 px"),
        ({"images": np.zeros((0, SIZE, SIZE))}, "shape"),
        ({"images": np.full((2, SIZE, SIZE), np.nan)}, "nan"),
        ({"images": np.full((2, SIZE, SIZE), 255.0)}, "255"),
    ],
)
def test_wrong_arguments_are_refused(dataset, copies, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate(**{"images": copies, "dataset": dataset} | arguments)


@pytest.mark.parametrize(("label", "warned"), [("NOR", True), ("HCM", False)])
def test_images_of_another_class_are_warned_of(report, label, warned):
    text = replace(report, generator=Source(classes=[label])).to_markdown()
    assert ("**Warning: images of class NOR are compared with slices of HCM.**" in text) == warned
    assert f"px (class {label});" in text


def test_images_of_all_groups_belong_to_slices_of_all_groups(report):
    one = replace(report, seen_groups=["HCM", "NOR"], seen_groups_assumed=False, generator=Source(classes=["any"]))
    warning = "**Warning: images of class HCM, NOR are compared with slices of {}.**"
    assert warning.format("HCM") in one.to_markdown()
    assert "Warning" not in replace(one, dataset=replace(one.dataset, groups=["NOR", "HCM"])).to_markdown()
    of_hcm = replace(one, generator=Source(classes=["HCM"]), dataset=replace(one.dataset, groups=["HCM", "NOR"]))
    assert "images of class HCM are compared with slices of HCM, NOR.**" in of_hcm.to_markdown()
    nothing_to_ask = replace(of_hcm, generator=Source(), seen_groups=["HCM"])
    assert "images of class HCM are compared with slices of HCM, NOR.**" in nothing_to_ask.to_markdown()


def test_the_way_of_denoising_stands_in_the_report(report):
    source = Source("runs/ddpm", scheduler="ddim", num_inference_steps=50)
    assert "px (ddim, 50 steps);" in replace(report, generator=source).to_markdown()


def test_copies_of_other_groups_are_found_among_what_the_generator_has_seen(dataset):
    images = read_split(dataset, "train", ["NOR"], all_frames=True).images
    alone = evaluate(images, dataset)
    seen = evaluate(images, dataset, seen_groups=["HCM", "NOR"])
    assert alone.rows["generated"]["copy_rate"].value == 0
    assert seen.rows["generated"]["copy_rate"].value == 1
    assert (alone.n_seen, seen.n_seen, seen.n_seen_patients) == (30, 36, 6)  # the frames between too


def test_a_kept_part_without_its_figure_is_assessed_again(dataset, copies, tmp_path):
    evaluate(copies, dataset, output_dir=tmp_path)
    (tmp_path / ".parts" / "appearance" / "spectra.png").unlink()
    (tmp_path / "spectra.png").unlink()
    report = evaluate(copies, dataset, output_dir=tmp_path)
    assert report.figures["appearance"] == ["spectra.png"] and (tmp_path / "spectra.png").is_file()


def test_a_report_without_a_folder_names_no_figure(report):
    assert "Figure" not in report.to_markdown()


def test_what_is_not_known_of_the_generator_is_not_claimed(report, copies, dataset):
    assert "do not say it" in report.to_markdown()
    known = evaluate(copies, dataset, seen_groups=["HCM"])
    text = known.to_markdown()
    assert "patients (HCM) that the generator has been trained on." in text and "do not say it" not in text


def test_every_part_says_what_its_rows_offer(report):
    text = report.to_markdown()
    sections = {block.split("\n")[0]: block for block in text.split("\n## ")[1:]}
    assert "the pixel-wise mean of the training slices, offered" in sections["Similarity"]
    for name in ("Appearance", "Memorization"):
        assert "*mean_image*: the pixel-wise mean of the training slices, as often as" in sections[name]
    assert "or all where they are fewer" in sections["Similarity"]  # 30 here, not 50
