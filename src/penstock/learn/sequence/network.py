"""Self-attention over what a shopper did lately: a network that says what comes next, after each event.

A token is an item with the kind of the event and the time since the one before; blocks of causal self-attention and of
a feed-forward layer follow, each on what is normalised before it (Kang and McAuley, "Self-attentive sequential
recommendation", ICDM 2018; Xiong et al., "On layer normalization in the transformer architecture", ICML 2020). An
item's score is the product of its vector and what the last block gives, both of length 1 where `cosine` is set. An
item's vector is its own row, plus the mean of its attributes' rows, so that an item nobody has touched has one, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.learn.attention import attention, heads_of, joined
from penstock.learn.autodiff import Tensor, dropout, layer_norm, operation, relu, rows, sum_of_rows, unit
from penstock.retrieve.base import between
from penstock.types import Array

Weights = Mapping[str, Array]
TABLES = ("item", "kind", "gap", "attribute")
"""The weights of which row 0 stands for what is missing, and is zero."""
_GAPS = 24
"""Buckets of the time since the event before, each twice as long as the last, from a second to half a year."""


@dataclass(frozen=True)
class Form:
    """The sizes of a network.

    Args:
        items, kinds: how many codes there are, 0, for what is missing, among them; without kinds there is one.
        width: of every vector; heads: of attention; layers: blocks.
        distances: places back that attention tells apart.
        timed: whether the time between events is looked at.
        cosine: whether vectors are compared at length 1.
        scale: times the products of vectors; with cosines 1 / temperature.
        attributes: how many codes of attributes there are, 0 among them; 1 for none.
        wide: the feed-forward layer's width, in widths.
    """

    items: int
    kinds: int = 1
    width: int = 64
    heads: int = 2
    layers: int = 1
    distances: int = 50
    timed: bool = False
    cosine: bool = True
    scale: float = 14.0
    attributes: int = 1
    wide: int = 2


@dataclass(frozen=True, eq=False)
class Attributes:
    """What is known of each item beside its code: those of item i are codes[starts[i]] … codes[starts[i + 1] - 1]."""

    starts: NDArray[np.int64]
    codes: NDArray[np.int64]

    @property
    def items(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Attributes:
        """From each item's codes, 1 or more."""
        sizes = [len(part) for part in lists]
        return cls(np.r_[0, np.cumsum(sizes)].astype(np.int64), np.array([c for part in lists for c in part], np.int64))

    def take(self, which: NDArray[np.int64]) -> Attributes:
        """Those of some items, in their order."""
        first, end = self.starts[which], self.starts[which + 1]
        return Attributes(np.r_[0, np.cumsum(end - first)].astype(np.int64), self.codes[between(first, end)])


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sequences (batch, length) of codes, oldest first; after a sequence's end they are 0.

    `kind` are codes of the kinds of events, `gap` seconds since the event before, 0 for the first.
    """

    item: NDArray[np.int64]
    kind: NDArray[np.int64] | None = None
    gap: NDArray[np.float64] | None = None

    def take(self, which: slice) -> Tokens:
        """Some of the sequences."""
        kind = None if self.kind is None else self.kind[which]
        return Tokens(self.item[which], kind, None if self.gap is None else self.gap[which])


def gap_bucket(seconds: Array) -> NDArray[np.int64]:
    """The bucket of a time since the event before: 0 for none, then one for each doubling.

    >>> gap_bucket(np.array([0.0, 1.0, 3.0, 1e9])).tolist()
    [0, 1, 2, 23]
    """
    exponent = np.frexp(np.maximum(seconds, 0.0))[1]  # exact, where a logarithm would round
    return np.clip(np.where(seconds > 0, np.maximum(exponent, 1), 0), 0, _GAPS - 1).astype(np.int64)


def begin(form: Form, random: np.random.Generator, dtype: type[np.floating] = np.float32) -> dict[str, Array]:
    """Weights to start training from; row 0 of each table is zero and stays so."""
    d, root = form.width, 1 / np.sqrt(form.width)

    def table(n: int, scale: float) -> Array:
        out = (random.normal(size=(n, d)) * scale).astype(dtype)
        out[0] = 0
        return out

    def matrix(rows: int, columns: int) -> Array:
        return np.asarray(random.normal(size=(rows, columns)) * np.sqrt(1 / rows), dtype)

    weights = {"item": table(form.items, root)}
    if form.kinds > 1:
        weights["kind"] = table(form.kinds, root)
    if form.timed:
        weights["gap"] = table(_GAPS, root)
    if form.attributes > 1:
        weights["attribute"] = table(form.attributes, root)
    for layer in range(form.layers):
        weights |= {
            f"{layer}.query": matrix(d, d), f"{layer}.key": matrix(d, d), f"{layer}.value": matrix(d, d),
            f"{layer}.out": matrix(d, d) * dtype(0.5), f"{layer}.out_bias": np.zeros(d, dtype),
            f"{layer}.in": matrix(d, form.wide * d), f"{layer}.back": matrix(form.wide * d, d) * dtype(0.5),
            f"{layer}.distance": np.zeros((form.heads, form.distances), dtype),
            f"{layer}.in_bias": np.zeros(form.wide * d, dtype), f"{layer}.back_bias": np.zeros(d, dtype),
        }  # fmt: skip
    for name in [f"{layer}.norm{i}" for layer in range(form.layers) for i in (1, 2)] + ["norm"]:
        weights |= {f"{name}.scale": np.ones(d, dtype), f"{name}.shift": np.zeros(d, dtype)}
    return weights


def vectors(
    form: Form, weights: Mapping[str, Tensor], attributes: Attributes | None, used: NDArray[np.int64] | None = None
) -> Tensor:
    """The items' vectors, as they are compared and as they are read, (items, width).

    Args:
        used: (n,) codes of those wanted, for (n, width); all, where absent.
    """
    table = weights["item"] if used is None else rows(weights["item"], used)
    if attributes is not None and "attribute" in weights:
        table = table + mean_rows(weights["attribute"], attributes if used is None else attributes.take(used))
    return unit(table) if form.cosine else table


def encode(
    form: Form,
    weights: Mapping[str, Tensor],
    table: Tensor,
    tokens: Tokens,
    *,
    drop: float = 0.0,
    random: np.random.Generator | None = None,
) -> Tensor:
    """What a shopper looks for after each event, (batch, length, width), to be compared with `vectors`.

    Args:
        table: what `vectors` gives.
        drop: the share dropped while training; none without `random`.
    """
    x = rows(table, tokens.item)
    if tokens.kind is not None and "kind" in weights:
        x = x + rows(weights["kind"], tokens.kind)
    if tokens.gap is not None and "gap" in weights:
        x = x + rows(weights["gap"], gap_bucket(tokens.gap))
    x = dropout(x, drop, random)
    for layer in range(form.layers):

        def part(name: str, layer: int = layer) -> Tensor:
            return weights[f"{layer}.{name}"]

        seen = layer_norm(x, part("norm1.scale"), part("norm1.shift"))
        query, key, value = (heads_of(seen @ part(name), form.heads) for name in ("query", "key", "value"))
        found = joined(attention(query, key, value, part("distance"))) @ part("out") + part("out_bias")
        x = x + dropout(found, drop, random)
        inner = relu(layer_norm(x, part("norm2.scale"), part("norm2.shift")) @ part("in") + part("in_bias"))
        x = x + dropout(inner @ part("back") + part("back_bias"), drop, random)
    out = layer_norm(x, weights["norm.scale"], weights["norm.shift"])
    return unit(out) if form.cosine else out


def mean_rows(table: Tensor, attributes: Attributes) -> Tensor:
    """The mean of each item's attributes' rows, (items, width); zero for an item that has none."""
    size = np.diff(attributes.starts)
    share = np.repeat(1 / np.maximum(size, 1), size)
    order = np.argsort(attributes.codes, kind="stable")
    owner = np.repeat(np.arange(attributes.items), size)[order]
    starts = np.searchsorted(attributes.codes[order], np.arange(len(table.value) + 1))

    def push(g: Array) -> tuple[Array]:
        return (sum_of_rows(g, starts, owner, share[order]),)

    return operation(sum_of_rows(table.value, attributes.starts, attributes.codes, share), (table,), push)
