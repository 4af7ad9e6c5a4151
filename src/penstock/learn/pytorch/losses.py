"""The project's losses in PyTorch's graph, with the same analytic gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from penstock.learn.losses.apply import HasSlopes


def loss_of(loss: HasSlopes, scores: torch.Tensor, *what: Any, **more: Any) -> torch.Tensor:
    """The mean of a loss over its rows; `penstock.learn.losses.loss_of` for a tensor of PyTorch's.

    Value and gradient are computed by NumPy on the CPU, wherever the scores are: right for every loss, and as quick as
    NumPy is. What trains at length uses PyTorch's own operations, as `penstock.learn.pytorch.training` does.
    """
    found: torch.Tensor = _Loss.apply(scores, loss, what, more)
    return found


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, loss: HasSlopes, what: Any, more: Any) -> torch.Tensor:
        held = scores.detach().cpu().numpy()
        ctx.slope = loss.slopes(held, *what, **more)[0]
        value = np.asarray(loss.value(held, *what, **more))
        ctx.rows = max(len(value), 1)
        ctx.like = scores
        return scores.new_tensor(value.mean())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        slope = torch.as_tensor(ctx.slope, dtype=ctx.like.dtype, device=ctx.like.device)
        return slope * (gradient / ctx.rows), None, None, None
