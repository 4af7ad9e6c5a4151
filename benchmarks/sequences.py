"""Claim: the next item of a shopper, all items ranked, is found more often than by the best transformers published for
the same files (Amazon Beauty and MovieLens 100K, leave one out), by penstock's own sources and ranker.

On other files the peer is decayed co-occurrence, which is measured in every run. What is judged comes from a model that
in the end learned from everything but the answers: from the item before each answer, and from the items' attributes
where there are any. Of the published figures those of S3-Rec use attributes, those of SASRec and GRU4Rec do not.
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
from benchmarks._next import cooccurrence
from benchmarks._next.files import DataError, lines, same
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
    parser.add_argument(
        "--train", type=Path, help=f"a shopper a line: name, then items, oldest first (default {TRAIN})"
    )
    parser.add_argument(
        "--test", type=Path,
        help="the same with what is to be predicted last, or that alone; where absent, the last item of each shopper "
        "of --train is asked for and not learned from",
    )  # fmt: skip
    parser.add_argument(
        "--about", type=Path, help="JSON: item to list of its attributes; Beauty has its own, other files have none"
    )
    parser.add_argument("--only", action="store_true", help="leave MovieLens 100K out")


def run(chosen: argparse.Namespace) -> Result:
    """Trains and ranks all items, on Beauty, or on what was given, and on MovieLens 100K beside."""
    if chosen.train is None and chosen.test is not None:
        raise DataError(
            "questions are asked of what learned from the same shop", got="--test alone",
            remedy="give --train FILE --test FILE, or --train FILE alone",
        )  # fmt: skip
    train = chosen.train or TRAIN
    beauty = same(train, TRAIN) and chosen.test is None
    before = circumstances()
    lists, asked, names = read(train, chosen.test)
    about = chosen.about or (ABOUT if same(train, TRAIN) and ABOUT.is_file() else None)
    detail = {**before, **measured(lists, asked, names, attributes(about, names))}
    if beauty and not chosen.only and SECOND.is_file():
        say("MovieLens 100K")
        detail["ml100k"] = measured(*_movies(SECOND), {})
    peer, unit = detail["cooccurrence"]["hr10"], "HR@10, decayed co-occurrence"
    if beauty:
        detail["published"] = PUBLISHED
        peer, unit = PUBLISHED["eSASRec"][0], "HR@10, published eSASRec"
    ratio = round(detail["hr10"] / peer, 3) if peer else None
    return Result("sequences", detail["hr10"], peer, ratio, unit, detail)


def measured(
    lists: Sequence[Sequence[int]], asked: Asked, names: Sequence[str], attributes: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """Trains on what came before, and judges the answers.

    The ranker learns which candidate is each shopper's newest known item, from sources that have not seen it. Then the
    sources learn anew from everything but the answers, that item included, and from the items' attributes.
    """
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
    say("decayed co-occurrence")
    simple = cooccurrence.ranks(cooccurrence.learned(lists), asked.before, asked.after)
    return {
        "hr10": figures["ranker"]["hr10"], "ndcg10": figures["ranker"]["ndcg10"], "train_minutes": round(minutes, 2),
        "hr10_interval": interval(hits(ranks["ranker"], K)), "ndcg10_interval": interval(gains(ranks["ranker"], K)),
        "sources_alone": {name: found for name, found in figures.items() if name != "ranker"},
        "cooccurrence": _figures(simple),
        "sequences": len(lists), "items": len(names), "questions": len(asked),
        "unknown_answers": int((asked.after == 0).sum()),
        "learned_from": "all but the answers: the item before each answer too"
        + (", and attributes of items" if features else ""),
        "importance": pipeline.importance,
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

    Lines that hold nothing are left out; several lines of one shopper in `train` are one sequence. Each line of `test`
    is a question; where it holds the answer alone, what came before is the shopper's sequence of `train`. Of that only
    items that training knows are looked at: where there are none, it counts as a miss, and so does an unknown answer.

    Raises:
        DataError: no file, nothing to learn from, or nothing to ask.
    """
    named: dict[str, list[str]] = {}
    for _, line in lines(train, "--train"):
        user, *items = line.split()
        named.setdefault(user, []).extend(items)
    if test is None:
        asked = [(items[:-1], items[-1]) for items in named.values() if len(items) > 1]
        named = {user: items[:-1] if len(items) > 1 else items for user, items in named.items()}
    else:
        told = [line.split() for _, line in lines(test, "--test")]
        asked = [(part[1:-1] or named.get(part[0], []), part[-1]) for part in told if len(part) > 1]
    learned = [items for items in named.values() if items]
    for rule, there, file in (
        ("there is at least one sequence to learn from", learned, train),
        ("there is at least one item to predict", asked, test or train),
    ):
        if not there:
            raise DataError(
                rule, got=f"none in {file}", remedy="write a shopper a line: the name, then items, oldest first"
            )
    codes = drawn_codes(dict.fromkeys(name for items in learned for name in items))
    before = [[codes[name] for name in part if name in codes] for part, _ in asked]
    return (
        [[codes[name] for name in items] for items in learned],
        Asked(before, np.array([codes.get(answer, 0) for _, answer in asked], np.uint32)),
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


def attributes(file: Path | None, names: Sequence[str]) -> dict[int, list[int]]:
    """The attributes of each item's code, as codes from 1 on; items that the file does not name have none.

    Raises:
        DataError: no file, or other JSON than lists of texts or numbers by item.
    """
    if file is None:
        return {}
    try:
        told = json.loads("\n".join(line for _, line in lines(file, "--about")))
        known = {name: told[name] for name in names if name in told}
        if not isinstance(told, dict) or not all(isinstance(part, list) for part in known.values()):
            raise TypeError("not lists by item")
        every = {word for part in known.values() for word in part}
        words = {w: code for code, w in enumerate(sorted(every, key=lambda w: (isinstance(w, str), w)), 1)}
    except (ValueError, TypeError) as error:
        raise DataError(
            "--about is a JSON object: of each item the list of its attributes, texts or numbers",
            got=f"{file} ({error})", remedy='write {"item": ["brand", "category"], ...}',
        ) from None  # fmt: skip
    return {code: [words[w] for w in known[name]] for code, name in enumerate(names, 1) if name in known}


def _figures(ranks: Any) -> dict[str, float]:
    return {
        "hr10": round(float(hits(ranks, K).mean()), 4), "ndcg10": round(float(gains(ranks, K).mean()), 4)
    }  # fmt: skip
