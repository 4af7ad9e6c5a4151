"""Reverse-mode differentiation over NumPy arrays: a graph of tensors, walked backwards once.

Every operation keeps the tensors it was made of and a function that passes a gradient on to them. `gradients` walks the
graph in reverse topological order, so that each tensor has all of its gradient before it passes it on (Linnainmaa,
1970; Baydin et al., "Automatic differentiation in machine learning: a survey", JMLR 2018). What is large and often
used, such as attention or a softmax over a catalogue, is one operation with a gradient of its own, made by `operation`.

The dtype is that of the parameters: float32 to train, float64 to check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.runs import run_starts
from penstock.errors import DefinitionError, PenstockError
from penstock.types import Array


@dataclass(frozen=True, eq=False)
class RowGradient:
    """A gradient that is zero but for some rows of a table: `values` (n, …) belong to `rows` (n,), which may repeat."""

    rows: NDArray[np.int64]
    values: Array
    shape: tuple[int, ...]

    def dense(self) -> Array:
        """The same as one array of the table's shape."""
        rows, values = self.summed()
        out = np.zeros(self.shape, values.dtype)
        out[rows] = values
        return out

    def summed(self) -> tuple[NDArray[np.int64], Array]:
        """Different rows, ascending, and the sum of what belongs to each."""
        order = np.argsort(self.rows, kind="stable")
        rows = self.rows[order]
        starts = run_starts(rows)
        flat = self.values.reshape(len(rows), math.prod(self.shape[1:]))
        return rows[starts], sum_of_rows(flat, np.r_[starts, len(rows)], order).reshape(-1, *self.shape[1:])


def sum_of_rows(values: Array, starts: Array, at: Array, shares: Array | None = None) -> Array:
    """Sums of rows of `values` (m, d): the i-th is that of the rows at[starts[i]] … at[starts[i + 1] - 1], (n, d).

    Args:
        shares: what each of `at` counts; 1, where absent.
    """
    import scipy.sparse  # it takes a while, and comes along with LightGBM

    counted = np.ones(len(at), values.dtype) if shares is None else shares.astype(values.dtype)
    picks = scipy.sparse.csr_array((counted, at, starts), shape=(len(starts) - 1, len(values)))
    return np.asarray(picks @ values)


Gradient = Array | RowGradient
Push = Callable[[Array], Sequence[Gradient | None]]
"""From the gradient of a result to those of what it was made of; None where there is none."""


