"""The papers that cards, licences and methods sections cite: `model_cards/references.bib` is their one source."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


_FILE = Path(__file__).parents[1] / "model_cards" / "references.bib"
_ENTRY = re.compile(r"@\w+\{(?P<key>\w+),\n.*?\n\}", re.DOTALL)
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},?$", re.MULTILINE)
_PAPER = re.compile(r"huggingface\.co/papers/(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Reference:
    """A paper.

    Attributes:
        key: by which it is cited.
        bibtex: its entry.
        fields: of the entry, by name.
    """

    key: str
    bibtex: str
    fields: dict[str, str]

    def in_words(self) -> str:
        """The reference as a sentence without its full stop, for licences and cards; of an article with its pages."""
        people = self.fields["author"].split(" and ")
        names = ["et al." if one == "others" else " ".join(reversed(one.split(", "))) for one in people]
        title, journal = self.fields["title"], self.fields["journal"]
        ended = title if title.endswith("?") else f"{title}."
        place = f"{journal} {self.fields['volume']}({self.fields['number']})"
        pages = self.fields["pages"].replace("--", "-")
        return f"{', '.join(names)} {ended} {place}, {pages}, {self.fields['year']}, doi {self.fields['doi']}"


@cache
def read_references() -> dict[str, Reference]:
    """All references by key."""
    found = _ENTRY.finditer(_FILE.read_text(encoding="utf-8"))
    entries = [(entry["key"], entry.group(), dict(_FIELD.findall(entry.group()))) for entry in found]
    return {key: Reference(key, bibtex, fields) for key, bibtex, fields in entries}


def cited_in(text: str) -> list[str]:
    """The keys of the papers to which a text links by their page on the Hugging Face Hub, in its order.

    Raises:
        KeyError: if `references.bib` lacks one of them; names its arXiv number.
    """
    by_number = {one.fields["eprint"]: one.key for one in read_references().values() if "eprint" in one.fields}
    return [by_number[number] for number in dict.fromkeys(_PAPER.findall(text))]


def bibtex(keys: Iterable[str]) -> str:
    """The BibTeX entries of keys, in the order of `references.bib`."""
    wanted = set(keys)
    return "\n\n".join(one.bibtex for key, one in read_references().items() if key in wanted) + "\n"


ACDC_CITATION = read_references()["bernard2018"].in_words()
