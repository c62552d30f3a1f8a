import re
from pathlib import Path

import pytest
from tiny import build_tiny, save_run

from hcm_hf.data.identity import count_patients
from hcm_hf.evaluation.report import Report
from hcm_hf.evaluation.tables import cell
from hcm_hf.hub.methods import methods, render_methods
from hcm_hf.hub.repository import find_model
from hcm_hf.pipelines.auto import read_training
from hcm_hf.utils.citations import bibtex, read_references
from hcm_hf.utils.errors import InputError


PRETRAINED = Path(__file__).parents[2] / "pretrained"
SETTINGS = {"learning_rate": 2e-4, "train_batch_size": 32, "num_epochs": 3, "seed": 0}


@pytest.fixture(scope="module", params=["hcm-dcgan-64", "hcm-acgan-64"])
def written(request, tmp_path_factory):
    """The methods section of a model that comes with the package, as the command writes it."""
    folder = tmp_path_factory.mktemp("methods") / "section"
    printed = methods(request.param, output_dir=folder)
    return (
        PRETRAINED / request.param,
        (folder / "methods.md").read_text(),
        (folder / "references.bib").read_text(),
        printed,
    )


def test_the_section_says_what_the_run_and_the_report_noted(written):
    folder, text, entries, printed = written
    training, report = read_training(folder), Report.load(folder / "metrics.json")
    betas, progress, environment = training["adam_betas"], training["progress"], training["environment"]
    for fact in (
        f"trained on {training['num_train_slices']:,} slices of {count_patients(training['train_patients'])} patients",
        f"(groups {', '.join(training['groups'])})",
        f"{training['resolution']} x {training['resolution']} pixels",
        "2 mm, cropped to 128 mm",
        f"family `{training['family']}`, recipe `{training['recipe']}` of hcm_hf {training['version']}",
        f"learning rate {training['learning_rate']:g}, betas {betas[0]} and {betas[1]}",
        f"at most {training['num_epochs']} epochs, seed {training['seed']}",
        f"step {progress['best_step']:,}, at which the loss on validation patients was lowest",
        f"{report.n_generated:,} images were generated",
        f"with {report.n_heldout} slices of {report.n_heldout_patients} held-out patients",
        f"(split {report.dataset.split}, groups {', '.join(report.dataset.groups)})",
        f"{report.n_heldout_patients} held-out patients are too few",
        f"| kid_acdc | {cell(report.rows['generated']['kid_acdc'], 'kid_acdc')} "
        f"| {cell(report.rows['real']['kid_acdc'], 'kid_acdc')} |",
        f"torch {environment['packages']['torch']}",
    ):
        assert fact in text, fact
    assert not re.search(r"{{|}}|{%|\bNone\b|\bnan\b", text)
    assert text in printed and entries in printed


def test_each_citation_has_its_entry_and_no_entry_is_left_over(written):
    _, text, entries, _ = written
    cited = set(re.findall(r"@(\w+)", text))
    assert "bernard2018" in cited and cited == set(re.findall(r"^@\w+\{(\w+),", entries, re.MULTILINE))
    assert entries == bibtex(cited)


def test_patients_that_chose_the_weights_are_not_passed_off_as_unseen():
    chosen = "The weights were chosen by their loss on these same patients."
    assert chosen in methods("hcm-acgan-64") and chosen not in methods("hcm-dcgan-64")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("synthetic", "drawn patients"),
        ("generated", "another generative model had made"),
        ("other", "Describe the cohort"),
    ],
)
def test_only_models_of_acdc_cite_it(source, shown, tmp_path):
    run = save_run(tmp_path / "run", build_tiny("dcgan"), dataset_source=source, **SETTINGS)
    text, keys = render_methods(find_model(run))
    assert shown in text and "Not evaluated yet" in text
    assert "bernard2018" not in keys and "radford2016" in keys and "None" not in text


def test_a_report_on_another_model_is_refused_and_a_full_folder_kept(tmp_path):
    with pytest.raises(InputError, match="is about another model"):
        methods("hcm-acgan-64", report=PRETRAINED / "hcm-dcgan-64" / "metrics.json", output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="output_dir .* holds something else"):
        methods("hcm-dcgan-64", output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_all_references_are_whole():
    for reference in read_references().values():
        assert {"author", "title", "year"} <= set(reference.fields), reference.key
        assert reference.bibtex.count("{") == reference.bibtex.count("}"), reference.key
