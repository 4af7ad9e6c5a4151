"""Small inline SVG charts: no script, no file, readable in light and dark.

Horizontal positions are percentages and heights are pixels, so a chart fills any width while its text keeps its
size. Colours come from the page's style through classes: `mark` (plain), `mark strong` (the chosen one), `axis`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from penstock.evaluate.markup import Markup, join, tag

_ROW, _HEIGHT, _LABEL, _TEXT = 44, 220, 36, 16


@dataclass(frozen=True)
class Bar:
    """One horizontal bar from 0, with a whisker from `low` to `high` where both are known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = False


def number(value: float) -> str:
    """A figure for reading: whole numbers with separators, others with three to four significant digits.

    >>> number(1234567), number(0.23104), number(0.0), number(12.0), number(7214.73)
    ('1,234,567', '0.231', '0', '12', '7,215')
    """
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that span low … high, about `wanted` steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 0.23)
    [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    """
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= wanted + 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, max(last, first + 1) + 1)]


def _tick(value: float) -> str:
    """Short enough for six of them to stand side by side on a phone."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def bars(items: Sequence[Bar], *, title: str, description: str) -> Markup:
    """Horizontal bars, the label and the value above each."""
    top = max(max(item.value, item.high or 0.0) for item in items) or 1.0
    grid = ticks(0.0, top)
    height = _ROW * len(items) + 22
    marks = [_grid_x(tick / grid[-1], height - 22, _tick(tick)) for tick in grid]
    alike = all(item.strong for item in items)
    marks += [_bar(item, _ROW * i, grid[-1], alike) for i, item in enumerate(items)]
    return _figure(marks, height, title, description, "wide")


def line(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    joined: bool = True,
    diagonal: bool = False,
) -> Markup:
    """Points (x, y), joined by a line in the order given or not; `diagonal` draws y = x over equal axes."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across, up = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    if diagonal:
        across = up = ticks(0.0, max(xs + ys))
    left = [(x - across[0]) / (across[-1] - across[0]) for x in xs]
    high = [_HEIGHT * (1 - (y - up[0]) / (up[-1] - up[0])) for y in ys]
    marks = _axes(across, up)
    if diagonal:
        marks.append(_segment(0.0, _HEIGHT, 1.0, 0.0, "guide"))
    if joined:
        marks += [_segment(left[i], high[i], left[i + 1], high[i + 1], "stroke") for i in range(len(points) - 1)]
    for (x, y), at, y_at in zip(points, left, high, strict=True):
        dot = tag("title", f"{x_label} {number(x)}, {y_label} {number(y)}")
        marks.append(tag("circle", dot, cx=_percent(at), cy=_px(y_at), r=4, class_="mark strong"))
    marks += [
        tag("text", x_label, x="100%", y=_HEIGHT + _LABEL, class_="end axis"),
        tag("text", y_label, x=-40, y=-12, class_="axis"),
    ]
    return _figure(marks, _HEIGHT + _LABEL + 6, title, description, "plot")


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
) -> Markup:
    """Several lines of points (x, y) over the same axes, each with its name at its end; the last one stands out."""
    every = [point for points in series.values() for point in points]
    across, up = ticks(min(x for x, _ in every), max(x for x, _ in every)), ticks(0.0, max(y for _, y in every))
    marks = _axes(across, up)
    names = _apart([_HEIGHT * (1 - (points[-1][1] - up[0]) / (up[-1] - up[0])) - 6 for points in series.values()])
    for number_, (name, points) in enumerate(series.items()):
        strong = number_ == len(series) - 1
        kind = "stroke" if strong else f"stroke plain p{number_ % 3}"
        at = [(x - across[0]) / (across[-1] - across[0]) for x, _ in points]
        high = [_HEIGHT * (1 - (y - up[0]) / (up[-1] - up[0])) for _, y in points]
        marks += [_segment(at[i], high[i], at[i + 1], high[i + 1], kind) for i in range(len(points) - 1)]
        side = "label end strong" if strong else "label end"
        marks.append(tag("text", name, x=_percent(at[-1]), y=_px(names[number_]), class_=side))
    marks += [
        tag("text", x_label, x="100%", y=_HEIGHT + _LABEL, class_="end axis"),
        tag("text", y_label, x=-40, y=-12, class_="axis"),
    ]
    return _figure(marks, _HEIGHT + _LABEL + 6, title, description, "plot")


def histogram(counts: Sequence[int], labels: Sequence[str], *, title: str, description: str, x_label: str) -> Markup:
    """One column for each count; about six of the labels are written out, all of them show on hovering."""
    up = ticks(0.0, max(*counts, 1))
    width = 1 / len(counts)
    every = math.ceil(len(counts) / 6)
    marks = [_grid_y(tick / up[-1], _tick(tick)) for tick in up]
    for i, (count, label) in enumerate(zip(counts, labels, strict=True)):
        tall = _HEIGHT * count / up[-1]
        tip = tag("title", f"{label}: {count:,}")
        place = {"x": _percent(width * (i + 0.1)), "width": _percent(width * 0.8)}
        marks.append(tag("rect", tip, **place, y=_px(_HEIGHT - tall), height=_px(tall), class_="mark strong"))
        if i % every == 0:
            marks.append(tag("text", label, x=_percent(width * (i + 0.5)), y=_HEIGHT + 16, class_="middle axis"))
    marks.append(tag("text", x_label, x="100%", y=_HEIGHT + _LABEL, class_="end axis"))
    return _figure(marks, _HEIGHT + _LABEL + 6, title, description, "plot")


def _bar(item: Bar, y: int, top: float, alike: bool) -> Markup:
    kind = "mark strong" if item.strong else "mark"
    said = number(item.value)
    parts = [
        tag("title", f"{item.label}: {said}"),
        tag("text", _short(item.label), x=0, y=y + 15, class_="label strong" if item.strong and not alike else "label"),
        tag("text", said, x="100%", y=y + 15, class_="label end"),
        tag("rect", x=0, y=y + 22, width=_percent(max(item.value, 0.0) / top), height=12, rx=2, class_=kind),
    ]
    if item.low is not None and item.high is not None:
        low, high = max(item.low, 0.0) / top, max(item.high, 0.0) / top
        parts[0] = tag("title", f"{item.label}: {said}, {number(item.low)} to {number(item.high)}")
        parts += [_segment(low, y + 28, high, y + 28, "whisker")]
        parts += [_segment(end, y + 24, end, y + 32, "whisker") for end in (low, high)]
    return tag("g", *parts)


def _short(label: str, most: int = 32) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of texts, moved down, or up from the lower edge, so far that none covers another.

    >>> _apart([100.0, 96.0, 30.0])
    [112.0, 96.0, 30.0]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    out = list(heights)
    for above, below in pairwise(order):
        out[below] = max(out[below], out[above] + _TEXT)
    lowest = _HEIGHT - 4.0
    for i in reversed(order):
        out[i] = min(out[i], lowest)
        lowest = out[i] - _TEXT
    return out


def _axes(across: Sequence[float], up: Sequence[float]) -> list[Markup]:
    marks = [_grid_y((tick - up[0]) / (up[-1] - up[0]), _tick(tick)) for tick in up]
    return marks + [_grid_x((tick - across[0]) / (across[-1] - across[0]), _HEIGHT, _tick(tick)) for tick in across]


def _grid_x(at: float, height: int, label: str) -> Markup:
    side = "axis" if at < 0.01 else "end axis" if at > 0.99 else "middle axis"
    text = tag("text", label, x=_percent(at), y=height + 16, class_=side)
    return join(_segment(at, 0, at, height, "grid"), text)


def _grid_y(at: float, label: str) -> Markup:
    y = _HEIGHT * (1 - at)
    return join(_segment(0.0, y, 1.0, y, "grid"), tag("text", label, x=-6, y=_px(y + 4), class_="end axis"))


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=_percent(x1), y1=_px(y1), x2=_percent(x2), y2=_px(y2), class_=kind)


def _figure(marks: Sequence[Markup], height: int, title: str, description: str, kind: str) -> Markup:
    svg = tag(
        "svg", tag("title", title), tag("desc", description), *marks, role="img", aria_label=f"{title}. {description}",
        class_=kind, width="100%", height=height,
    )  # fmt: skip
    return tag("figure", tag("figcaption", title), svg)


def _percent(share: float) -> str:
    return f"{100 * share:.3f}%"


def _px(value: float) -> str:
    return f"{value:.2f}"
