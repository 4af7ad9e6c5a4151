"""Impressions get exactly the outcomes that followed inside their window and had arrived when asked."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.events import schema_of
from penstock.features import View
from penstock.learn import LambdaRank, Recipe, Shown, join_outcomes
from penstock.types import Rows


class Texts:
    """A dictionary of four strings."""

    def text(self, code: int) -> str:
        return ["", "view", "buy", "other"][code] if code < 4 else f"t{code}"

    def code(self, text: str) -> int:
        return {"view": 1, "buy": 2, "other": 3}.get(text, 0)

    def texts(self, codes: np.ndarray) -> list[str]:
        return [self.text(code) for code in codes.tolist()]


class Action(ps.Event):
    user: str
    item: str
    kind: str


SCHEMA = schema_of(Action)
VIEW = View("Shopper", ("user",), {"recent": ps.last("item", k=5)}, SCHEMA)
RECIPE = Recipe("home", "user", "item", (VIEW,), (ps.seen("recent"),), LambdaRank("buy", (VIEW,)))
EVENTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(4, 6), st.integers(4, 6), st.sampled_from([1, 2]))
)
SHOWN = st.lists(st.tuples(st.integers(0, 60), st.integers(4, 6), st.integers(4, 6)))


@settings(max_examples=200, deadline=None)
@given(events=EVENTS, shown=SHOWN, window=st.integers(0, 40), as_of=st.integers(0, 100))
def test_outcomes_equal_their_plain_definition(events: list, shown: list, window: int, as_of: int) -> None:
    """The vectorised join equals a double loop: same pair, later, inside the window, arrived by then."""
    events = sorted(events, key=lambda e: e[0] + e[1])
    fields = np.zeros(len(events), SCHEMA.dtype)
    for i, (_, _, user, item, kind) in enumerate(events):
        fields[i] = (user, item, kind)
    time = np.array([e[0] for e in events], np.int64)
    arrived = np.array([e[0] + e[1] for e in events], np.int64)
    rows = Rows("action", np.arange(len(events)), time, time, arrived, np.arange(len(events), dtype="u8"), fields)
    given_ = Shown(
        np.array([s[1] for s in shown], np.uint32),
        np.array([s[2] for s in shown], np.uint32),
        np.array([s[0] for s in shown], np.int64),
    )
    found = join_outcomes(given_, RECIPE, {"action": rows}, Texts(), window=window, as_of=as_of)
    for i, (at, user, item) in enumerate(shown):
        follow = [
            (e[0], n) for n, e in enumerate(events)
            if e[2:] == (user, item, 2) and e[0] > at and e[0] + e[1] <= as_of
        ]  # fmt: skip
        first = min(follow, default=None)
        hit = first is not None and first[0] <= at + window
        assert found.positive[i] == hit
        assert found.mature[i] == (at + window <= as_of)
        assert (found.delay[i] >= 0) == hit
