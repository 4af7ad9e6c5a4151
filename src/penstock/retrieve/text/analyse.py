"""From a text to the words that count in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from penstock.retrieve.text.porter import stem

STOP_WORDS = frozenset(
    [
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
        "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
        "will", "with",
    ]
)  # fmt: skip
"""Words that say nothing of what a text is about: Lucene's list for English."""
MOST_BYTES = 32
"""Of a word, as it is kept; what is longer is told apart by its beginning."""
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class Analyser:
    """Lower case, without accents, in words of letters and digits, without stop words, as stems.

    A possessive 's is left out, other apostrophes are. A number keeps the dot or comma inside it.

    Args:
        stems: whether words lose their English endings (Porter).
        stops: whether stop words are left out.

    >>> Analyser().terms("The Chef's Knives, 2.5 mm: sautéed")
    ['chef', 'knive', '2.5', 'mm', 'saute']
    """

    stems: bool = True
    stops: bool = True

    def words(self, text: str) -> list[str]:
        """Every word of a text, in order, stop words included.

        >>> Analyser().words("Kids' Crème-brûlée set")
        ['kids', 'creme', 'brulee', 'set']
        """
        if not text.isascii():
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return [_trimmed(word) for word in _WORD.findall(text.casefold())]

    def terms(self, text: str) -> list[str]:
        """What a text is found by, in order."""
        return [self.term(word) for word in self.words(text) if self.counts(word)]

    def counts(self, word: str) -> bool:
        """Whether a word says something."""
        return not (self.stops and word in STOP_WORDS)

    @property
    def term(self) -> Callable[[str], str]:
        """A word's term: its stem, or itself."""
        return stem if self.stems else str


def _trimmed(word: str) -> str:
    if "'" in word or "’" in word:
        word = word.replace("’", "'").removesuffix("'s").replace("'", "")
    # Cut at a character, so that what is kept can be read again.
    return word if len(word) <= MOST_BYTES // 4 else word.encode()[:MOST_BYTES].decode(errors="ignore")
