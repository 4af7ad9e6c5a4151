"""Every registered loss as an operation of a graph, of NumPy's and of PyTorch's: one number and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.learn.autodiff import Tensor, gradcheck, gradients
from penstock.learn.losses import (
    CalibratedList,
    ContrastiveMargin,
    ExpectedCost,
    Focal,
    Goals,
    LambdaPairwise,
    Lists,
    ListSoftmax,
    LogLoss,
    Pairwise,
    SampledSoftmax,
    loss_of,
    objective,
)
from penstock.registry import get, kinds, name_of, names

RANDOM = np.random.default_rng(11)
LABELS = (RANDOM.random((3, 4)) < 0.5).astype(np.float64)
FILLED = RANDOM.random((3, 4)) < 0.8
LISTS = Lists(np.array([0.0, 1.0, 3.0, 1.0, 0.0, 2.0, 0.0]), np.array([4, 1, 2]), RANDOM.uniform(1, 3, 7))

# Scores as the losses of each kind take them, and what came.
ASKED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "loss": (RANDOM.normal(size=6), (np.arange(6) % 3 == 0, RANDOM.uniform(1, 9, 6))),
    "choice_loss": (RANDOM.uniform(-0.9, 0.9, (3, 5)), (np.array([4, 0, 2]),)),
    "ranking_loss": (RANDOM.normal(size=7), (LISTS,)),
}
CASES: list[tuple[Any, Any, tuple[Any, ...]]] = [
    *((loss, *ASKED["loss"]) for loss in (LogLoss(), Focal(1.5, 0.75), ExpectedCost(2.0))),
    *((loss, *ASKED["choice_loss"]) for loss in (SampledSoftmax(0.5), ContrastiveMargin(0.1, 3.0))),
    *(
        (loss, *ASKED["ranking_loss"])
        for loss in (
            Pairwise(), Pairwise("all"), LambdaPairwise(2), LambdaPairwise(9, "all", normalised=True), ListSoftmax()
        )
    ),
    (Goals({"a": 1.0, "b": 0.0, "c": 3.0, "d": 0.5}), RANDOM.normal(size=(3, 4)), (LABELS,)),
    (CalibratedList(0.7), RANDOM.normal(size=(3, 4)), (LABELS, FILLED)),
]  # fmt: skip
EACH = pytest.mark.parametrize(("loss", "scores", "what"), CASES, ids=[repr(case[0]) for case in CASES])


def test_every_registered_loss_is_among_the_cases() -> None:
    """No loss is registered that the tests of this file leave out."""
    losses = [name for kind in kinds() for name in names(kind) if hasattr(get(kind, name), "slopes")]
    assert sorted({name_of(case[0]) for case in CASES}) == sorted(losses)


@EACH
def test_a_loss_in_a_graph_is_the_mean_of_its_values_and_has_their_gradient(
    loss: Any, scores: Any, what: tuple[Any, ...]
) -> None:
    """Its number is the mean of `value`, weighted or not, and its gradient that of differences to 1e-6."""
    each = loss.value(scores, *what)
    weight = np.arange(len(each)) + 0.5
    assert float(loss_of(loss, Tensor(scores), *what).value) == pytest.approx(each.mean(), abs=1e-12)
    found = loss_of(loss, Tensor(scores), *what, weight=weight)
    assert float(found.value) == pytest.approx(np.average(each, weights=weight), abs=1e-12)
    gradcheck(lambda s: loss_of(loss, s, *what), scores, tolerance=1e-6)
    gradcheck(lambda s: loss_of(loss, s, *what, weight=weight), scores, tolerance=1e-6)


@EACH
def test_a_loss_in_a_graph_keeps_the_dtype_of_the_scores(loss: Any, scores: Any, what: tuple[Any, ...]) -> None:
    """float32 scores have a float32 loss and gradient, so that training stays in float32."""
    tensor = Tensor(scores.astype(np.float32))
    found = loss_of(loss, tensor, *what)
    assert found.value.dtype == np.float32
    gradient = gradients(found, [tensor])[0]
    assert isinstance(gradient, np.ndarray)
    assert (gradient.dtype, gradient.shape) == (np.float32, scores.shape)


@EACH
def test_a_loss_in_pytorch_has_the_value_and_gradient_of_numpy(loss: Any, scores: Any, what: tuple[Any, ...]) -> None:
    """PyTorch's graph gives the same number and the same gradient, weighted or not, and passes its own gradcheck."""
    torch = pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    from penstock.learn.pytorch.losses import loss_of as in_pytorch

    for weight in (None, np.arange(len(loss.value(scores, *what))) + 0.5):
        theirs, mine = torch.tensor(scores, requires_grad=True), Tensor(scores)
        found = in_pytorch(loss, theirs, *what, weight=weight)
        wanted = loss_of(loss, mine, *what, weight=weight)
        (found * 3).backward()
        assert found.item() == pytest.approx(float(wanted.value), abs=1e-12)
        np.testing.assert_allclose(theirs.grad.numpy(), gradients(wanted * 3.0, [mine])[0], atol=1e-12)
        assert torch.autograd.gradcheck(lambda s, w=weight: in_pytorch(loss, s, *what, weight=w), theirs)


@pytest.mark.parametrize("loss", [case[0] for case in CASES if len(case[2]) == 1 and case[2][0] is LISTS], ids=repr)
def test_an_objective_of_lightgbm_is_the_gradient_of_the_sum(loss: Any) -> None:
    """What LightGBM is given of a ranking loss is, in each row, the gradient of the loss summed over lists."""
    scores, (lists,) = ASKED["ranking_loss"]
    gradient, curvature = objective(loss, lists)(scores, None)
    tensor = Tensor(scores)
    summed = loss_of(loss, tensor, lists) * float(len(lists.groups))
    np.testing.assert_allclose(gradient, gradients(summed, [tensor])[0], atol=1e-12)
    assert (curvature > 0).all()


@pytest.mark.parametrize("level", [-1000.0, 0.0, 1000.0])
def test_a_calibrated_list_has_slopes_at_every_level_of_equal_scores(level: float) -> None:
    """Of equal scores, however far from 0, each has the share 1 / n, and a place not filled may hold anything."""
    loss, filled = CalibratedList(1.0), np.array([[True, True, False], [False, False, False]])
    scores = np.where(filled, level, np.nan)
    labels = np.array([[1.0, 0.0, np.nan]] * 2)
    np.testing.assert_allclose(loss.value(scores, labels, filled), [np.log(2), 0.0], atol=1e-9)
    first, second = loss.slopes(scores, labels, filled)
    wrong = 1.0 if level < 0 else 0.5 if level == 0 else 0.0
    np.testing.assert_allclose(first, [[-wrong / 2, wrong / 2, 0], [0, 0, 0]], atol=1e-12)
    assert np.isfinite(second).all()
