"""A mapping guessed from the first rows of a file, with the reasons for each part of it."""

from __future__ import annotations

import keyword
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from penstock.clock import DAY
from penstock.errors import MappingError
from penstock.events.mapping import Filter, Mapping, Source, Spread, Time
from penstock.events.schema import RESERVED
from penstock.scaffold.roles import Found, Roles
from penstock.scaffold.sample import Sample
from penstock.scaffold.times import When, moments, when
from penstock.scaffold.words import EVENT_ID, KINDS, MEASURES, PLACE, fit, identifier, tokens

STREAM = "action"
MOST_EXTRAS = 20
"""Further columns that become fields; each costs room in the log."""
_LONGEST = 200
_SPANS = (1, 2, 7, 14, 30)
_LABELS_A_SPAN = 200


@dataclass(frozen=True)
class Extra:
    """A further column, as an optional field of the Python type `type`."""

    column: str
    type: str


@dataclass(frozen=True)
class Guess:
    """What a file seems to hold.

    Attributes:
        mapping: how its columns become events.
        found: field → where it comes from and why; `time` among them.
        extras: further fields.
        kinds: what a kind of action may be.
        goal: the kind of action that the decision is to lead to.
        days: how many days hold enough of it to choose a ranker by.
        left: columns that became nothing.
        rows: how many rows were looked at.
    """

    mapping: Mapping
    found: ReadOnly[str, Found]
    extras: ReadOnly[str, Extra]
    kinds: tuple[str, ...]
    goal: str
    days: int
    left: tuple[str, ...]
    rows: int


def guess(sample: Sample) -> Guess:
    """The mapping of a file that holds who did what with which item, and when.

    Raises:
        MappingError: no column says when, or who, or which item.
    """
    first = _guess(sample)
    if sample.headed:
        return first
    # Without a header the columns get the names of what they are.
    of = {part.column: name for name, part in first.found.items()}
    names = {name: of.get(name, name) for name in sample.frame.columns}
    look = msgspec.structs.replace(sample.look, columns=tuple(names.values()))
    return _guess(replace(sample, frame=sample.frame.rename(names), look=look))


def _guess(sample: Sample) -> Guess:
    frame = sample.frame
    moment = when(frame, sample.headed)
    if moment is None:
        raise _nothing("when it happened", sample)
    roles = Roles(frame, sample.headed, [name for name in frame.columns if name not in moment.time.columns])
    found = {"time": Found(" + ".join(moment.time.columns), Source(), moment.why, moment.doubts)}
    kind = roles.take(roles.kind())
    item = roles.take(roles.item())
    if item is None:
        raise _nothing("which item it was", sample)
    user = roles.take(roles.user(item.name))
    if user is None:
        raise _nothing("who it was", sample)
    found |= {"user": user, "item": item, "kind": kind}
    for name, part in (("category", roles.category(item.name)), ("price", roles.price())):
        if part is not None:
            found[name] = roles.take(part)
    extras, left = _extras(roles, found) if sample.headed else ({}, tuple(roles.free))
    plain = {name: part.source for name, part in found.items() if name != "time"}
    mapping = Mapping(
        stream=STREAM,
        fields={name: _plainly(source) for name, source in plain.items()}
        | {name: extra.column for name, extra in extras.items()},
        time=_time(moment, roles, user.name),
        id=_id(roles) if sample.headed else (),
        csv=sample.look,
        filter=_filter(frame, user.name, item.name),
    )
    kinds = tuple(dict.fromkeys([*KINDS, *(kind.source.map or {}).values()]))
    goal, share = _goal(kind, frame)
    return Guess(mapping, found, extras, kinds, goal, _days(moment, sample, share), left, len(frame))


def _plainly(source: Source) -> str | Source:
    """A column that is taken as it is, by its name alone."""
    return source.column if source.column is not None and source == Source(column=source.column) else source


def _nothing(what: str, sample: Sample) -> MappingError:
    return MappingError(
        f"a history has a column that says {what}",
        got=f"{', '.join(sample.frame.columns[:30])} in {sample.name}",
        remedy="rename a column (time, user, item), or start with penstock init alone and write mapping.toml by hand",
    )


def _extras(roles: Roles, found: ReadOnly[str, Found]) -> tuple[dict[str, Extra], tuple[str, ...]]:
    """What is left, as far as it says anything; and the names of the rest."""
    out: dict[str, Extra] = {}
    left = []
    taken = {*RESERVED, *found, "category", "price"}
    for name in roles.free:
        texts = roles.texts(name)
        # A column without a name is a row's number that was saved along.
        if not name.strip() or not len(texts) or texts.str.len_chars().gt(_LONGEST).any() or len(out) == MOST_EXTRAS:
            left.append(name)
            continue
        field = identifier(name)
        while keyword.iskeyword(field) or field in taken:
            field += "_"
        taken.add(field)
        out[field] = Extra(name, roles.type_of(name, bool(MEASURES & set(tokens(name)))))
    return out, tuple(left)


def _time(moment: When, roles: Roles, user: str) -> Time:
    """With only a day known, a column that counts within it spreads the rows over the day."""
    if not moment.form.days:
        return moment.time
    for name in roles.free:
        if fit(name, PLACE) >= 3:
            numbers = roles.texts(name).cast(pl.Int64, strict=False)
            if numbers.null_count() == 0 and len(numbers) and numbers.min() in (0, 1):
                spread = Spread(order=name, by=user)
                return msgspec.structs.replace(moment.time, order=(user, name), spread=spread)
    return moment.time


def _id(roles: Roles) -> tuple[str, ...]:
    """A column that is an id of the event itself: named so, and different in each row."""
    for name in roles.free:
        values = roles.frame[name]
        if fit(name, EVENT_ID) >= 2 and values.null_count() == 0 and values.n_unique() == len(values):
            return (name,)
    return ()


def _filter(frame: pl.DataFrame, *columns: str) -> Filter | None:
    """Rows that lack the shopper or the item cannot be events; where there are such, they are left out."""
    lacking = [name for name in columns if frame[name].null_count()]
    return Filter(" AND ".join(f'"{name}" IS NOT NULL' for name in lacking)) if lacking else None


def _goal(kind: Found, frame: pl.DataFrame) -> tuple[str, float]:
    """What shoppers do before anything else, views where there are any; and its share of the rows."""
    if kind.source.constant is not None:
        return str(kind.source.constant), 1.0
    if kind.source.map is None or kind.column is None:
        return "buy", 1.0
    words = [word for word, meant in kind.source.map.items() if meant == "view"]
    goal = "view" if words else "buy"
    words = words or [word for word, meant in kind.source.map.items() if meant == "buy"]
    return goal, float(frame[kind.column].is_in(words).mean() or 0.0)  # type: ignore[arg-type]


def _days(moment: When, sample: Sample, share: float) -> int:
    """The least number of days that is likely to hold enough labels, judged by the newest part of the sample."""
    times = moments(sample.frame, moment).drop_nulls().sort()
    if not len(times):
        return 1
    newest = int(times[-1])
    for days in _SPANS:
        labels = float((times > newest - days * DAY).sum()) * share / sample.share
        if labels >= _LABELS_A_SPAN:
            return days
    return _SPANS[-1]
