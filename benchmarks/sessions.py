"""Claim: the next item of a session, all items ranked, is found more often than by the graph networks of the published
tables (Diginetica, their split), by penstock's own sources and ranker, trained within twenty minutes on two cores.

On other files than those the peer is decayed co-occurrence, which is measured in every run. What is judged comes from a
model that learned anew from all sessions, those that the ranker learned from included.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import Result, circumstances
from benchmarks._next import cooccurrence
from benchmarks._next.files import DataError, lines, same
from benchmarks._next.pipeline import Asked, Pipeline, drawn_codes, interval, say
from penstock.evaluate.ranking import hits, reciprocal_ranks
from penstock.learn import Attention, LambdaRank
from penstock.retrieve import Covisits, Seen, SessionNeighbours

DATA = Path("../shared/data/sessions")
TRAIN, TEST = DATA / "diginetica_train.txt.gz", DATA / "diginetica_test.tsv.gz"
K = 20
PUBLISHED = {
    "FPMC": [26.53, 6.95], "GRU4Rec": [29.45, 8.33], "STAMP": [45.64, 14.32], "NARM": [49.70, 16.17],
    "SR-GNN": [50.73, 17.59], "S2-DHCN": [53.18, 18.44], "GCE-GNN": [54.22, 19.04],
}  # fmt: skip
"""P@20 and MRR@20 in per cent, all items ranked (the table of the MGCOT paper)."""
_HELD = 20
"""One part in so many of the sessions, the newest, is what the ranker learns from."""
_MOST_ASKED = 24_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--train", type=Path, help=f"sessions, a line each: items, oldest first (default {TRAIN})")
    parser.add_argument(
        "--test", type=Path, help=f"questions, a line each: items, a tab, the next item (default {TEST})"
    )
    parser.add_argument("--quick", action="store_true", help="judge on 5,000 of the questions, drawn at random")


def run(chosen: argparse.Namespace) -> Result:
    """Trains, and ranks all items for every question."""
    if (chosen.train is None) != (chosen.test is None):
        raise DataError(
            "questions are asked of what learned from sessions of the same shop",
            got="--train alone" if chosen.test is None else "--test alone",
            remedy="give both, --train FILE --test FILE, or neither",
        )
    train, test = chosen.train or TRAIN, chosen.test or TEST
    before = circumstances()
    lists, asked, names = read(train, test)
    if chosen.quick:
        drawn = np.random.default_rng(0).permutation(len(asked))[:5_000]
        asked = Asked([asked.before[i] for i in drawn], asked.after[drawn])
    began = perf_counter()
    pipeline = Pipeline(sources(), ranker(), most=300, items=len(names) + 1)
    held = max(1, len(lists) - max(1, len(lists) // _HELD))
    say(f"{len(lists):,} sessions of {len(names):,} items; the ranker learns from the newest {len(lists) - held:,}")
    pipeline.fit_sources(lists[:held], lambda past: {})
    pipeline.fit_rank(_questions(lists[held:]))
    pipeline.fit_sources(lists, lambda past: {})
    minutes = (perf_counter() - began) / 60
    began = perf_counter()
    ranks = pipeline.ranks(asked)
    per_ms = (perf_counter() - began) * 1e3 / len(asked)
    figures = {name: _figures(found) for name, found in ranks.items()}
    best = figures["ranker"]
    say("decayed co-occurrence")
    simple = _figures(cooccurrence.ranks(cooccurrence.learned(lists), asked.before, asked.after))
    detail: dict[str, Any] = {
        **before, "p20": best["p20"], "mrr20": best["mrr20"], "train_minutes": round(minutes, 2),
        "p20_interval": interval(hits(ranks["ranker"], K) * 100),
        "mrr20_interval": interval(reciprocal_ranks(ranks["ranker"], K) * 100),
        "sources_alone": {name: found for name, found in figures.items() if name != "ranker"},
        "cooccurrence": simple, "sessions": len(lists), "items": len(names), "questions": len(asked),
        "unknown_answers": int((asked.after == 0).sum()), "ms_a_question": round(per_ms, 2),
        "importance": pipeline.importance,
    }  # fmt: skip
    peer, unit = simple["p20"], "P@20 (%), decayed co-occurrence"
    if same(train, TRAIN) and same(test, TEST):
        detail["published"] = PUBLISHED
        peer, unit = PUBLISHED["SR-GNN"][0], "P@20 (%), published SR-GNN"
    return Result("sessions", best["p20"], peer, round(best["p20"] / peer, 3) if peer else None, unit, detail)


def sources() -> list[Any]:
    """What proposes items."""
    return [
        Seen("recent", k=30),
        Covisits("recent", k=120, norm=0.0, steps=10, decay=0.6, backward=0.0, neighbours=150, name="after"),
        Covisits("recent", k=60, norm=0.0, steps=1, decay=0.5, backward=0.0, neighbours=80, name="next"),
        Covisits("recent", k=80, steps=20, neighbours=150),
        SessionNeighbours("recent", k=120, gap="1d", sample=1_000, neighbours=200, idf=True, near=True),
        Attention(
            "recent", k=120, length=20, width=96, heads=2, layers=1, epochs=8, batch=256, rate=3e-3, drop=0.25,
            scale=14.0, negatives=4_096,
        ),
    ]  # fmt: skip


def ranker() -> LambdaRank:
    """The trees over them."""
    return LambdaRank("next", trees=250, leaves=31, learning_rate=0.06, min_leaf=50)


def _questions(lists: Sequence[Sequence[int]]) -> Asked:
    """Every place of some sessions as a question; of many, some drawn at random."""
    every = [(i, end) for i, part in enumerate(lists) for end in range(1, len(part))]
    order = np.sort(np.random.default_rng(1).permutation(len(every))[:_MOST_ASKED])
    drawn = [every[i] for i in order.tolist()]
    return Asked([lists[i][:end] for i, end in drawn], np.array([lists[i][end] for i, end in drawn], np.uint32))


def read(train: Path, test: Path) -> tuple[list[list[int]], Asked, list[str]]:
    """Sessions and questions in codes from 1 on, and the items' names; what was never trained on is code 0.

    Lines that hold nothing are left out. Of what a question begins with only items that training knows are looked at:
    where there are none, it counts as a miss, and so does an answer that training does not know.

    Raises:
        DataError: no file, no session, or a question without a tab or an answer.
    """
    named = [line.split() for _, line in lines(train, "--train")]
    if not named:
        raise DataError(
            "there is at least one session to learn from", got=f"none in {train}",
            remedy="write one a line: items with blanks between, oldest first",
        )  # fmt: skip
    codes = drawn_codes(dict.fromkeys(name for part in named for name in part))
    before, after = [], []
    for number, line in lines(test, "--test"):
        prefix, tab, target = line.rpartition("\t")
        if not tab or len(target.split()) != 1:
            raise DataError(
                "a question is items, a tab, and the item that came next",
                got=f"line {number} of {test}: {line[:60]!r}",
                remedy="write items with blanks between, oldest first, and put one tab before the answer",
            )  # fmt: skip
        before.append([codes[name] for name in prefix.split() if name in codes])
        after.append(codes.get(target.strip(), 0))
    if not after:
        raise DataError(
            "there is at least one question", got=f"none in {test}", remedy="write one a line: items, a tab, the next"
        )
    lists = [[codes[name] for name in part] for part in named]
    return lists, Asked(before, np.array(after, np.uint32)), sorted(codes, key=codes.__getitem__)


def _figures(ranks: Any) -> dict[str, float]:
    return {
        "p20": round(float(hits(ranks, K).mean()) * 100, 2),
        "mrr20": round(float(reciprocal_ranks(ranks, K).mean()) * 100, 2),
    }
