"""How decisions are split: into bins and tenths of a count, the commonest values of a text, and kinds of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from penstock.types import Array


def binned(counts: Array, edges: Sequence[int] = (1, 5, 20, 100)) -> NDArray[np.str_]:
    """Labels for counts (n,): below the first edge, between each two, and from the last on; (n,) text.

    `edges` rise and start at 1 or more.

    >>> binned(np.array([0, 1, 7, 500]), (1, 5, 20)).tolist()
    ['0', '1 to 4', '5 to 19', '20 or more']
    """
    stops = [0, *edges]
    names = [_span(start, stop - 1) for start, stop in pairwise(stops)]
    return np.array([*names, f"{stops[-1]} or more"])[np.searchsorted(edges, counts, side="right")]


def tenths(counts: Array) -> NDArray[np.str_]:
    """Labels for counts (n,) by decile: a tenth of the rows in each, from the rarest to the commonest; (n,) text.

    Equal counts stay together, so tenths may be unequal and some of them absent.

    >>> tenths(np.array([1, 1, 5, 9])).tolist()
    ['decile 3 (1)', 'decile 3 (1)', 'decile 7 (5)', 'decile 9 (9)']
    """
    levels, which, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    middle = (np.cumsum(sizes) - sizes / 2) / max(len(which), 1)
    tenth = np.minimum((middle * 10).astype(np.int64), 9)
    names = []
    for one in tenth.tolist():
        inside = levels[tenth == one]
        names.append(f"decile {one + 1} ({_span(int(inside[0]), int(inside[-1]))})")
    return np.array(names, dtype=np.str_)[which]


def top_values(texts: Sequence[str], most: int = 8) -> NDArray[np.str_]:
    """The commonest values as their own labels, and the rest as ``other``; (n,) text. Empty ones are ``none``.

    >>> top_values(["de", "de", "fr", "at", ""], 2).tolist()
    ['de', 'de', 'other', 'at', 'none']
    """
    sizes = Counter(text for text in texts if text)
    kept = {text for text, _ in sorted(sizes.items(), key=lambda one: (-one[1], one[0]))[:most]}
    return np.array([text if text in kept else "other" if text else "none" for text in texts], dtype=np.str_)


def query_type(text: str | None) -> str:
    """What kind of search a query is: ``empty``, ``code`` (something in it has a digit), ``one word`` or
    ``several words``.

    Kinds ask for different things: codes for the very item, one word for a choice, several for a description.

    >>> [query_type(text) for text in ("", " kettle", "steel kettle", "wk-300 filter")]
    ['empty', 'one word', 'several words', 'code']
    """
    words = (text or "").split()
    if not words:
        return "empty"
    if any(letter.isdigit() for word in words for letter in word):
        return "code"
    return "one word" if len(words) == 1 else "several words"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
