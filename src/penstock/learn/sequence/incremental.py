"""The network one event at a time: keys and values of what came before are kept, so that one more costs its length.

The same steps in the same order give the same bits, whether what came before was kept or is gone through again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penstock.learn.attention import Kept
from penstock.learn.autodiff import Tensor
from penstock.learn.sequence.network import Attributes, Form, gap_bucket, vectors
from penstock.types import Array

_EPS = np.float32(1e-5)


@dataclass(frozen=True, eq=False)
class State:
    """What is kept of one sequence: each layer's keys and values, and what the network last gave, (width,)."""

    layers: tuple[Kept, ...]
    found: Array

    @property
    def length(self) -> int:
        return self.layers[0].length if self.layers else 0


class Stepper:
    """A trained network, for one sequence at a time.

    Args:
        form: its sizes; weights: as `train` gives them.
        attributes: of the items, where it was trained with them.
        most: events of a sequence at most.

    Attributes:
        table: (items, width), every item's vector; a product with `State.found` is an item's score, but for `scale`.
    """

    def __init__(
        self, form: Form, weights: Mapping[str, Array], attributes: Attributes | None = None, *, most: int = 128
    ) -> None:
        self.form, self._weights, self.most = form, weights, most
        self.table = np.ascontiguousarray(vectors(form, {n: Tensor(w) for n, w in weights.items()}, attributes).value)
        self._bias = [weights[f"{layer}.distance"] for layer in range(form.layers)]

    def start(self) -> State:
        """Before any event."""
        form = self.form
        width = form.width // form.heads
        dtype = self.table.dtype.type
        layers = tuple(Kept(form.heads, width, self.most, dtype) for _ in range(form.layers))
        return State(layers, np.zeros(form.width, dtype))

    def step(self, state: State, item: int, kind: int = 0, gap: float = 0.0) -> State:
        """After one more event; the state that was given has been used up, unless it was copied before.

        Args:
            item, kind: codes; gap: seconds since the event before.
        """
        w, form = self._weights, self.form
        x = self.table[item]
        if "kind" in w:
            x = x + w["kind"][kind]
        if "gap" in w:
            x = x + w["gap"][int(gap_bucket(np.array(gap)))]
        for layer, kept in enumerate(state.layers):
            seen = self._norm(x, f"{layer}.norm1")
            query, key, value = (
                (seen @ w[f"{layer}.{name}"]).reshape(form.heads, -1) for name in ("query", "key", "value")
            )
            found = kept.step(query, key, value, self._bias[layer]).reshape(-1)
            x = x + found @ w[f"{layer}.out"] + w[f"{layer}.out_bias"]
            inner = np.maximum(self._norm(x, f"{layer}.norm2") @ w[f"{layer}.in"] + w[f"{layer}.in_bias"], 0)
            x = x + inner @ w[f"{layer}.back"] + w[f"{layer}.back_bias"]
        out = self._norm(x, "norm")
        return State(state.layers, out / (np.sqrt(out @ out) + out.dtype.type(1e-12)) if form.cosine else out)

    def copied(self, state: State) -> State:
        """The same, to go on from by itself."""
        return State(tuple(kept.copy() for kept in state.layers), state.found)

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean()
        spread = np.sqrt(centred @ centred / x.dtype.type(len(x)) + _EPS)
        return np.asarray(centred / spread * self._weights[f"{name}.scale"] + self._weights[f"{name}.shift"])
