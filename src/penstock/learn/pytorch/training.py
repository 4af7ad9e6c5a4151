"""Trains the sequence network on PyTorch: on the CPU, on a GPU, or on several by DistributedDataParallel.

Several processes, each with a GPU of its own, are started by ``torchrun`` or by Ray Train; each calls `train` with the
same sequences, and takes every n-th batch. ::

    torchrun --nproc-per-node 4 train.py          # train.py calls train(...)
    ray.train.torch.TorchTrainer(lambda: train(...), scaling_config=ScalingConfig(num_workers=4, use_gpu=True)).fit()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from penstock.learn.optimise import schedule
from penstock.learn.pytorch.network import SequenceNetwork
from penstock.learn.pytorch.places import joined, share
from penstock.learn.sequence.network import TABLES, Attributes, Form
from penstock.learn.sequence.training import Course, Sequences, batches, decays, split
from penstock.types import Array, Progress


def train(
    form: Form,
    course: Course,
    sequences: Sequences,
    attributes: Attributes | None = None,
    *,
    weights: dict[str, Array] | None = None,
    each: Callable[[int, float, dict[str, Array]], bool] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> dict[str, Array]:
    """`penstock.learn.sequence.training.train` on PyTorch; the same arguments, and weights that NumPy can serve.

    Args:
        device: such as "cuda:1"; by itself a GPU where there is one, by LOCAL_RANK of several.
    """
    place, rank, several = joined(device)
    torch.manual_seed(course.seed + rank)  # what is dropped differs
    plain: SequenceNetwork = SequenceNetwork(form, weights, attributes, drop=course.drop, seed=course.seed)
    plain.to(place)
    network: Any = DistributedDataParallel(_Whole(plain)) if several > 1 else _Whole(plain)
    adam = torch.optim.Adam(plain.parameters(), lr=course.rate)
    # Of the order of batches all draw the same, of negatives each its own.
    random, drawing = np.random.default_rng(course.seed), np.random.default_rng((course.seed, 1 + rank))
    sequences = sequences.cut(course.length + 1)
    usable = np.flatnonzero(sequences.size > 1)
    steps = course.epochs * max(1, math.ceil(len(usable) / course.batch) // several)
    done = 0
    for epoch in range(course.epochs):
        network.train()
        lost, counted = 0.0, 0
        parts = list(batches(usable, sequences.size, course.batch, random))
        for which in share(parts, rank, several) if several > 1 else parts:
            tokens = sequences.tokens(which, course.length + 1)
            rate = course.rate * schedule(done, steps)
            for group in adam.param_groups:
                group["lr"] = rate
            loss, n = network(tokens, course, drawing)
            adam.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, value in plain.held.items():
                    if course.decay and decays(name, value.ndim):
                        value *= 1 - rate * course.decay
            adam.step()
            with torch.no_grad():
                for name in TABLES:
                    if name in plain.held:
                        plain.held[name][0] = 0
            done += 1
            lost, counted = lost + float(loss.detach()) * n, counted + n
            if progress:
                progress(done, steps)
        plain.eval()
        if each is not None and each(epoch, lost / max(counted, 1), plain.weights()):
            break
    return plain.weights()


class _Whole(torch.nn.Module):
    """The network and its loss as one module: what DistributedDataParallel watches is a single call."""

    def __init__(self, network: SequenceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Any, course: Course, random: np.random.Generator) -> tuple[torch.Tensor, int]:
        before, target, there = split(tokens)
        form, at = self.network.form, self.network.held["item"].device
        found = self.network(before)[torch.as_tensor(there, device=at)]
        goal = torch.as_tensor(target, device=at)
        table = self.network.vectors()
        if not course.negatives:
            scores = found @ table[1:].T * form.scale
            return functional.cross_entropy(scores, goal - 1, label_smoothing=course.smoothing), len(target)
        drawn = torch.as_tensor(random.integers(1, form.items, course.negatives), device=at)
        own = (found * table[goal]).sum(dim=1, keepdim=True) * form.scale
        # See SampledSoftmax: each is weighed by how often it is drawn, and what is right is not pushed away.
        others = found @ table[drawn].T * form.scale
        spread = course.smoothing * (own[:, 0] - others.mean(dim=1)).mean() if course.smoothing else 0.0
        others = (others - math.log(len(drawn) / (form.items - 1))).masked_fill(drawn == goal[:, None], -torch.inf)
        scores = torch.cat([own, others], dim=1)
        return functional.cross_entropy(scores, torch.zeros_like(goal)) + spread, len(target)
