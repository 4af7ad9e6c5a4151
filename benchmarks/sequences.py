"""Claim: the next item of a shopper, all items ranked, is found more often than by the best transformers published for
the same files (Amazon Beauty and MovieLens 100K, leave one out), by penstock's own sources and ranker.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import Result, circumstances
from benchmarks._next.pipeline import Asked, Pipeline, drawn_codes, interval, say
from penstock.evaluate.ranking import gains, hits
from penstock.learn import Attention, LambdaRank
from penstock.retrieve import Covisits, History, Similar
from penstock.retrieve.sessions import SessionNeighbours

DATA = Path("../shared/data/sequences")
TRAIN, ABOUT, SECOND = DATA / "beauty.txt.gz", DATA / "beauty_attributes.json.gz", DATA / "ml100k.inter.tsv.gz"
K = 10
PUBLISHED = {
    "PopRec": [0.0152, 0.0068], "GRU4Rec": [0.0283, 0.0137], "SASRec": [0.0605, 0.0318], "S3-Rec": [0.0647, 0.0327],
    "SASRec, sampled softmax": [0.0921, 0.0531], "eSASRec": [0.0928, 0.0523],
}  # fmt: skip
"""HR@10 and NDCG@10 on Beauty, all items ranked (S3-Rec's tables, and blondered/transformer_benchmark)."""
_FAR = "1000d"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--train", type=Path, default=TRAIN, help="a shopper a line: name, then items, oldest first")
    parser.add_argument(
        "--test", type=Path, default=None,
        help="the same with what is to be predicted last; where absent, the last item of each line of --train is",
    )  # fmt: skip
    parser.add_argument(
        "--about", type=Path, default=None, help="JSON: the attributes of each item; Beauty has its own"
    )
    parser.add_argument("--only", action="store_true", help="leave MovieLens 100K out")


def run(chosen: argparse.Namespace) -> Result:
    """Trains and ranks all items, on Beauty, or on what was given, and on MovieLens 100K beside."""
    if not chosen.train.is_file():
        raise SystemExit(f"sequences are read from a text file; {chosen.train} is not there: give --train FILE")
    before = circumstances()
    lists, asked, names = read(chosen.train, chosen.test)
    about = chosen.about or (ABOUT if chosen.train == TRAIN else None)
    detail = {**before, **measured(lists, asked, names, _attributes(about, names))}
    if not chosen.only and chosen.train == TRAIN and SECOND.is_file():
        say("MovieLens 100K")
        detail["ml100k"] = measured(*_movies(SECOND), {})
    detail["published"] = PUBLISHED
    peer = PUBLISHED["eSASRec"][0]
    return Result(
        "sequences", detail["hr10"], peer, round(detail["hr10"] / peer, 3), "HR@10, published eSASRec", detail
    )  # fmt: skip


def measured(
    lists: Sequence[Sequence[int]], asked: Asked, names: Sequence[str], attributes: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """Trains on what came before, and judges the answers."""
    began = perf_counter()
    features = [f"about_{i}" for i in range(max(map(len, attributes.values()), default=0))]
    pipeline = Pipeline(sources(features), ranker(), most=300, items=len(names) + 1)
    about: Callable[[History], Mapping[str, History]] = partial(_about, attributes, features)
    say(f"{len(lists):,} sequences of {len(names):,} items")
    pipeline.fit_sources([part[:-1] for part in lists if len(part) > 1], about)
    told = [part for part in lists if len(part) > 2]
    pipeline.fit_rank(Asked([part[:-1] for part in told], np.array([part[-1] for part in told], np.uint32)))
    pipeline.fit_sources(lists, about)
    minutes = (perf_counter() - began) / 60
    ranks = pipeline.ranks(asked)
    figures = {name: _figures(found) for name, found in ranks.items()}
    return {
        "hr10": figures["ranker"]["hr10"], "ndcg10": figures["ranker"]["ndcg10"], "train_minutes": round(minutes, 2),
        "hr10_interval": interval(hits(ranks["ranker"], K)), "ndcg10_interval": interval(gains(ranks["ranker"], K)),
        "sources_alone": {name: found for name, found in figures.items() if name != "ranker"},
        "sequences": len(lists), "items": len(names), "questions": len(asked),
        "importance": dict(zip(pipeline.names, pipeline.trees.importance.round().tolist(), strict=True)),
    }  # fmt: skip


def sources(features: Sequence[str] = ()) -> list[Any]:
    """What proposes items; `features` are the list features that say what the items are."""
    return [
        Covisits("recent", k=120, norm=0.25, span=_FAR, steps=10, decay=0.8, backward=0.5, neighbours=120,
        name="after"), Covisits("recent", k=80, norm=0.5, span=_FAR, steps=30, decay=0.9, recent=30, neighbours=100),
        Similar("recent", k=80, norm=0.5, span=_FAR, steps=50, decay=0.95, recent=30, neighbours=100),
        SessionNeighbours("recent", k=120, gap=_FAR, sample=1_000, neighbours=300, recent=30, idf=True, near=True),
        Attention(
            "recent", about=tuple(features), k=120, length=50, width=96, heads=2, layers=2, epochs=24, batch=128,
            rate=2e-3, drop=0.4, scale=14.0,
        ),
    ]  # fmt: skip


def ranker() -> LambdaRank:
    """The trees over them."""
    return LambdaRank("next", trees=250, leaves=15, learning_rate=0.05, min_leaf=100)


def _about(attributes: Mapping[int, Sequence[int]], features: Sequence[str], past: History) -> dict[str, History]:
    """Each event's item's attributes, one list feature for each place."""
    said = np.zeros((len(features), int(past.item.max(initial=0)) + 1), np.uint32)
    for item, codes in attributes.items():
        if item < said.shape[1]:
            said[: len(codes), item] = codes
    return {name: History(past.owner, said[i][past.item], past.time) for i, name in enumerate(features)}


def read(train: Path, test: Path | None) -> tuple[list[list[int]], Asked, list[str]]:
    """Sequences and questions in codes from 1 on, and the items' names; an answer never seen is code 0.

    Where a line of `test` holds the answer alone, what came before is the shopper's line of `train`.
    """
    named = {line[0]: line[1:] for line in _lines(train)}
    if test is None:
        answers = {user: items[-1] for user, items in named.items() if len(items) > 1}
        named = {user: items[:-1] if user in answers else items for user, items in named.items()}
        prefixes = {user: named[user] for user in answers}
    else:
        lines = [line for line in _lines(test) if len(line) > 1]
        answers = {line[0]: line[-1] for line in lines}
        prefixes = {line[0]: line[1:-1] if len(line) > 2 else named.get(line[0], []) for line in lines}
    codes = drawn_codes(dict.fromkeys(n for items in named.values() for n in items))
    lists = [[codes[name] for name in items] for items in named.values() if items]
    before = [[codes[name] for name in prefixes[user] if name in codes] for user in answers]
    return (
        lists,
        Asked(before, np.array([codes.get(a, 0) for a in answers.values()], np.uint32)),
        sorted(codes, key=codes.__getitem__),
    )


def _movies(file: Path) -> tuple[list[list[int]], Asked, list[str]]:
    """MovieLens: each user's films by time, then by number; the last one is asked for."""
    with gzip.open(file, "rt") as text:
        next(text)
        rows = [line.split() for line in text]
    rows.sort(key=lambda row: (int(row[0]), float(row[3]), int(row[1])))
    users: dict[str, list[str]] = {}
    for user, item, *_ in rows:
        users.setdefault(user, []).append(item)
    codes = drawn_codes(dict.fromkeys(n for part in users.values() for n in part[:-1]))
    lists = [[codes[name] for name in part[:-1]] for part in users.values()]
    return (
        lists,
        Asked(lists, np.array([codes.get(part[-1], 0) for part in users.values()], np.uint32)),
        sorted(codes, key=codes.__getitem__),
    )


def _attributes(file: Path | None, names: Sequence[str]) -> dict[int, list[int]]:
    if file is None:
        return {}
    with _open(file) as text:
        told = json.load(text)
    known = {name: told[name] for name in names if name in told}
    words = {word: code for code, word in enumerate(sorted({w for part in known.values() for w in part}), 1)}
    return {code: [words[w] for w in known[name]] for code, name in enumerate(names, 1) if name in known}


def _lines(file: Path) -> list[list[str]]:
    with _open(file) as text:
        return [line.split() for line in text if line.strip()]


def _open(path: Path) -> Any:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def _figures(ranks: Any) -> dict[str, float]:
    return {
        "hr10": round(float(hits(ranks, K).mean()), 4), "ndcg10": round(float(gains(ranks, K).mean()), 4)
    }  # fmt: skip
