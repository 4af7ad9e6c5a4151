"""A collection of documents and judged queries in BEIR's layout, and how ranked lists are judged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Judged:
    """`ids`, `titles` and `texts` of the documents; `queries` that have judgements, and for each the relevant ids."""

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    queries: Sequence[str]
    relevant: Sequence[frozenset[str]]

    @classmethod
    def read(cls, folder: Path, name: str, split: str) -> Judged:
        """From ``NAME_corpus.jsonl.gz``, ``NAME_queries_SPLIT.jsonl.gz`` and ``NAME_qrels_SPLIT.tsv.gz``."""
        corpus = list(_objects(folder / f"{name}_corpus.jsonl.gz"))
        asked = {one["_id"]: one["text"] for one in _objects(folder / f"{name}_queries_{split}.jsonl.gz")}
        relevant: dict[str, set[str]] = {}
        for line in list(_lines(folder / f"{name}_qrels_{split}.tsv.gz"))[1:]:
            query, document, grade = line.split("\t")
            if int(grade) > 0:
                relevant.setdefault(query, set()).add(document)
        return cls(
            [one["_id"] for one in corpus],
            [one.get("title", "") for one in corpus],
            [one["text"] for one in corpus],
            [asked[query] for query in relevant],
            [frozenset(found) for found in relevant.values()],
        )

    def judge(self, runs: Iterable[Sequence[str]]) -> Mapping[str, NDArray[np.float64]]:
        """NDCG@10 and recall@100 of each query's ranked ids, (queries,) each."""
        ndcg, recall = [], []
        for found, relevant in zip(runs, self.relevant, strict=True):
            gain = sum(1 / log2(place + 2) for place, id in enumerate(found[:10]) if id in relevant)
            best = sum(1 / log2(place + 2) for place in range(min(10, len(relevant))))
            ndcg.append(gain / best)
            recall.append(len(relevant.intersection(found[:100])) / len(relevant))
        return {"ndcg10": np.array(ndcg), "recall100": np.array(recall)}


def _lines(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        yield from opened


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, _lines(file))
