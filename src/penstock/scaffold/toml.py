"""A guessed mapping as TOML: each part with its reason, what is unsure marked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Mapping as ReadOnly

from penstock.events.mapping import Csv, Source, Spread, Time
from penstock.scaffold.guess import Guess
from penstock.scaffold.roles import Found

_WIDTH = 44


def mapping_toml(guess: Guess, file: str) -> str:
    """The text of a mapping file; `Mapping.parse` gives the guess's own mapping again."""
    mapping = guess.mapping
    lines = [
        f"# How the columns of {file} become events, guessed from its first {guess.rows:,} rows.",
        '# "?" marks what is worth a look. Every key is in the documentation of mappings.',
        f"stream = {_value(mapping.stream)}",
    ]
    if mapping.id:
        lines.append(_line("id", list(mapping.id), "different in each row: the same event twice counts once"))
    lines += [*_csv(mapping.csv), "", "[time]", *_time(mapping.time, guess.found["time"])]
    if mapping.filter is not None:
        lines += ["", "[filter]", _line("keep", mapping.filter.keep, "rows without these cannot be events")]
    lines += ["", "[fields]"]
    tables = []
    for name in mapping.fields:
        source, found = mapping.fields[name], guess.found.get(name)
        if isinstance(source, Source) and source.map is not None:
            tables += ["", *_mapped(name, source, found)]
        else:
            given = source if isinstance(source, str) else _given(source)
            lines.append(_line(name, given, *_why(found)))
    return "\n".join([*lines, *tables]) + "\n"


def _csv(look: Csv) -> Iterator[str]:
    parts = {
        "separator": look.separator, "header": None if look.header else False, "columns": list(look.columns),
        "encoding": None if look.encoding == "utf-8" else look.encoding, "missing": list(look.missing),
    }  # fmt: skip
    given = {name: value for name, value in parts.items() if value not in (None, [])}
    if given:
        yield from ("", "[csv]", *(_line(name, value) for name, value in given.items()))


def _time(time: Time, found: Found) -> Iterator[str]:
    yield _line("columns", list(time.columns), found.why)
    if time.unit != "auto":
        yield _line("unit", time.unit, *(f"? {doubt}" for doubt in found.doubts))
    if time.format is not None:
        zone = [doubt for doubt in found.doubts if "zone" in doubt]
        yield _line("format", time.format, *(f"? {doubt}" for doubt in found.doubts if doubt not in zone))
        yield _line("zone", time.zone, *(f"? {doubt}" for doubt in zone))
    if time.order:
        yield _line("order", list(time.order), "within a day")
    if time.spread is not None:
        yield _line("spread", _spread(time.spread), "the visits of a day one after the other")


def _spread(spread: Spread) -> ReadOnly[str, object]:
    return {"order": spread.order, "by": spread.by, "step": spread.step}


def _mapped(name: str, source: Source, found: Found | None) -> Iterator[str]:
    yield f"[fields.{_key(name)}]"
    yield _line("column", source.column, *_why(found))
    yield f"[fields.{_key(name)}.map]"
    yield from (f"{_key(word)} = {_value(meant)}" for word, meant in (source.map or {}).items())


def _given(source: Source) -> ReadOnly[str, object]:
    parts = {"column": source.column, "constant": source.constant, "sql": source.sql, "round": source.round or None}
    return {name: value for name, value in parts.items() if value is not None}


def _why(found: Found | None) -> tuple[str, ...]:
    return () if found is None else (found.why, *(f"? {doubt}" for doubt in found.doubts))


def _line(key: str, value: object, *comments: str) -> str:
    text = f"{_key(key)} = {_value(value)}"
    return f"{text:<{_WIDTH}}  # {'; '.join(comments)}" if comments else text


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _value(text)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # TOML's quoted texts and its booleans are written as JSON's.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
