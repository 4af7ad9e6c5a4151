"""The page around a report: its style and the few blocks that it is made of."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.evaluate.markup import Markup, tag

_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1b1f24; --soft: #5b6570;
  --line: #dfe3e8; --mark: #a9b4c0; --strong: #1769aa; --tint: #e8f1f9; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1c2026; --ink: #e8ebee; --soft: #a2acb7;
  --line: #323942; --mark: #5c6977; --strong: #58a6e6; --tint: #1b2f42; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 0 0 8px; }
h3 { font-size: 1rem; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 75ch; }
.soft, figcaption, caption, dt, summary { color: var(--soft); }
.small, figcaption, caption, dt, summary { font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 20px;
  margin-top: 20px; }
section.lead { background: var(--tint); border-color: var(--strong); }
.reason { font-size: 1.05rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 16px; margin: 0; }
dd { margin: 0; font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 0 16px; background:
  linear-gradient(to right, transparent, var(--card) 75%) right / 56px 100% no-repeat local,
  linear-gradient(to left, var(--mark), transparent) right / 14px 100% no-repeat scroll; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--strong); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th, td { padding: 7px 8px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { position: sticky; left: 0; background: var(--card); }
tr.strong th, tr.strong td { color: var(--strong); }
td small { display: block; color: var(--soft); font-size: .78rem; white-space: normal; }
figure { margin: 16px 0; max-width: 760px; }
figcaption { margin-bottom: 8px; }
svg { display: block; overflow: visible; }
svg.plot { margin: 26px 0 0 44px; width: calc(100% - 48px); }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg text.axis { fill: var(--soft); font-size: 12px; }
svg text.strong { font-weight: 600; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .mark { fill: var(--mark); }
svg .mark.strong { fill: var(--strong); }
svg .grid { stroke: var(--line); }
svg .guide { stroke: var(--mark); stroke-dasharray: 4 4; }
svg .stroke { stroke: var(--strong); stroke-width: 2; }
svg .stroke.plain { stroke: var(--soft); stroke-dasharray: 6 4; }
svg .stroke.p1 { stroke-dasharray: 2 3; }
svg .stroke.p2 { stroke-dasharray: none; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
summary { cursor: pointer; padding: 4px 0; }
li { margin-bottom: 4px; }
@media (max-width: 900px) { table { font-size: .82rem; } th, td { padding: 6px 5px; } td small { font-size: .72rem; } }
@media (max-width: 560px) { section { padding: 16px 14px; } h1 { font-size: 1.35rem; } }
@media print { section { break-inside: avoid; } }
"""


def page(title: str, *content: Markup) -> str:
    """A whole HTML document that needs nothing from outside itself."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(_STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *content)), lang='en')}\n"


def section(title: str, *content: Markup, kind: str | None = None) -> Markup:
    return tag("section", tag("h2", title), *content, class_=kind)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> Markup:
    """A table whose first column names the row; `strong` lists the rows to set off."""
    top = tag("thead", tag("tr", *[tag("th", cell, scope="col") for cell in head]))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *[tag("td", cell) for cell in row[1:]],
            class_="strong" if i in strong else None)
        for i, row in enumerate(rows)
    ]  # fmt: skip
    grid = tag("table", tag("caption", caption), top, tag("tbody", *body))
    return tag("div", grid, class_="scroll", role="region", aria_label=caption, tabindex=0)


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """Names and values, as many beside each other as the width allows."""
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])


def details(summary: str, *content: Markup) -> Markup:
    """What is folded away until asked for."""
    return tag("details", tag("summary", summary), *content)