class Tensor:
    """An array in the graph of what it was computed from.

    Args:
        value: any floats; integers become float64.
        parents: what it was computed from; none of a parameter or an input.
        push: see `Push`.

    >>> x = Tensor([1.0, 2.0])
    >>> gradients((x * x).sum(), [x])[0]
    array([2., 4.])
    """

    __array_ufunc__ = None  # array + tensor is the tensor's business

    def __init__(self, value: Any, parents: Sequence[Tensor] = (), push: Push | None = None) -> None:
        array = np.asarray(value)
        self.value: Array = array if array.dtype.kind == "f" else array.astype(np.float64)
        self.parents = tuple(parents)
        self.push = push

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __add__(self, other: Any) -> Tensor:
        a, b = self, _tensor(other, self)
        return Tensor(a.value + b.value, (a, b), lambda g: (_fit(g, a.shape), _fit(g, b.shape)))

    def __mul__(self, other: Any) -> Tensor:
        a, b = self, _tensor(other, self)
        return Tensor(
            a.value * b.value, (a, b), lambda g: (_fit(g * b.value, a.shape), _fit(g * a.value, b.shape))
        )  # fmt: skip

    def __truediv__(self, other: Any) -> Tensor:
        a, b = self, _tensor(other, self)
        value = a.value / b.value
        return Tensor(value, (a, b), lambda g: (_fit(g / b.value, a.shape), _fit(-g * value / b.value, b.shape)))

    def __matmul__(self, other: Any) -> Tensor:
        """Matrix product of at least two dimensions each; further ones are broadcast."""
        a, b = self, _tensor(other, self)
        if a.value.ndim < 2 or b.value.ndim < 2:
            raise DefinitionError(
                "a matrix product is of matrices", got=f"shapes {a.shape} and {b.shape}",
                remedy="give a vector a second dimension: x.reshape(1, -1)",
            )  # fmt: skip

        def push(g: Array) -> Sequence[Array]:
            if b.value.ndim == 2:  # one product for all rows, rather than a stack of small ones
                rows = g.reshape(-1, g.shape[-1])
                return g @ b.value.T, a.value.reshape(-1, a.shape[-1]).T @ rows
            return _fit(g @ b.value.swapaxes(-1, -2), a.shape), _fit(a.value.swapaxes(-1, -2) @ g, b.shape)

        return Tensor(a.value @ b.value, (a, b), push)

    def __neg__(self) -> Tensor:
        return self * -1.0

    def __sub__(self, other: Any) -> Tensor:
        return self + _tensor(other, self) * -1.0

    def __radd__(self, other: Any) -> Tensor:
        return _tensor(other, self) + self

    def __rmul__(self, other: Any) -> Tensor:
        return _tensor(other, self) * self

    def __rsub__(self, other: Any) -> Tensor:
        return _tensor(other, self) - self

    def __rtruediv__(self, other: Any) -> Tensor:
        return _tensor(other, self) / self

    def __pow__(self, power: float) -> Tensor:
        def push(g: Array) -> Sequence[Array]:
            # x ** 0 is 1 everywhere, also at 0, where x ** -1 is none.
            return (g * power * self.value ** (power - 1) if power else np.zeros_like(self.value),)

        return Tensor(self.value**power, (self,), push)

    def __getitem__(self, index: Any) -> Tensor:
        """Part of it, by slices, masks or indices; what indices name twice gets both gradients."""
        parts = index if isinstance(index, tuple) else (index,)
        twice = any(isinstance(part, (list, np.ndarray)) and np.asarray(part).dtype.kind in "iu" for part in parts)

        def push(g: Array) -> Sequence[Array]:
            out = np.zeros_like(self.value)
            if twice:
                np.add.at(out, index, g)
            else:
                out[index] = g
            return (out,)

        return Tensor(self.value[index], (self,), push)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        def push(g: Array) -> Sequence[Array]:
            spread = g if keepdims or axis is None else np.expand_dims(g, axis)
            return (np.broadcast_to(spread, self.shape),)

        return Tensor(self.value.sum(axis=axis, keepdims=keepdims), (self,), push)

    def mean(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        count = self.value.size if axis is None else self.shape[axis]
        return self.sum(axis, keepdims) * (1.0 / count)

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.value.reshape(shape), (self,), lambda g: (g.reshape(self.shape),))

    def swapaxes(self, a: int, b: int) -> Tensor:
        return Tensor(self.value.swapaxes(a, b), (self,), lambda g: (g.swapaxes(a, b),))

    @property
    def T(self) -> Tensor:
        return self.swapaxes(-1, -2)


def operation(value: Any, inputs: Sequence[Tensor], push: Push) -> Tensor:
    """An operation with a gradient of its own: what it gave for `inputs`, and how a gradient is passed back to them."""
    return Tensor(value, inputs, push)


def exp(x: Tensor) -> Tensor:
    value = np.exp(x.value)
    return Tensor(value, (x,), lambda g: (g * value,))


def log(x: Tensor) -> Tensor:
    return Tensor(np.log(x.value), (x,), lambda g: (g / x.value,))


def tanh(x: Tensor) -> Tensor:
    value = np.tanh(x.value)
    return Tensor(value, (x,), lambda g: (g * (1 - value * value),))


def sigmoid(x: Tensor) -> Tensor:
    value = 0.5 * (np.tanh(0.5 * x.value) + 1)  # without overflow
    return Tensor(value, (x,), lambda g: (g * value * (1 - value),))


def relu(x: Tensor) -> Tensor:
    value = np.maximum(x.value, 0)
    return Tensor(value, (x,), lambda g: (g * (value > 0),))


