import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from tiny import ACDC

import hcm_hf
from hcm_hf.evaluation.report import Report
from hcm_hf.hub.cards import render_card, render_dataset_card
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.errors import InputError
from hcm_hf.version import INSTALL, SOURCE_URL


TRAINING = {
    "family": "dcgan",
    "recipe": "paper",
    "dataset": "slices",
    "dataset_source": "acdc",
    "resolution": 64,
    "groups": ["HCM"],
    "num_epochs": 100,
    "adam_betas": [0.5, 0.999],
    "objective": {"label_smoothing": 0.1},
    "num_train_slices": 262,
    "train_patients": {"patient021": ["78de4df6a3acb85b"], "patient022": ["922166c57e47852f"]},
    "version": "0.1.0",
    "progress": {"step": 900, "best_step": 639, "best_loss": 2.4532, "seconds": 943.5},
}
SPACE_TEXTS = ("README.md", "requirements.txt")
RESULTS = Path(__file__).parents[2] / "docs" / "results" / "acdc-64-paper"


@pytest.fixture(scope="module")
def report():
    """The published report of the real DCGAN."""
    return Report.load(RESULTS / "dcgan")


@pytest.mark.parametrize(
    ("family", "recipe"), [(name, recipe) for name, family in FAMILIES.items() for recipe in family.recipes]
)
def test_every_family_and_recipe_has_a_card(family, recipe):
    training = TRAINING | {"family": family, "recipe": recipe}
    card = render_card("user/hearts", training, "hcm_hf")
    data = ModelCard(card).data
    assert data.license == "cc-by-nc-sa-4.0" and data.pipeline_tag == "unconditional-image-generation"
    assert data.library_name == "hcm_hf" and family in data.tags and data.datasets is None
    assert FAMILIES[family].paper.rsplit("/", 1)[1] in card
    assert card == render_card("user/hearts", training, "hcm_hf")
    assert ("1,000 steps" in card) == ((family, recipe) == ("ddpm", "paper"))
    assert "**Never for diagnosis**" in card and "not for diagnosis" in card
    assert not re.search(r"{{|}}|{%|\bNone\b|\bnan\b", card)


def test_without_an_evaluation_the_card_says_so():
    card = render_card("user/hearts", TRAINING, "hcm_hf")
    data = ModelCard(card).data
    assert "## Evaluation\n\nNot evaluated.\n" in card and "## Memorisation\n\nNot evaluated." in card
    assert data.eval_results is None and data.metrics is None and "| ssim" not in card
    assert "samples.png" not in card and "losses.png" not in card


def test_the_card_gives_the_numbers_of_the_evaluation(report):
    assert (
        ModelCard(render_card("user/hearts", TRAINING, "hcm_hf", report)).data.eval_results is None
    )  # of no repository
    report = replace(report, dataset=replace(report.dataset, name="user/slices@v1"))
    card = render_card("user/hearts", TRAINING, "hcm_hf", report, ("samples.png", "losses.png"), 32)
    results = {result.metric_type: result for result in ModelCard(card).data.eval_results}
    for name, result in results.items():
        assert result.dataset_type == "user/slices" and result.dataset_revision == "v1"
        if name.endswith("_real"):
            assert result.metric_value == report.rows["real"][name.removesuffix("_real")].value
            assert "real patients" in result.metric_name
            continue
        assert f"{name}_real" in results
        number = report.rows["generated"][name]
        assert result.metric_value == number.value and number.protocol in result.metric_name
        real = report.rows["real"][name]
        line = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        for one in (number, real):
            assert any(f" {one.value:.{digits}f} [" in line for digits in (1, 2, 3, 4)), line
    assert {"ssim_random", "cc_random", "mse_random", "copy_rate", "kid_acdc"} <= set(results)
    assert f"1,000 generated images against {report.n_heldout} slices of" in card
    assert f"{report.n_heldout_patients} patients held out" in card and report.encoder.hash in card
    assert "walls and rings by its segmentation" in " ".join(card.split())
    both = replace(report, segmenter=replace(report.encoder, hash="f" * 16))
    assert f"by a segmenter (hash {'f' * 16})" in " ".join(
        render_card("user/hearts", TRAINING, "hcm_hf", both).split()
    )
    assert "- _random: each offered image against 50 random held-out slices" in card
    assert "| authenticity |" in card and "![Generated slices](samples.png)" in card


def test_what_is_trained_on_drawn_patients_is_free_and_says_what_it_is():
    card = render_card("user/hearts", TRAINING | {"dataset_source": "synthetic"}, "hcm_hf")
    assert ModelCard(card).data.license == "apache-2.0" and "drawn patients in ACDC's layout" in card
    assert "Bernard" not in card and "One hospital" not in card


@pytest.mark.parametrize(("license_name", "shown"), [("apache-2.0", "apache-2.0"), ("", "unknown")])
def test_patients_of_elsewhere_are_taken_for_neither(license_name, shown):
    training = TRAINING | {"dataset_source": "other", "dataset_license": license_name, "groups": ["NOR"]}
    card = render_card("user/hearts", training, "hcm_hf")
    assert ModelCard(card).data.license == shown and "Bernard" not in card and "drawn patients" not in card
    assert "hypertrophic" not in card.split("## Limits")[0]


@pytest.mark.parametrize(("dataset", "license_name"), [("synthetic", "apache-2.0"), ("acdc-64", "cc-by-nc-sa-4.0")])
def test_a_run_that_noted_no_licence_is_taken_for_acdc_unless_it_says_synthetic(dataset, license_name):
    training = {key: value for key, value in TRAINING.items() if key != "dataset_source"} | {"dataset": dataset}
    assert ModelCard(render_card("user/hearts", training, "hcm_hf")).data.license == license_name


