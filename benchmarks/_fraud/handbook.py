"""The Handbook's own way: its 15 features, by hand in Polars, under models of scikit-learn and LightGBM."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._fraud.protocol import Payments

MODELS: Mapping[str, Callable[[], object]] = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(random_state=0, max_iter=1_000)),
    "random_forest": lambda: RandomForestClassifier(random_state=0, n_jobs=-1),
    "lightgbm": lambda: lightgbm.LGBMClassifier(random_state=0, verbose=-1),
}
_DELAY = 7


def features(payments: Payments) -> NDArray[np.float64]:
    """The 15 features, (n, 15): a payment counts in its own windows, as in the book."""
    frame = pl.DataFrame(
        {
            "at": np.arange(len(payments)),
            "time": pl.Series(payments.time).cast(pl.Datetime("us")),
            "customer": payments.customer,
            "terminal": payments.terminal,
            "amount": payments.amount / 100,
            "fraud": payments.fraud.astype(np.int64),
        }
    )
    weekend, night = pl.col("time").dt.weekday() > 5, pl.col("time").dt.hour() <= 6
    columns = [frame.select("amount", weekend.alias("weekend").cast(int), night.alias("night").cast(int))]
    for days in (1, 7, 30):
        own = _rolled(frame, "customer", days)
        columns.append(
            own.select((pl.col("amount") / pl.col("n")).alias(f"mean_{days}"), pl.col("n").alias(f"n_{days}"))
        )
    recent = _rolled(frame, "terminal", _DELAY)
    for days in (1, 7, 30):
        longer = _rolled(frame, "terminal", _DELAY + days)
        n = longer["n"] - recent["n"]
        risk = ((longer["fraud"] - recent["fraud"]) / n).fill_nan(0)
        columns.append(pl.DataFrame({f"judged_{days}": n, f"risk_{days}": risk}))
    return pl.concat(columns, how="horizontal").to_numpy().astype(np.float64)


def _rolled(frame: pl.DataFrame, by: str, days: int) -> pl.DataFrame:
    """Number, sum of amounts and frauds of the last days, of each payment in its order."""
    rolled = frame.sort(by, "time").rolling("time", period=f"{days}d", group_by=by).agg(
        pl.len().cast(pl.Int64).alias("n"), pl.col("amount").sum(), pl.col("fraud").sum(), pl.col("at").last()
    )  # fmt: skip
    # Payments of one second share a window; each row stands for itself.
    order = frame.sort(by, "time")["at"]
    return rolled.with_columns(order.alias("at")).sort("at")


def score(
    name: str, rows: NDArray[np.float64], fraud: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a model, fitted to rows and what came of them, says of others, (n,)."""
    model = MODELS[name]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        model.fit(rows, fraud)  # type: ignore[attr-defined]
        return np.asarray(model.predict_proba(asked)[:, 1])  # type: ignore[attr-defined]
