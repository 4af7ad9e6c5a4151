"""Claim: search by words is as good as the reference implementation of BM25 on judged queries, better with meaning
beside it, and quick for one query.

SciFact's training queries, NDCG@10 and recall@100: by words, by vectors, both fused by rank, and both ordered by a
ranker that learned from four fifths of the queries and is judged on the rest, in turn. Beside them the time of a query
on a shop's product names, while it is being typed too. The published figures (.679, .925) are of the test queries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from benchmarks._peers import SETUP, interpreter
from benchmarks._search.hybrid import Hybrid
from benchmarks._search.judged import Judged
from penstock.retrieve.text import Bm25
from penstock.simulator.names import DEPARTMENTS, product_names

DATA = Path("../shared/data/search")
PUBLISHED_TEST = {"ndcg10": 0.679, "recall100": 0.925}
NAMES, ASKED = 100_000, 2_000
"""Product names, and queries on them."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder with the judged queries (default {DATA})")
    parser.add_argument("--names", type=int, default=NAMES, help="product names for the time of a query")


def run(chosen: argparse.Namespace) -> Result:
    """Judged queries, ours and the peer's; then one query at a time on product names."""
    if not (chosen.data / "scifact_corpus.jsonl.gz").is_file():
        raise SystemExit(f"judged queries are read from a folder; {chosen.data} has none: give --data FOLDER")
    judged = Judged.read(chosen.data, "scifact", "train")
    _say(f"{len(judged.ids):,} documents, {len(judged.queries):,} queries")
    lexical, index, build = _lexical(judged)
    found, took = _timed(judged.queries, lexical)
    scores = judged.judge([[judged.ids[place] for place in places.tolist()] for places in found])
    words = {**_means(scores), **_percentiles(took), "build_s": round(build, 2), **_size(index)}
    peer = _peer(judged)
    _say("vectors, and a ranker over both")
    hybrid = Hybrid(judged)
    ranked, ms = hybrid.ranked()
    both = judged.judge(ranked)
    gain = _means({name: both[name] - scores[name] for name in scores})
    detail: dict[str, Any] = {
        **circumstances(),
        "documents": len(judged.ids),
        "queries": len(judged.queries),
        "lexical": words,
        "vectors": {**_means(judged.judge(hybrid.vectors())), "build_s": hybrid.figures()["semantic"]},
        "fusion": _means(judged.judge(hybrid.fused())),
        "hybrid": {**_means(both), **_percentiles(ms)},
        "hybrid_over_lexical": gain,
        "published_test_queries": PUBLISHED_TEST,
        "peer": peer,
        "names": _names(chosen.names),
    }
    ours, theirs = words["ndcg10"], peer["ndcg10"]
    return Result(
        name="search", ours=ours, peer=theirs, ratio=theirs and round(ours / theirs, 4), unit="NDCG@10", detail=detail
    )  # fmt: skip


def _lexical(judged: Judged) -> tuple[Callable[[str], NDArray[np.int64]], Mapping[str, NDArray[Any]], float]:
    engine = Bm25()
    began = perf_counter()
    index = engine.build([(judged.titles, 1.0), (judged.texts, 1.0)])
    return lambda query: engine.find(index, query, 100).place, index, perf_counter() - began


def _timed(
    queries: Sequence[str], find: Callable[[str], NDArray[np.int64]]
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    found, seconds = [], []
    for query in queries:
        began = perf_counter()
        found.append(find(query))
        seconds.append(perf_counter() - began)
    return found, np.array(seconds) * 1e3


def _means(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The means, and half the width of their 95 % intervals."""
    out = {name: round(float(values.mean()), 4) for name, values in scores.items()}
    wide = {f"{n}_within": round(1.96 * float(v.std()) / len(v) ** 0.5, 4) for n, v in scores.items()}
    return {**out, **wide}


def _percentiles(ms: NDArray[np.float64]) -> dict[str, float]:
    return {"p50_ms": round(float(np.median(ms)), 3), "p99_ms": round(float(np.quantile(ms, 0.99)), 3)}


def _size(index: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    return {"index_mb": round(sum(array.nbytes for array in index.values()) / 1e6, 1)}


def _peer(judged: Judged) -> dict[str, Any]:
    python = interpreter("bm25s")
    if python is None:
        return {"ndcg10": None, "absent": SETUP}
    _say("bm25s")
    engine = Bm25()
    documents = [f"{title} {text}" for title, text in zip(judged.titles, judged.texts, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder) / "in.json", Path(folder) / "out.json"
        asked = {"documents": documents, "queries": list(judged.queries), "k": 100, "k1": engine.k1, "b": engine.b}
        given.write_text(json.dumps(asked))
        script = Path(__file__).parent / "_search" / "peers" / "bm25s_search.py"
        subprocess.run([str(python), str(script), str(given), str(told)], check=True, stdout=sys.stderr)
        out = json.loads(told.read_text())
    scores = judged.judge([[judged.ids[place] for place in places] for places in out["found"]])
    return {**_means(scores), **{name: round(out[name], 3) for name in ("p50_ms", "p99_ms", "build_s")}}


def _names(count: int) -> dict[str, Any]:
    """The time of a query on a shop's product names: whole words, and what was typed of them so far."""
    _say(f"{count:,} product names")
    draw = np.random.default_rng(7)
    each = -(-count // len(DEPARTMENTS))
    names, categories = [], []
    for department in DEPARTMENTS:
        names += product_names(draw, department, draw.integers(3, size=each))
        categories += [department.name] * each
    engine = Bm25(begun=True, every_first=True)
    began = perf_counter()
    index = engine.build([(names[:count], 4.0), (categories[:count], 2.0)])
    build = perf_counter() - began
    whole = [names[i] for i in draw.integers(count, size=ASKED).tolist()]
    asked = {
        "two_words": [" ".join(name.split()[1:3]) for name in whole],
        "as_typed": [name[: draw.integers(1, len(name) + 1)] for name in whole],
        "one_letter": [name[:1] for name in whole[: ASKED // 4]],
    }
    out: dict[str, Any] = {"names": count, "build_s": round(build, 2), **_size(index)}
    for kind, queries in asked.items():
        _timed(queries[:50], lambda query: engine.find(index, query, 100).place)
        _, ms = _timed(queries, lambda query: engine.find(index, query, 100).place)
        out |= {f"{kind}_{name}": value for name, value in _percentiles(ms).items()}
    return out


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