def test_a_stock_pipeline_says_how_diffusers_loads_it():
    card = render_card("user/hearts", TRAINING | {"family": "ddpm", "dataset_repository": "user/slices"}, "diffusers")
    assert 'DDPMPipeline.from_pretrained("user/hearts")' in card
    assert ModelCard(card).data.library_name == "diffusers" and ModelCard(card).data.datasets == "user/slices"
    assert "cannot find them" not in card and "cannot find them" in render_card("user/hearts", TRAINING, "hcm_hf")


def test_a_model_that_makes_masks_says_what_can_be_asked_for_and_what_that_means():
    training = TRAINING | {"family": "ddpm", "recipe": "tuned"}
    card = render_card("user/hearts", training, "hcm_hf", figures=("samples.png",), num_samples=32, axes=ACDC.axes)
    assert 'shown = {"group": "HCM", "phase": "ED", "level": "mid"}' in card and "output.masks" in card
    for axis, answers in ACDC.axes.items():
        assert f"| {axis} | {', '.join(answers)} |" in card and f"`{axis}`" in card
    assert "it is not a diagnosis" in card and "No doctor has drawn or seen them" in card and "2 mm per pixel" in card
    assert "DDPMPipeline.from_pretrained" not in card and "no segmentation" not in card
    other = render_card("user/hearts", training, "hcm_hf")
    assert "output.masks" not in other and "no segmentation" in other


def test_a_student_names_its_teacher_and_counts_patients_once():
    patients = TRAINING["train_patients"] | {
        f"teacher:{name}": key for name, key in TRAINING["train_patients"].items()
    }
    training = TRAINING | {"family": "ddpm", "recipe": "distilled", "train_patients": patients}
    training |= {"teacher": "user/tuned", "teacher_hash": "0123456789abcdef"}
    card = render_card("user/hearts", training, "hcm_hf", axes=ACDC.axes)
    assert ModelCard(card).data.base_model == "user/tuned"
    assert "| teacher | user/tuned |" in card and "| teacher_hash | 0123456789abcdef |" in card
    assert "262 slices of 2 patients" in card and "moment matching" in card


def test_the_dataset_card_describes_splits_and_columns(dataset_dir):
    splits = hcm_hf.load_dataset(dataset_dir)
    preparation = json.loads((dataset_dir / "preparation.json").read_text())
    files = {name: (f"data/{name}.parquet", 1000) for name in splits}
    card = render_dataset_card("user/slices", preparation, splits, files)
    data = DatasetCard(card).data.to_dict()
    assert data["license"] == "apache-2.0" and data["configs"][0]["data_files"][0]["path"] == "data/train.parquet"
    assert {feature["name"] for feature in data["dataset_info"]["features"]} == set(splits["train"].features)
    examples = {split["name"]: split["num_examples"] for split in data["dataset_info"]["splits"]}
    assert examples == {name: len(split) for name, split in splits.items()}
    assert "| train | HCM |" in card and 'datasets.load_dataset("user/slices")' in card and "{{" not in card
    own = render_dataset_card("user/slices", preparation | {"source": "other"}, splits, files)
    assert "patients of cohorts that the column `cohort` names" in own and "creatis" not in own
    assert "Ask those who own them before you share it" in own and "the cohort's; groups HCM, NOR" in own
    real = render_dataset_card("user/slices", preparation | {"source": "acdc"}, splits, files)
    assert "license: cc-by-nc-sa-4.0" in real and "10.1109/TMI.2018.2837502" in real
    for source, tagged in (("acdc", False), ("synthetic", True), ("generated", True)):
        written = preparation | {"source": source, "generator": {"model": "user/hearts", "seed": 0}}
        tags = DatasetCard(render_dataset_card("user/slices", written, splits, files)).data.tags
        assert ("synthetic-data" in tags) == tagged


def test_every_place_that_names_the_package_s_source_names_the_same():
    root = Path(__file__).parents[2]
    files = ["setup.cfg", "CITATION.cff", "src/hcm_hf/metrics/slice_similarity/slice_similarity.py"]
    files += [f"spaces/{space}/{name}" for space in ("hcm-generator", "slice-similarity") for name in SPACE_TEXTS]
    for name in files:
        addresses = set(re.findall(r"https://github\.com/[\w/-]+", (root / name).read_text()))
        assert addresses == {SOURCE_URL}, name
    card = render_card("user/hearts", TRAINING, "hcm_hf")
    assert INSTALL in card and SOURCE_URL in INSTALL and "pip install hcm_hf" not in card


def test_text_of_others_is_text_in_a_card():
    training = TRAINING | {"dataset": "<form action=x>\n# heart", "dataset_source": "other", "dataset_license": "<b>"}
    card = render_card("user/hearts", training, "hcm_hf")
    assert "<form" not in card and "&lt;form action=x&gt; # heart" in card and "<b>" not in card


def test_text_in_a_report_is_text_in_a_card(report):
    odd = replace(report, generator=replace(report.generator, classes=["<form>"]))
    card = render_card("user/hearts", TRAINING, "hcm_hf", odd)
    assert "<form>" not in card and "class &lt;form&gt;" in card


def test_a_family_without_a_paragraph_is_named():
    with pytest.raises(InputError, match="'stylegan' has no paragraph in model_cards; add stylegan.md"):
        render_card("user/hearts", TRAINING | {"family": "stylegan"}, "hcm_hf")
