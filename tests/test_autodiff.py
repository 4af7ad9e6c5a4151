"""Gradients are those of the functions, by differences and by PyTorch; optimisers step as PyTorch's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn import autodiff as ad
from penstock.learn.autodiff import GradientError, RowGradient, Tensor, gradcheck, gradients
from penstock.learn.optimise import SGD, Adagrad, Adam, Optimiser

RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> Any:
    return RANDOM.normal(size=shape)


OPERATIONS: dict[str, tuple[Callable[..., Tensor], list[Any]]] = {
    "add, broadcast": (lambda a, b: a + b, [normal(2, 3), normal(3)]),
    "subtract a number": (lambda a: 2.0 - a - 1.0, [normal(3)]),
    "multiply, broadcast": (lambda a, b: a * b, [normal(2, 1, 3), normal(4, 1)]),
    "divide": (lambda a, b: a / (b * b + 1.0), [normal(2, 3), normal(3)]),
    "one over": (lambda a: 1.0 / (a * a + 1.0), [normal(3)]),
    "power of nought": (lambda a: a**0 + a**1.0, [np.array([0.0, -1.0, 2.0])]),
    "power": (lambda a: (a * a + 0.5) ** 1.5, [normal(4)]),
    "matrices": (lambda a, b: a @ b, [normal(3, 4), normal(4, 2)]),
    "a stack by one matrix": (lambda a, b: a @ b, [normal(2, 3, 4), normal(4, 2)]),
    "two stacks": (lambda a, b: a @ b, [normal(2, 3, 4), normal(2, 4, 2)]),
    "a matrix by a stack": (lambda a, b: a @ b, [normal(3, 4), normal(2, 4, 2)]),
    "transpose": (lambda a: a.T @ a, [normal(3, 2)]),
    "sum along": (lambda a: a.sum(axis=1), [normal(2, 3, 2)]),
    "sum kept": (lambda a: a.sum(axis=-1, keepdims=True) * a, [normal(2, 3)]),
    "mean": (lambda a: a.mean(axis=0) * a.mean(), [normal(2, 3)]),
    "reshape": (lambda a: a.reshape(3, 2) @ a, [normal(2, 3)]),
    "slice": (lambda a: a[:, 1:] * a[:, :-1], [normal(2, 4)]),
    "mask": (lambda a: a[np.array([True, False, True])] * 3.0, [normal(3, 2)]),
    "places that repeat": (lambda a: a[np.array([0, 2, 0])] * normal_fixed, [normal(3, 2)]),
    "rows that repeat": (lambda a: ad.rows(a, np.array([[0, 2], [2, 2]])), [normal(3, 2)]),
    "rows and all of a table": (lambda a: ad.rows(a, np.array([0, 1])) @ a.T, [normal(3, 2)]),
    "exp, log": (lambda a: ad.log(ad.exp(a) + 1.0), [normal(4)]),
    "tanh": (ad.tanh, [normal(4)]),
    "sigmoid": (ad.sigmoid, [normal(4)]),
    "relu": (ad.relu, [normal(7)]),
    "concat": (lambda a, b: ad.concat([a, b, a]) * 2.0, [normal(2, 3), normal(2, 1)]),
    "logsumexp": (lambda a: ad.logsumexp(a, axis=0), [normal(3, 2)]),
    "softmax": (ad.softmax, [normal(3, 4)]),
    "layer norm": (ad.layer_norm, [normal(2, 3, 5), normal(5), normal(5)]),
    "unit": (ad.unit, [normal(3, 4)]),
    "used twice": (lambda a: ad.tanh(a) * a + a, [normal(3)]),
    "dropout": (lambda a: ad.dropout(a, 0.5, np.random.default_rng(1)), [normal(6)]),
}  # fmt: skip
normal_fixed = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_gradient_of_each_operation_is_that_of_differences(name: str) -> None:
    """To 1e-7 in float64, broadcast or not, for inputs that are used once or several times."""
    function, inputs = OPERATIONS[name]
    assert gradcheck(function, *inputs, tolerance=1e-7) <= 1e-7


def test_every_public_operation_is_checked() -> None:
    """A new operation of the module is in the table above."""
    source = " ".join(str(code.__code__.co_names) for code, _ in OPERATIONS.values() if hasattr(code, "__code__"))
    named = {code.__name__ for code, _ in OPERATIONS.values()}
    public = {
        name for name, value in vars(ad).items()
        if callable(value) and getattr(value, "__module__", "") == ad.__name__ and name[0].islower() and name[0] != "_"
    }  # fmt: skip
    helpers = {"gradcheck", "gradients", "operation", "run_starts", "sum_of_rows", "total"}
    assert {name for name in public - helpers if name not in named and f"'{name}'" not in source} == set()


def test_a_wrong_gradient_is_found() -> None:
    """gradcheck refuses an operation that passes back twice of what it should, and names the place."""
    with pytest.raises(GradientError, match="input 0 at"):
        gradcheck(lambda a: ad.operation(a.value**2, [a], lambda g: (4 * g * a.value,)), normal(3))


def test_a_deep_graph_does_not_recurse() -> None:
    """Ten thousand operations, one after the other, have a gradient."""
    x = y = Tensor(np.ones(1))
    for _ in range(10_000):
        y = y * 1.0
    assert gradients(y.sum(), [x])[0] == 1.0


def test_what_is_shared_is_walked_once() -> None:
    """A graph of 2^60 paths, through 60 sums of a thing with itself, has a gradient."""
    x = y = Tensor(np.ones(1))
    for _ in range(60):
        y = y + y
    assert gradients(y.sum(), [x])[0] == 2.0**60


def test_a_gradient_of_rows_names_only_these() -> None:
    """A table of which rows were taken gets their gradients alone; with a dense use beside, an array."""
    table = Tensor(normal(5, 2))
    sparse = gradients(ad.rows(table, np.array([3, 1, 3])).sum(), [table])[0]
    assert isinstance(sparse, RowGradient)
    assert sparse.summed()[0].tolist() == [1, 3]
    np.testing.assert_array_equal(sparse.dense()[:, 0], [0, 1, 0, 2, 0])
    both = gradients((ad.rows(table, np.array([1])).sum() + table.sum()), [table])[0]
    np.testing.assert_array_equal(np.asarray(both)[:, 0], [1, 2, 1, 1, 1])


def test_a_gradient_of_no_rows_is_zero() -> None:
    """A batch that takes no row of a table leaves it as it is, also where rows have several dimensions."""
    for shape in ((5, 2), (5, 2, 3), (5,)):
        table = Tensor(np.ones(shape, np.float32))
        sparse = gradients(ad.rows(table, np.zeros(0, np.int64)).sum(), [table])[0]
        assert isinstance(sparse, RowGradient)
        places, values = sparse.summed()
        assert (places.shape, values.shape) == ((0,), (0, *shape[1:]))
        np.testing.assert_array_equal(sparse.dense(), np.zeros(shape))


def test_what_does_not_depend_has_gradient_zero() -> None:
    """A parameter beside the graph gets zeros of its shape."""
    x, other = Tensor(normal(2)), Tensor(normal(3))
    np.testing.assert_array_equal(np.asarray(gradients(x.sum(), [other])[0]), np.zeros(3))


def test_refusals_say_what_to_do() -> None:
    """A gradient of several numbers, and a product with a vector, are refused with a remedy."""
    with pytest.raises(DefinitionError, match="take its sum or mean"):
        gradients(Tensor(normal(2)), [])
    with pytest.raises(DefinitionError, match="second dimension"):
        Tensor(normal(2, 2)) @ Tensor(normal(2))


def test_float32_stays_float32() -> None:
    """Neither numbers nor constants widen what is trained in float32."""
    x = Tensor(normal(2, 3).astype(np.float32))
    y = ad.unit(ad.layer_norm((x * 2.0 + 1.0) / 3.0 - 0.5, x[0], x[1])).mean()
    assert y.value.dtype == np.float32
    assert np.asarray(gradients(y, [x])[0]).dtype == np.float32


@pytest.mark.parametrize("name", ["a stack by one matrix", "layer norm", "softmax", "logsumexp", "unit"])
def test_gradients_are_pytorchs(name: str) -> None:
    """To 1e-6, for those that PyTorch has as well."""
    torch = pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    theirs = {
        "a stack by one matrix": torch.matmul, "softmax": lambda a: torch.softmax(a, -1),
        "layer norm": lambda a, s, b: torch.nn.functional.layer_norm(a, a.shape[-1:], s, b),
        "logsumexp": lambda a: torch.logsumexp(a, 0), "unit": lambda a: torch.nn.functional.normalize(a, dim=-1),
    }  # fmt: skip
    function, inputs = OPERATIONS[name]
    tensors = [Tensor(value) for value in inputs]
    out = function(*tensors)
    weights = np.random.default_rng(1).normal(size=out.shape)
    mine = gradients((out * weights).sum(), tensors)
    parameters = [torch.tensor(value, requires_grad=True) for value in inputs]
    other = theirs[name](*parameters)
    np.testing.assert_allclose(out.value, other.detach().numpy(), atol=1e-10)
    (other * torch.tensor(weights)).sum().backward()
    for gradient, parameter in zip(mine, parameters, strict=True):
        np.testing.assert_allclose(np.asarray(gradient), parameter.grad.numpy(), atol=1e-6)


OPTIMISERS: list[Callable[[], Optimiser]] = [
    lambda: SGD(0.1), lambda: SGD(0.1, momentum=0.9), lambda: Adagrad(0.1), lambda: Adam(0.1)
]  # fmt: skip


@pytest.mark.parametrize("make", OPTIMISERS)
@given(data=st.data())
def test_rows_are_moved_as_the_whole_table_would_be(make: Callable[[], Optimiser], data: Any) -> None:
    """A step by the gradient of rows that repeat equals one by the dense gradient of a table of just these rows."""
    rows = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=8)))
    values = np.random.default_rng(len(rows)).normal(size=(len(rows), 2))
    table = np.random.default_rng(0).normal(size=(5, 2))
    used = np.unique(rows)
    whole, part = {"t": table.copy()}, {"t": table[used].copy()}
    gradient = RowGradient(rows, values, (5, 2))
    one, other = make(), make()
    for _ in range(3):
        one.step(whole, {"t": gradient})
        other.step(part, {"t": gradient.dense()[used]})
    np.testing.assert_allclose(whole["t"][used], part["t"], rtol=1e-12)
    untouched = np.setdiff1d(np.arange(5), used)
    np.testing.assert_array_equal(whole["t"][untouched], table[untouched])


@pytest.mark.parametrize(("make", "name"), list(zip(OPTIMISERS, ["SGD", "SGD+", "Adagrad", "Adam"], strict=True)))
def test_optimisers_step_as_pytorchs(make: Callable[[], Optimiser], name: str) -> None:
    """Five steps on a quadratic, to 1e-10."""
    torch = pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    start = np.array([1.0, -2.0, 3.0])
    mine, theirs = {"x": start.copy()}, torch.tensor(start.copy(), requires_grad=True)
    other = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.1), "SGD+": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1), "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    }[name]([theirs])  # fmt: skip
    one = make()
    for _ in range(5):
        one.step(mine, {"x": 2 * mine["x"]})
        other.zero_grad()
        (theirs**2).sum().backward()
        other.step()
    np.testing.assert_allclose(mine["x"], theirs.detach().numpy(), atol=1e-10)
