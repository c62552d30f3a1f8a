"""Tables of numbers in Markdown, for reports, cards and the study."""

from collections.abc import Mapping, Sequence

from hcm_hf.metrics.bootstrap import Number


COUNTED = ("segmented", "asked", "measured")  # protocols whose numbers are of different slices: with a count
_DIGITS = {"mse": 4, "wall": 1, "rv": 0, "myocardium": 0, "lv": 0, "fd": 1, "relative": 2}  # by how a name begins
_DIGITS |= {"mask_wall_thickness": 1, "mask_wall_distance": 2}


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: the title of each column.
        lines: the cells of each line.
    """
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def number_table(rows: Mapping[str, Mapping[str, Number]], names: Sequence[str]) -> str:
    """A table with a line for each number's name, and a column for each row of a report that has one of them."""
    labels = [label for label, row in rows.items() if any(name in row for name in names)]
    return markdown_table(
        ["", *labels], [[name, *(cell(rows[label].get(name), name) for label in labels)] for name in names]
    )


def cell(number: Number | None, name: str) -> str:
    """A number with its interval, in as many digits as its kind deserves; empty where there is none."""
    if number is None:
        return ""
    if number.value is None:
        return "too few"
    digits = next((digits for start, digits in _DIGITS.items() if name.startswith(start)), 3)
    value, low, high = (f"{one:.{digits}f}" for one in (number.value, number.low, number.high))
    counted = f", n = {number.n_generated}" if number.protocol in COUNTED else ""
    return f"{value} [{low}, {high}]{counted}"


def brief(seconds: float) -> str:
    """Seconds in three digits or more, never as a power of ten."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"
