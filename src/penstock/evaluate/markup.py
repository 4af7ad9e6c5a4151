"""HTML and SVG by construction: text is escaped because it is not markup, never because one remembered to."""

from __future__ import annotations

from html import escape

_VOID = {"meta", "br", "img", "input", "link"}


class Markup(str):
    """Text that is already HTML; every other string is escaped when it enters a tag."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int | float | None) -> Markup:
    """One element. Attributes that are none are left out; `class_` means class and `_` in a name means `-`.

    >>> tag("p", "1 < 2", tag("b", "&"), class_="note", aria_label=None)
    '<p class="note">1 &lt; 2<b>&amp;</b></p>'
    """
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    opening = f"<{name}{''.join(pairs)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Parts one after the other; plain ones are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))
