"""Request-time columns: element-wise expressions over the features of one decision's rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from penstock.errors import DefinitionError
from penstock.features.columns import is_element_wise
from penstock.registry import registered


@registered("request")
@dataclass(frozen=True, eq=False)
class Request:
    """A feature computed when a decision is made, from `now` (a UTC datetime), features and source scores.

    Args:
        expression: an element-wise Polars expression. It may name ``now``, any feature as
            ``View.feature``, and any candidate source's score by the source's name.
    """

    expression: pl.Expr

    def __post_init__(self) -> None:
        if not is_element_wise(self.expression):
            raise DefinitionError(
                "a request-time column looks at one candidate at a time",
                got=str(self.expression),
                remedy="use an element-wise expression such as col('now').dt.hour()",
            )


def request(expression: pl.Expr) -> Request:
    """A request-time column of a ranker.

    >>> hour = request(pl.col("now").dt.hour())
    """
    return Request(expression)
