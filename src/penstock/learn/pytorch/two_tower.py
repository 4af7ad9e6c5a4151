"""Two towers on PyTorch: the weights of `penstock.learn.two_tower`, trained on a GPU, or on several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from penstock.learn.losses import SampledSoftmax
from penstock.learn.optimise import schedule
from penstock.learn.pytorch.losses import loss_of
from penstock.learn.pytorch.places import joined, share
from penstock.learn.two_tower.network import Bags, Form, Side, begin
from penstock.learn.two_tower.training import Course, Drawn, Epoch, Pairs, Run, recall_of
from penstock.types import Array, Progress


class TwoTowers(nn.Module):
    """See `penstock.learn.two_tower.network`.

    Args:
        form: the sizes.
        weights: to begin with; drawn anew where absent.
    """

    def __init__(self, form: Form, weights: Mapping[str, Array] | None = None, *, seed: int = 1) -> None:
        super().__init__()
        self.form = form
        held = begin(form, np.random.default_rng(seed)) if weights is None else weights
        self.held = nn.ParameterDict({n.replace(".", "__"): nn.Parameter(torch.tensor(v)) for n, v in held.items()})

    def weights(self) -> dict[str, Array]:
        """The weights as arrays, for the NumPy form to serve."""
        return {name.replace("__", "."): value.detach().cpu().numpy().copy() for name, value in self.held.items()}

    def tower(self, side: Side, bags: Bags) -> torch.Tensor:
        """The vectors (n, width) of n bags."""
        table = self.held[self.form.table(side)]
        size = np.diff(bags.starts)
        weight = np.ones(len(bags.codes)) if bags.weight is None else bags.weight.astype(np.float64)
        total = np.bincount(np.repeat(np.arange(len(size)), size), weights=weight, minlength=len(size))
        each = weight / np.repeat(np.maximum(total, 1e-12), size) * (bags.codes > 0)
        x = functional.embedding_bag(
            torch.as_tensor(bags.codes, device=table.device), table,
            torch.as_tensor(bags.starts[:-1], device=table.device), mode="sum",
            per_sample_weights=torch.as_tensor(each, dtype=table.dtype, device=table.device),
        )  # fmt: skip
        if self.form.inner:
            inner = functional.relu(x @ self.held[f"{side}__in"] + self.held[f"{side}__in_bias"])
            x = x + inner @ self.held[f"{side}__back"] + self.held[f"{side}__back_bias"]
        return functional.normalize(x, dim=-1, eps=1e-12)


class _Whole(nn.Module):
    """The towers and their loss as one module: what DistributedDataParallel watches is a single call."""

    def __init__(self, towers: TwoTowers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, run: Run, drawn: Drawn) -> torch.Tensor:
        form, n = self.towers.form, len(drawn.right)
        query = self.towers.tower("query", run.queries.taken(drawn.asked))
        item = self.towers.tower("item", run.bags(drawn.shared))
        scores, beside = query @ item.T, None
        if drawn.own is not None:
            hard = self.towers.tower("item", run.bags(drawn.own.reshape(-1))).reshape(n, -1, form.width)
            scores = torch.cat([scores, (query[:, None] * hard).sum(dim=2)], dim=1)
            beside = hard.detach().cpu().numpy()
        log_q, hidden = run.weigh(drawn, item.detach().cpu().numpy(), beside)
        loss = run.course.loss
        if not isinstance(loss, SampledSoftmax):
            return loss_of(loss, scores, np.arange(n), log_q=log_q, hidden=hidden)
        logits = scores / loss.temperature - torch.as_tensor(log_q, device=scores.device)
        if hidden is not None:
            logits = logits.masked_fill(torch.as_tensor(hidden, device=scores.device), -torch.inf)
        return functional.cross_entropy(logits, torch.arange(n, device=scores.device))


def train(
    form: Form,
    course: Course,
    queries: Bags,
    items: Bags,
    pairs: Pairs,
    *,
    held: Pairs | None = None,
    weights: Mapping[str, Array] | None = None,
    each: Callable[[Epoch], bool] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> dict[str, Array]:
    """`penstock.learn.two_tower.training.train` on PyTorch; weights that NumPy can serve.

    Args:
        device: such as "cuda:1"; by itself a GPU where there is one, by LOCAL_RANK of several.
    """
    place, rank, several = joined(device)
    torch.manual_seed(course.seed)
    # Of the order of pairs all draw the same, of negatives each its own: how many it draws depends on its pairs.
    random, drawing = np.random.default_rng(course.seed), np.random.default_rng((course.seed, 1 + rank))
    plain: TwoTowers = TwoTowers(form, begin(form, random) if weights is None else weights)
    plain.to(place)
    network: Any = DistributedDataParallel(_Whole(plain)) if several > 1 else _Whole(plain)
    adam = torch.optim.Adam(plain.parameters(), lr=course.rate)
    run = Run(form, course, queries, items, pairs, drawing)
    steps = course.epochs * max(1, math.ceil(len(pairs) / course.batch) // several)
    kept: dict[str, Array] = plain.weights()
    highest, since, done = -1.0, 0, 0
    for number in range(course.epochs):
        run.refresh(plain.weights(), number)
        lost, counted = 0.0, 0
        order = random.permutation(len(pairs))
        parts = [order[start : start + course.batch] for start in range(0, len(order), course.batch)]
        for which in share(parts, rank, several):
            for group in adam.param_groups:
                group["lr"] = course.rate * schedule(done, steps)
            loss = network(run, run.draw(which))
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for name in {form.table("query"), form.table("item")}:
                    plain.held[name][0] = 0
            done += 1
            lost, counted = lost + float(loss.detach()) * len(which), counted + len(which)
            if progress:
                progress(done, steps)
        now, recall = plain.weights(), math.nan
        if held is not None and len(held):
            recall = recall_of(form, now, queries, items, held, course.k)
            since += 1
            if recall > highest:
                kept, highest, since = now, recall, 0
        else:
            kept = now
        if each is not None and each(Epoch(number, lost / counted, recall, now)):
            break
        if since >= course.patience:
            break
    return kept