def concat(parts: Sequence[Tensor], axis: int = -1) -> Tensor:
    """Several tensors, one after the other along an axis."""
    cuts = np.cumsum([part.shape[axis] for part in parts])[:-1]
    value = np.concatenate([part.value for part in parts], axis)
    return Tensor(value, parts, lambda g: np.split(g, cuts, axis))


def rows(table: Tensor, index: Array) -> Tensor:
    """The rows of a table (size, …) at `index` of any shape; its gradient names these rows alone."""
    flat = np.asarray(index).reshape(-1).astype(np.int64)

    def push(g: Array) -> Sequence[Gradient]:
        return (RowGradient(flat, g.reshape(len(flat), *table.shape[1:]), table.shape),)

    return Tensor(table.value[index], (table,), push)


def logsumexp(x: Tensor, axis: int = -1) -> Tensor:
    """log Σ exp(x) along an axis, without overflow."""
    top = x.value.max(axis=axis, keepdims=True)
    powers = np.exp(x.value - top)
    total = powers.sum(axis=axis, keepdims=True)
    value = (np.log(total) + top).squeeze(axis)
    return Tensor(value, (x,), lambda g: (np.expand_dims(g, axis) * powers / total,))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) as shares along an axis."""
    powers = np.exp(x.value - x.value.max(axis=axis, keepdims=True))
    value = powers / powers.sum(axis=axis, keepdims=True)
    return Tensor(value, (x,), lambda g: (value * (g - (g * value).sum(axis=axis, keepdims=True)),))


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """The last axis (…, d) with mean 0 and variance 1, times `scale` (d,), plus `shift` (d,) (Ba et al., 2016)."""
    normal = x.value - _sums(x.value)[..., None] / x.shape[-1]
    spread = 1.0 / np.sqrt(_products(normal, normal)[..., None] / x.shape[-1] + eps)
    normal *= spread

    def push(g: Array) -> Sequence[Array]:
        inner = g * scale.value
        back = inner - _sums(inner)[..., None] / x.shape[-1]
        back -= normal * (_products(inner, normal)[..., None] / x.shape[-1])
        back *= spread
        return back, _fit(g * normal, scale.shape), _fit(g, shift.shape)

    value = normal * scale.value
    value += shift.value
    return Tensor(value, (x, scale, shift), push)


def unit(x: Tensor, eps: float = 1e-12) -> Tensor:
    """The last axis (…, d) with length 1; what has no length stays zero."""
    length = np.sqrt(_products(x.value, x.value)[..., None]) + eps
    value = x.value / length
    return Tensor(value, (x,), lambda g: ((g - value * _products(g, value)[..., None]) / length,))


def _sums(x: Array) -> Array:
    """Of the last axis, (…,); as a product of matrices it takes a fraction of what a reduction does."""
    ones = np.ones(x.shape[-1], x.dtype)
    return np.asarray((x.reshape(-1, x.shape[-1]) @ ones).reshape(x.shape[:-1]))


def _products(a: Array, b: Array) -> Array:
    """Σ a · b of the last axis, (…,)."""
    return np.asarray(np.einsum("...d,...d->...", a, b))


def dropout(x: Tensor, share: float, random: np.random.Generator | None) -> Tensor:
    """Sets a share of the values to 0 and scales the rest up (Srivastava et al., 2014); without `random`, x itself."""
    if random is None or not share:
        return x
    kept = (random.random(x.shape, np.float32) >= share).astype(x.value.dtype) * (1 / (1 - share))
    return Tensor(x.value * kept, (x,), lambda g: (g * kept,))


def gradients(of: Tensor, wrt: Sequence[Tensor]) -> list[Gradient]:
    """The gradient of a single number in each of some tensors; zeros where it does not depend on one.

    Returns:
        Arrays of the tensors' shapes; a `RowGradient` for a table of which only rows were taken.

    Raises:
        DefinitionError: `of` is more than one number.
    """
    if of.value.size != 1:
        raise DefinitionError(
            "a gradient is that of one number", got=f"shape {of.shape}", remedy="take its sum or mean first"
        )
    found: dict[int, list[Gradient]] = {id(of): [np.ones_like(of.value)]}
    wanted = {id(tensor) for tensor in wrt}
    kept: dict[int, Gradient] = {}
    for tensor in reversed(list(_ordered(of, wanted))):
        parts = found.pop(id(tensor), None)
        if parts is None:
            continue
        whole = total(parts)
        if id(tensor) in wanted:
            kept[id(tensor)] = whole
        if tensor.push is None:
            continue
        dense = whole.dense() if isinstance(whole, RowGradient) else whole
        for parent, part in zip(tensor.parents, tensor.push(dense), strict=True):
            if part is not None:
                found.setdefault(id(parent), []).append(part)
    return [kept.get(id(tensor), np.zeros_like(tensor.value)) for tensor in wrt]


def _ordered(of: Tensor, wanted: set[int]) -> Iterator[Tensor]:
    """What leads from the wanted tensors to `of`, each after everything it was made of."""
    leads: dict[int, bool] = {}
    stack: list[tuple[Tensor, bool]] = [(of, False)]
    while stack:
        tensor, done = stack.pop()
        if done:
            leads[id(tensor)] = id(tensor) in wanted or any(leads[id(parent)] for parent in tensor.parents)
            if leads[id(tensor)]:
                yield tensor
        elif id(tensor) not in leads:
            leads[id(tensor)] = False
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in tensor.parents if id(parent) not in leads)


def total(parts: Sequence[Gradient]) -> Gradient:
    """The sum of gradients of one tensor: of rows where all are, else an array."""
    sparse = [part for part in parts if isinstance(part, RowGradient)]
    dense = [part for part in parts if not isinstance(part, RowGradient)]
    if not sparse:
        out: Array = dense[0]
        for part in dense[1:]:
            out = out + part
        return out
    joined = RowGradient(
        np.concatenate([part.rows for part in sparse]), np.concatenate([part.values for part in sparse]),
        sparse[0].shape
    )  # fmt: skip
    if not dense:
        return joined
    out = sum(dense[1:], dense[0].copy())
    where, values = joined.summed()
    out[where] += values
    return out


def _tensor(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(np.asarray(value, like.value.dtype))


def _fit(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums a gradient over what broadcasting had repeated."""
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(added))) if added else gradient
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=repeated, keepdims=True) if repeated else gradient


