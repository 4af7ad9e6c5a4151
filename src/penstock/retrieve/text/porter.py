"""English words without their endings: Porter, "An algorithm for suffix stripping" (Program 14(3), 1980)."""

from __future__ import annotations

import re
from functools import lru_cache

# A word is [C](VC)^m[V]: C stands for consonants in a row, V for vowels, and m is the word's measure. A y is a vowel
# after a consonant; at the beginning of a word it is written Y here.
_C, _V = "[^aeiou][^aeiouy]*", "[aeiouy][aeiou]*"
_SOME = re.compile(f"^(?:{_C})?{_V}{_C}")
_ONE = re.compile(f"^(?:{_C})?{_V}{_C}(?:{_V})?$")
_MANY = re.compile(f"^(?:{_C})?{_V}{_C}{_V}{_C}")
_VOWEL = re.compile(f"^(?:{_C})?[aeiouy]")
_DOUBLE = re.compile(r"([^aeiouylsz])\1$")
_SHORT = re.compile(f"^{_C}[aeiouy][^aeiouwxy]$")
_WORD = re.compile(r"[a-z]{3,}")

_SECOND = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_THIRD = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_FOURTH = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


def _longest(endings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"^(.+?)({'|'.join(sorted(endings, key=len, reverse=True))})$")


_ENDS_SECOND, _ENDS_THIRD, _ENDS_FOURTH = _longest(tuple(_SECOND)), _longest(tuple(_THIRD)), _longest(_FOURTH)


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of a lower-case word. What is not made of the letters a to z, or of fewer than three, stays as it is.

    >>> [stem(word) for word in ("lamps", "running", "relational", "happy", "no2", "is")]
    ['lamp', 'run', 'relat', 'happi', 'no2', 'is']
    """
    if not _WORD.fullmatch(word):
        return word
    word = "Y" + word[1:] if word[0] == "y" else word
    word = _third(_second(_y(_past(_plural(word)))))
    return _e(_fourth(word)).replace("Y", "y")


def _plural(word: str) -> str:
    """Step 1a."""
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    """Step 1b."""
    if word.endswith("eed"):
        return word[:-1] if _SOME.match(word[:-3]) else word
    cut = 2 if word.endswith("ed") else 3 if word.endswith("ing") else 0
    if not cut or not _VOWEL.match(word[:-cut]):
        return word
    word = word[:-cut]
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _DOUBLE.search(word):
        return word[:-1]
    return word + "e" if _SHORT.match(word) else word


def _y(word: str) -> str:
    """Step 1c."""
    return word[:-1] + "i" if word.endswith("y") and _VOWEL.match(word[:-1]) else word


def _second(word: str) -> str:
    found = _ENDS_SECOND.match(word)
    return found[1] + _SECOND[found[2]] if found and _SOME.match(found[1]) else word


def _third(word: str) -> str:
    found = _ENDS_THIRD.match(word)
    return found[1] + _THIRD[found[2]] if found and _SOME.match(found[1]) else word


def _fourth(word: str) -> str:
    found = _ENDS_FOURTH.match(word)
    if found is None or not _MANY.match(found[1]):
        return word
    return word if found[2] == "ion" and found[1][-1] not in "st" else found[1]


def _e(word: str) -> str:
    """Step 5."""
    if word.endswith("e"):
        rest = word[:-1]
        if _MANY.match(rest) or (_ONE.match(rest) and not _SHORT.match(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _MANY.match(word) else word
