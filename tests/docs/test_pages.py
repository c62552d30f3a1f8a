"""Numbers of the pages and of the READMEs are those of the files of results."""

import re
from pathlib import Path

import pages
import pytest
from jinja2 import UndefinedError

from hcm_hf import cli


ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.es.md"]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts)
# They hold numbers of trials that were measured by hand, and say so.
RECORDS = {"diffusion.md", "tuning.md", "costs.md"}
DECIMAL = re.compile(r"(?<![\w.\-/])-?\d+\.\d+(?![\w.]|-\d)")
# Settings, versions, examples, and what the study or a definition says: no results of ours.
TOLD = {
    "README.md": {"4.0", "0.9"},
    "README.es.md": {"4.0", "0.9"},
    "acdc.md": {"4.0"},
    "grain.md": {"0.5", "0.019", "0.97", "2.45"},  # the last two by hand, as the page says
    "memorisation.md": {"0.580", "0.014"},  # by hand, as the page says
    "numbers.md": {"0.5"},
    "results.md": {"1.5"},
    "study.md": {
        *("0.903", "0.972", "0.842", "0.940", "0.06", "0.39", "0.9", "0.1", "0.3", "0.65", "1.11", "0.5"),  # the study
        *("0.999", "0.02", "0.0256", "0.1", "4.3", "35.7", "99.5", "3.4", "0.9999"),  # settings
    },
    "usefulness.md": {"0.5", "0.7"},
}


def prose(text):
    """A page without code, links' addresses and what its template fills in."""
    for pattern in (
        r"```.*?```",
        r"`[^`]*`",
        r"doi 10\.\S+",
        r"Python 3\.\d+",
        r"\]\([^)]*\)",
        r"\{\{.*?\}\}",
        r"\{%.*?%\}",
    ):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_a_readme_has_the_numbers_of_the_files(path):
    text = path.read_text()
    assert text.count("<!--{{") == text.count("<!---->") > 4
    assert pages.fill(text) == text, f"run python docs/pages.py {path.name}"
    assert set(DECIMAL.findall(prose(pages.unmarked(text)))) <= TOLD[path.name]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_a_readme_fits_on_a_screen_and_a_half_and_its_links_lead_somewhere(path):
    text = path.read_text()
    assert len(text.encode()) <= 9000
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    inline = [line for line in text.splitlines() if line.startswith("<!--") and not line.endswith("-->")]
    assert not inline  # such a line would be no part of its paragraph


def test_both_readmes_say_the_same():
    english, spanish = (path.read_text() for path in READMES)
    for pattern in (r"\]\((?!README)([^)]+)\)", r"```python\n.*?```", r"<!--\{\{(?!families)(.+?)\}\}-->", r"^#+ "):
        found = [re.findall(pattern, text, re.DOTALL | re.MULTILINE) for text in (english, spanish)]
        comments = [[re.sub(r"  # .*", "", one) for one in texts] for texts in found]
        assert comments[0] == comments[1] and comments[0]
    assert abs(len(english.encode()) - len(spanish.encode())) < 1000


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_filled_and_holds_no_number_of_its_own(path):
    text = path.read_text()
    filled = text if path.name == "commands.md" else pages.render(text)
    assert not re.search(r"\{\{|\}\}|\bnan\b", re.sub(r"`[^`]*`", "", filled)) or path.name == "commands.md"
    if path.name not in RECORDS:
        assert set(DECIMAL.findall(prose(text))) <= TOLD.get(path.name, set())


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ('{{ number("acdc-64-paper/dcgan", "no_such_number") }}', KeyError),
        ('{{ value("acdc-64-paper/none.json", "rows") }}', FileNotFoundError),
        ('{{ scored("dcgan", "tuned", "kid_acdc", calls=7) }}', KeyError),
        ('{{ planted("no such fault", "kid_acdc") }}', KeyError),
        ("{{ no_such_function() }}", UndefinedError),
    ],
)
def test_what_no_file_holds_ends_the_build(template, error):
    with pytest.raises(error):
        pages.render(template)


def test_numbers_are_written_as_the_files_have_them():
    assert pages.number("acdc-64-pretrained/dcgan", "kid_imagenet") == "2.15 [2.07, 2.39]"
    assert pages.value("acdc-64-pretrained/dcgan/report.json", "n_generated") == "1,000"
    assert pages.scored("ddpm", "tuned", "kid_acdc", 20, interval=False) == "0.29"
    assert pages.seeds("acdc-64-tuned/tuned.json", "sde-dpmsolver++-20", "kid_acdc") == "0.29 [0.25, 0.31]"
    assert pages.families_table().count("\n") == 1 + 6 + 1


def test_the_reference_of_commands_has_each_with_its_flags():
    text = pages.commands()
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == [name.replace("_", "-") for name in cli.COMMANDS]
    assert "--wall" in text and "\x1b" not in text and "--num_images" in text


def test_the_references_of_formats_name_every_field():
    for text, names in (
        (pages.report_schema(), ("n_heldout_patients", "protocol", "seconds_per_1000_images", "model_hash")),
        (pages.dataset_schema(), ("image", "volume_sha256", "pixel_spacing", "cohort")),
        (pages.preparation_schema(), ("split_rule", "left_out")),
        (pages.meanings("numbers", "protocols", "rows"), ("copy_rate", "best_train", "similarity")),
        (pages.cards(), ("Paired AC-GAN", "recipe `crisp`", "recipe `paper`")),
        (pages.api(), ("hcm_hf.pipelines.auto.HCMPipeline", "hcm_hf.training.loop.train")),
    ):
        assert all(name in text for name in names)


def test_pages_that_are_only_parsed_are_pages():
    assert all((ROOT / name).exists() or (ROOT / "docs" / name).exists() for name in pages.PARSED_ONLY)


@pytest.mark.parametrize("path", [*READMES, *PAGES], ids=lambda path: path.name)
def test_commands_named_in_a_sentence_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for name in re.findall(r"`hcm-hf ([a-z][a-z_-]*)", text):
        assert name.replace("-", "_") in cli.COMMANDS, name
    for name in re.findall(r"`(?:python )?(?:scripts/)?(\w+)\.py\b", text):
        assert (ROOT / "scripts" / f"{name}.py").is_file() or name in ("inspect", "NAME", "pages"), name
    for target in re.findall(r"`make (\w+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
