"""Slates for tests of rules: any items, attributes, columns and vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.learn import Posterior
from penstock.serve.rerank import Facts, Slate


class Names:
    """Item 10 is "i10", group 1 is "g1"."""

    def code(self, text: str) -> int:
        return int(text[1:]) if text[1:].isdigit() else 0

    def text(self, code: int) -> str:
        return f"i{code}"

    def texts(self, codes: np.ndarray) -> list[str]:
        return [self.text(code) for code in codes.tolist()]


class Table:
    """Stands for a candidate source whose vectors are the rows of a table, by item code."""

    def __init__(self, table: np.ndarray, sought: np.ndarray | None = None) -> None:
        self.table, self.sought = table.astype(np.float32), sought

    def vectors(self, index: Any, items: np.ndarray) -> np.ndarray:
        return self.table[items]

    def products(self, query: Any, index: Any, items: np.ndarray) -> np.ndarray:
        return (self.table[items] * self.sought).astype(np.float64)


def slate(
    scores: Any,
    attributes: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    vectors: Any = None,
    learned: Mapping[str, Posterior] | None = None,
) -> Slate:
    """Items 1, 2, … with these scores, best first."""
    scores = np.asarray(scores, np.float64)
    n = len(scores)
    columns = columns or {}
    rows = np.array([np.asarray(column, np.float64) for column in columns.values()]).reshape(len(columns), n).T
    sources = {} if vectors is None else {"near": (vectors, {})}
    facts = Facts(rows, {name: i for i, name in enumerate(columns)}, sources, object(), learned or {})  # type: ignore[arg-type]
    codes = {name: np.asarray(values, np.uint32) for name, values in (attributes or {}).items()}
    order = np.argsort(-scores, kind="stable")
    return Slate(np.arange(1, n + 1, dtype=np.uint32), order, codes, np.ones(n), scores, facts)
