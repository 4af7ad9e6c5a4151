"""What a long run says on the terminal: its steps as they go, and its figures at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_BAR = 30
_MARKS = {"ok": ("✓", "ok", "green"), "warn": ("!", "!", "yellow"), "wrong": ("✗", "wrong", "red")}
"""By state: the mark, the same in ASCII, and its colour."""
_METRICS = {"mrr": "MRR", "ndcg": "NDCG", "hit_rate": "hit rate", "goals": "goals a list", "ap": "average precision"}
_ROWS = (("served", ""), ("popularity", "popular_"), ("co-visits", "covisit_"), ("most recent", "recent_"))


class Step:
    """One step in progress; `progress` and `note` may be called at any time, or never."""

    def __init__(self, bar: Progress, title: str) -> None:
        self._bar = bar
        self._task = bar.add_task(title, total=None)
        self.text = ""

    def progress(self, done: int, total: int | None = None) -> None:
        """Moves the bar, where there is a terminal to show it on."""
        self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """What stands behind the title when the step is done, such as ``"74,321 events"``; the time is added."""
        self.text = text


class Printer:
    """Writes for people on standard output or, with `json`, on standard error, one object being for programs.

    Where that is not a terminal there are no bars, colours or control characters.
    """

    def __init__(self, json: bool = False) -> None:
        file = sys.stderr if json else sys.stdout
        self._json = json
        self._console = Console(file=file, force_terminal=file.isatty(), highlight=False, markup=False, emoji=False)
        self._ascii = self._console.options.ascii_only

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Shows a bar while the block runs, and a line with its title, note and seconds afterwards."""
        bar = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(_BAR),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        start = perf_counter()
        done = False
        try:
            with bar:
                step = Step(bar, title)
                yield step
            done = True
        finally:
            mark = ("ok" if self._ascii else "✓") if done else ("failed" if self._ascii else "✗")
            taken = f"{perf_counter() - start:.1f} s"
            words = filter(None, [title, step.text])
            self.line(Text.assemble((mark, "green" if done else "red"), " ", "  ".join(words), (f"  {taken}", "dim")))

    def verdict(self, state: str, name: str, text: str, remedy: str = "") -> None:
        """One thing that was looked at: ``ok``, ``warn`` or ``wrong``, and below it what mends it."""
        mark, plain, colour = _MARKS[state]
        # Further lines of the text stand below its first one.
        told = text.replace("\n", "\n" + " " * 21)
        self.line(Text.assemble((plain if self._ascii else mark, colour), f" {name:<18} ", told))
        if remedy:
            self.line(Text.assemble(" " * 21, ("-> " if self._ascii else "→ ", "dim"), remedy))

    def line(self, text: str | Text) -> None:
        """One line of text for people."""
        self._console.print(text, soft_wrap=True)

    def table(self, result: Mapping[str, Any]) -> None:
        """The figures of a demo for people and, in JSON mode, `result` as one line last on standard output.

        A figure that `result` lacks, or that is None, is left out. Read are ``[popular_|covisit_|recent_]hit_rate_20``
        and ``mrr_20``, ``{decide|post|freshness}_p{50|99}_ms``, ``waterfall_ms``, ``tiers``, ``events_per_second``,
        ``audit_values``, ``audit_mismatches``, ``errors``, ``errors_by_kind``, ``error_examples`` and ``seconds``; and
        of each decision asked in words ``NAME_asks``, ``NAME_hit_rate_20`` and ``NAME_mrr_20``.
        """
        self._console.print()
        self._console.print(self._rates(result))
        for name, text in _lines(result):
            self.line(Text.assemble((f"{name:<12}", "bold"), text))
        if self._json:
            self._console.file.flush()
            print(json.dumps(result, allow_nan=False), file=sys.stdout, flush=True)

    def comparison(self, report: Mapping[str, Any]) -> None:
        """The candidates of a training report, simplest first: what each earns, takes to train, and to answer.

        The one chosen is set off. Columns that look as if they knew the future are warned of below.
        """
        metric = report["metric"]
        title = f"{_METRICS.get(metric, metric)}@{report['k']}" if "k" in report else _METRICS.get(metric, metric)
        table = Table(box=None, pad_edge=False, header_style="bold")
        # Short enough for 80 characters, which is what a pipe gets.
        table.add_column("simplest first", no_wrap=True)
        for name in (title, "95 % interval", "to best", "trained in", "answer p50"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in compared(report):
            change = "" if row["change"] is None else f"{row['change']:+z.1%}" if row["change"] else "best"
            bounds = "" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}"
            cost = f"{row['train_seconds']:.2f} s", f"{row['answer_ms_p50']:.2f} ms"
            mark = "* " if row["chosen"] else "  "
            style = "bold green" if row["chosen"] else ""
            table.add_row(mark + row["name"], f"{row['mean']:.4f}", bounds, change, *cost, style=style)
        self._console.print(table)
        for leak in report.get("leaks", ()):
            self.verdict("warn", "may know the future", *_told(leak))

    def _rates(self, result: Mapping[str, Any]) -> Table:
        rates = {title: (result.get(f"{key}hit_rate_20"), result.get(f"{key}mrr_20")) for title, key in _ROWS}
        best = max((rate for rate, _ in rates.values() if rate), default=1.0)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("next item in the first 20")
        table.add_column("hit rate", justify="right")
        table.add_column("MRR", justify="right")
        table.add_column("")
        for title, (rate, reciprocal) in rates.items():
            if rate is not None:
                mrr = "" if reciprocal is None else f"{reciprocal:.4f}"
                style = "bold green" if title == "served" else ""
                table.add_row(title, f"{rate:.4f}", mrr, self._bar(rate / best), style=style)
        return table

    def _bar(self, share: float) -> str:
        """`share` of the full width, in eighths of a character where the terminal has them."""
        if self._ascii:
            return "#" * round(share * _BAR)
        full, eighths = divmod(round(share * _BAR * 8), 8)
        return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()