class GradientError(PenstockError):
    """An analytic gradient is not that of the function."""


def gradcheck(function: Callable[..., Tensor], *inputs: Any, step: float = 1e-6, tolerance: float = 1e-5) -> float:
    """The largest difference between a function's gradients and central differences, both in float64.

    Differences are relative where a gradient is above 1. Outputs of several numbers are weighted by fixed random
    numbers and summed.

    Args:
        function: of tensors; it must give the same for the same inputs.
        inputs: arrays of any shape, at which it is checked.

    Raises:
        GradientError: a difference is above `tolerance`.

    >>> gradcheck(lambda x: tanh(x).sum(), np.array([0.3, -2.0])) < 1e-8
    True
    """
    arrays = [np.array(value, np.float64) for value in inputs]

    def value(at: Sequence[Array]) -> tuple[Tensor, list[Tensor]]:
        tensors = [Tensor(array.copy()) for array in at]
        out = function(*tensors)
        weights = np.random.default_rng(7).normal(size=out.shape)
        return (out * weights).sum(), tensors

    summed, tensors = value(arrays)
    worst = 0.0
    for place, found in enumerate(gradients(summed, tensors)):
        analytic = found.dense() if isinstance(found, RowGradient) else found
        for at in np.ndindex(arrays[place].shape):
            ends = []
            for side in (step, -step):
                moved = [array.copy() for array in arrays]
                moved[place][at] += side
                ends.append(float(value(moved)[0].value))
            numeric = (ends[0] - ends[1]) / (2 * step)
            difference = abs(numeric - analytic[at]) / max(1.0, abs(numeric))
            if not difference <= tolerance:
                raise GradientError(
                    f"an analytic gradient agrees with differences to {tolerance:g}",
                    got=f"{analytic[at]:.8g} against {numeric:.8g} of input {place} at {at}",
                    remedy="look at how the last operation passes its gradient back",
                )
            worst = max(worst, float(difference))
    return worst
