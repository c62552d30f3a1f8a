from pathlib import Path

import pytest

from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.citations import ACDC_CITATION, bibtex, cited_in, read_references


CARDS = Path(__file__).parents[2] / "model_cards"
CITATION_FILE = Path(__file__).parents[2] / "CITATION.cff"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_that_cards_link_to_have_entries(family):
    paragraphs = list(CARDS.glob(f"{family}*.md"))
    assert paragraphs
    for path in paragraphs:
        cited = cited_in(path.read_text())
        assert cited and all(f"{{{key}," in bibtex(cited) for key in cited)


def test_a_paper_without_an_entry_is_named():
    with pytest.raises(KeyError, match="9912.00001"):
        cited_in("([Nobody 2099](https://huggingface.co/papers/9912.00001))")


def test_the_citation_in_words_is_the_one_that_licences_carry():
    assert ACDC_CITATION == (
        "O. Bernard, A. Lalande, C. Zotti, F. Cervenansky, et al. Deep Learning Techniques for Automatic MRI Cardiac "
        "Multi-structures Segmentation and Diagnosis: Is the Problem Solved? IEEE Transactions on Medical Imaging "
        "37(11), 2514-2525, 2018, doi 10.1109/TMI.2018.2837502"
    )
    packed = Path(__file__).parents[2] / "pretrained" / "hcm-dcgan-64" / "LICENSE"
    assert ACDC_CITATION in packed.read_text()


def test_the_citation_file_names_the_same_papers():
    text = CITATION_FILE.read_text()
    for key in ("bernard2018", "rayavarapu2025"):
        assert read_references()[key].fields["doi"] in text and read_references()[key].fields["title"] in text
