"""The network by its definition, in float64 and place by place: what audits hold the quick forms against.

It shares no code with them: neither attention, nor normalisation, nor buckets of time, nor the table of items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.learn.sequence.network import Attributes, Form
from penstock.types import Array

Floats = NDArray[np.float64]


class Plain:
    """A trained network, from a sequence to how well every item fits.

    Args:
        form, weights, attributes: as `Stepper` takes them.
    """

    def __init__(self, form: Form, weights: Mapping[str, Array], attributes: Attributes | None = None) -> None:
        self.form = form
        self._weights = {name: value.astype(np.float64) for name, value in weights.items()}
        table = self._weights["item"].copy()
        if attributes is not None and "attribute" in weights:
            for item in range(len(table)):
                said = attributes.codes[attributes.starts[item] : attributes.starts[item + 1]]
                if len(said):
                    table[item] += self._weights["attribute"][said].mean(axis=0)
        self.table = _units(table) if form.cosine else table

    def fits(self, events: Sequence[tuple[int, int, float]]) -> Floats:
        """The product of every item's vector, (items,), and what is looked for after some events, oldest first.

        Args:
            events: item, kind and the seconds since the event before, of each.
        """
        w, x = self._weights, np.stack([self.table[item] for item, _, _ in events])
        for place, (_, kind, gap) in enumerate(events):
            if "kind" in w:
                x[place] += w["kind"][kind]
            if "gap" in w:
                x[place] += w["gap"][self._bucket(gap)]
        for layer in range(self.form.layers):
            part = {name.partition(".")[2]: value for name, value in w.items() if name.startswith(f"{layer}.")}
            x = x + self._seen(part, self._normal(x, part, "norm1.")) @ part["out"] + part["out_bias"]
            inner = self._normal(x, part, "norm2.") @ part["in"] + part["in_bias"]
            x = x + np.where(inner > 0, inner, 0.0) @ part["back"] + part["back_bias"]
        last = self._normal(x[-1:], w, "norm.")
        return np.asarray(self.table @ (_units(last) if self.form.cosine else last)[0])

    def _seen(self, part: Mapping[str, Floats], x: Floats) -> Floats:
        """What each place sees of itself and those before it, by heads, one beside the other."""
        out, width = np.zeros_like(x), self.form.width // self.form.heads
        for head in range(self.form.heads):
            mine = slice(head * width, (head + 1) * width)
            query, key, value = (x @ part[name][:, mine] for name in ("query", "key", "value"))
            for place in range(len(x)):
                logits = [
                    query[place] @ key[other] / width**0.5
                    + part["distance"][head, min(place - other, self.form.distances - 1)]
                    for other in range(place + 1)
                ]
                shares = np.exp(np.array(logits) - max(logits))
                out[place, mine] = shares @ value[: place + 1] / shares.sum()
        return out

    def _normal(self, x: Floats, part: Mapping[str, Floats], name: str) -> Floats:
        mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        return np.asarray((x - mean) / (variance + 1e-5) ** 0.5 * part[f"{name}scale"] + part[f"{name}shift"])

    def _bucket(self, gap: float) -> int:
        """0 for no time, then 1 below two seconds, 2 below four, and so on; the last one has no end."""
        bucket, end = 1, 2.0
        while gap >= end:
            bucket, end = bucket + 1, end * 2
        return min(bucket, len(self._weights["gap"]) - 1) if gap > 0 else 0


def _units(rows: Floats) -> Floats:
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))