def compared(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A training report's candidates, simplest first: `name`, `chosen`, the deciding figure `metric` with `mean`,
    `low` and `high`, its `change` relative to the best, `train_seconds`, and `answer_ms_p50`: to find candidates and
    score them, or to score an event."""
    rows = []
    for row in sorted(report["candidates"], key=lambda row: row.get("complexity", 0)):
        figure = row["scores"][report["metric"]]
        change = (row.get("change") or {}).get("mean")
        answer = row["score_ms"] if "score_ms" in row else row["score_ms_p50"] + row.get("find_ms_p50", 0.0)
        rows.append(
            {
                "name": row["name"], "chosen": row["name"] == report["chosen"], "metric": report["metric"],
                "mean": figure["mean"], "low": figure["low"], "high": figure["high"], "change": change,
                "train_seconds": row["train_seconds"], "answer_ms_p50": answer,
            }
        )  # fmt: skip
    return rows


def _told(leak: Mapping[str, Any]) -> tuple[str, str]:
    """What is said of a column that may know the future, and the remedy."""
    if leak["check"] == "alone":
        return (
            f"{leak['name']} alone ranks the item that came next above {leak['figure']:.1%} of the others",
            "find out when its values are written; leave the column out until it is clear",
        )
    return (
        f"{leak['figure']:.1%} of the values of {leak['name']} change when later events are taken away",
        "see what it reads beside the events that it is given",
    )


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of every further line, in order."""
    for name in [key.removesuffix("_asks") for key in result if key.endswith("_asks")]:
        rate, high = result.get(f"{name}_hit_rate_20"), result.get(f"{name}_mrr_20")
        if rate is not None and high is not None:
            yield name, f"{result[f'{name}_asks']:,} asked in words: hit rate {rate:.4f}, MRR {high:.4f}"
    for name in ("decide", "post", "freshness"):
        p50, p99 = result.get(f"{name}_p50_ms"), result.get(f"{name}_p99_ms")
        if p50 is not None and p99 is not None:
            yield name, f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    if stages := result.get("waterfall_ms"):
        yield "waterfall", ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items()) + " ms"
    if tiers := result.get("tiers"):
        yield "tiers", ", ".join(f"{tier} {share:.1%}" for tier, share in tiers.items())
    if rate := result.get("events_per_second"):
        yield "throughput", f"{rate:,.0f} events/s"
    if (values := result.get("audit_values")) is not None:
        wrong = result.get("audit_mismatches", 0)
        verdict = "served and recomputed agree" if not wrong else f"{wrong:,} MISMATCHES"
        yield "audit", f"{verdict} on {values:,} values" if values else "nothing was compared"
    if (errors := result.get("errors")) is not None:
        yield "errors", f"{errors:,}"
    examples = result.get("error_examples", {})
    for kind, count in result.get("errors_by_kind", {}).items():
        yield "", f"{count:,} of {kind}: {examples.get(kind, '')[:200]}"
    if (seconds := result.get("seconds")) is not None:
        yield "in all", f"{seconds:.1f} s"
