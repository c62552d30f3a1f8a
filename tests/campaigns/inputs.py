"""Inputs that are nearly good: edits of files' bytes, text and JSON, drawn by hypothesis."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st


# What people, spreadsheets and attackers put where something else belongs.
ODD_TEXTS = (
    *("", " ", "nan", "-inf", "1e999", "0", "-1", "1.5", "1,5", "ED", "es", "None", "null", "true", "\x00", "\ud800"),
    *("../../etc/passwd", "/etc/passwd", "CON", "a/b", "\\", "x" * 5000, "\x1b[2J", "é\u202e", "99999999999999999999"),
    *('"', "'", "{}", "{0}", "%s", "\n", "\r\n", ";", "\t", "٣"),
)
_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31, 2**63, -(2**63), 10**12, 10**400, 0.5, -0.0, 1e-300, 1e308, 5e-324)
_FEW = st.sampled_from([1, 1, 1, 2, 4])  # edits of one input
ODD_NUMBERS = (*_NUMBERS, float("nan"), float("inf"), float("-inf"))


def odd_values() -> st.SearchStrategy:
    """Anything that JSON may hold, and strange constants more often than not."""
    plain = st.one_of(
        st.sampled_from([None, True, False, *ODD_NUMBERS, *ODD_TEXTS]),
        st.integers(-1000, 1000),
        st.floats(),
        st.text(max_size=8),
    )
    nested = st.recursive(
        plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner))
    )
    many = st.builds(lambda value, count: [value] * count, plain, st.sampled_from([0, 1, 2, 11, 1001, 20_000]))
    return st.one_of(plain, nested, many)


@st.composite
def edited_json(draw: Any, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, doubled or taken from elsewhere in it."""
    value = deepcopy(value)
    for _ in range(draw(_FEW)):
        places = list(_places(value))
        if not places:
            return draw(odd_values())
        container, key = places[draw(st.integers(0, len(places) - 1))]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "swap", "scale", "add"]))
        if what == "remove":
            del container[key]
        elif what == "swap":
            other, elsewhere = places[draw(st.integers(0, len(places) - 1))]
            container[key] = deepcopy(other[elsewhere])
        elif what == "scale" and isinstance(container[key], int | float):
            container[key] = container[key] * draw(st.sampled_from([-1, 2, 3, 0.5, 1000, 10**9]))
        elif what == "add" and isinstance(container, dict):
            container[draw(st.text(max_size=6))] = draw(odd_values())
        else:
            container[key] = draw(odd_values())
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def json_bytes(value: Any) -> bytes:
    """As a careless program writes it: with NaN, and lone surrogates as escapes."""
    return json.dumps(value).encode()


@st.composite
def edited_bytes(draw: Any, data: bytes, places: tuple[int, ...] = ()) -> bytes:
    """Bytes with one to four edits: bits flipped, cut short, bytes put in, taken out, repeated or set.

    `places` are offsets that matter, such as those of fields in a header; half of the edits are there.
    """
    edited = bytearray(data)
    for _ in range(draw(_FEW)):
        if not edited:
            break
        anywhere = st.integers(0, len(edited) - 1)
        place = draw(st.one_of(st.sampled_from(places), anywhere) if places else anywhere) % len(edited)
        what = draw(st.sampled_from(["flip", "flip", "set", "set", "cut", "insert", "remove", "repeat"]))
        if what == "flip":
            edited[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            new = draw(
                st.one_of(
                    st.sampled_from([b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff", b"\xff\x7f", b"\0\0\x80\x7f"]),
                    st.binary(min_size=1, max_size=8),
                )
            )
            edited[place : place + len(new)] = new
        elif what == "cut":
            del edited[place:]
        elif what == "insert":
            edited[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif what == "remove":
            del edited[place : place + draw(st.integers(1, 32))]
        else:
            edited[place:place] = edited[place : place + draw(st.integers(1, 64))]
    return bytes(edited)


@st.composite
def edited_table(draw: Any, text: str, separators: str = ",;\t:\n") -> bytes:
    """A text of fields with one to four of them replaced, or edited as bytes."""
    if draw(st.booleans()):
        return draw(edited_bytes(text.encode()))
    fields, current = [], ""
    for letter in text:
        if letter in separators:
            fields += [current, letter]
            current = ""
        else:
            current += letter
    fields.append(current)
    for _ in range(draw(_FEW)):
        place = draw(st.integers(0, len(fields) - 1))
        fields[place] = draw(
            st.one_of(st.sampled_from(ODD_TEXTS), st.sampled_from(fields), st.text(max_size=6), st.just(""))
        )
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return "".join(fields).encode(encoding, errors="surrogatepass" if encoding != "latin-1" else "replace")
