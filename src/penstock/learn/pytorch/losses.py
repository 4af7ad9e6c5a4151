"""The project's losses in PyTorch's graph, with the same analytic gradients."""

from __future__ import annotations

from typing import Any

import torch

from penstock.learn.losses.apply import HasSlopes, mean_and_slope
from penstock.types import Array


def loss_of(
    loss: HasSlopes, scores: torch.Tensor, *what: Any, weight: Array | None = None, **more: Any
) -> torch.Tensor:
    """The mean of a loss over its rows or lists; `penstock.learn.losses.loss_of` for a tensor of PyTorch's.

    Value and gradient are computed by NumPy on the CPU, wherever the scores are: right for every loss, and as quick as
    NumPy is. What trains at length uses PyTorch's own operations, as `penstock.learn.pytorch.training` does.
    """
    found: torch.Tensor = _Loss.apply(scores, loss, what, weight, more)
    return found


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: torch.Tensor, loss: HasSlopes, what: Any, weight: Array | None, more: Any
    ) -> torch.Tensor:
        value, slope = mean_and_slope(loss, scores.detach().cpu().numpy(), *what, weight=weight, **more)
        ctx.slope = torch.as_tensor(slope, device=scores.device)
        return scores.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return ctx.slope * gradient, None, None, None, None
