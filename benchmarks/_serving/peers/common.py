"""What both peers share: the ranker, candidates by shopper, and what an event changes in a row of features."""

import json
import os
from pathlib import Path

import lightgbm
import numpy as np
import orjson
from pydantic import BaseModel

DATA = Path(os.environ["PEER_DATA"])
NAMES = json.loads((DATA / "names.json").read_text())
USER_ROWS = np.load(DATA / "user_rows.npy")
ITEM_ROWS = np.load(DATA / "item_rows.npy")
COLUMNS = NAMES["columns"]
KINDS = ("view", "cart", "buy")


class Ask(BaseModel):
    """A request for a decision."""

    user: str
    k: int = 20


class Event(BaseModel):
    """Something a shopper did."""

    user: str
    item: str
    kind: str
    price: float | None = None
    time: float | None = None


class Ranker:
    """The trees, and each shopper's 200 candidates with the scores of the sources that found them."""

    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=DATA / "model.txt")
        candidates, scores = np.load(DATA / "candidates.npy"), np.load(DATA / "scores.npy")
        items = np.array(NAMES["items"], dtype=object)
        self.items = {user: items[row].tolist() for user, row in zip(NAMES["users"], candidates, strict=True)}
        self.scores = dict(zip(NAMES["users"], scores, strict=True))

    def answer(self, user: str, k: int, user_row: np.ndarray, item_rows: np.ndarray) -> bytes:
        """The best k as JSON, from features in the order of training."""
        names, scores = self.items[user], self.scores[user]
        rows = np.empty((len(names), user_row.shape[-1] + item_rows.shape[1] + scores.shape[1]), np.float32)
        rows[:, : len(user_row)] = user_row
        rows[:, len(user_row) : -scores.shape[1]] = item_rows
        rows[:, -scores.shape[1] :] = scores
        found = self.booster.predict(rows, num_threads=1)
        best = np.argsort(-found, kind="stable")[:k].tolist()
        return orjson.dumps({"items": [{"id": names[i], "score": float(found[i])} for i in best], "tier": "personal"})


def steps(columns: list[str]) -> dict[str, np.ndarray]:
    """By kind of event, what it adds to each column of a row."""
    return {
        kind: np.array([name.startswith(("actions", f"{kind}s")) for name in columns], np.float32) for kind in KINDS
    }


USER_STEPS, ITEM_STEPS = steps(COLUMNS["Shopper"]), steps(COLUMNS["Product"])
