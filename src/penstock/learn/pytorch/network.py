"""The sequence network as a PyTorch module: the same weights, by the same names, give the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from penstock.learn.sequence.network import Attributes, Form, Tokens, begin, gap_bucket
from penstock.types import Array


class SequenceNetwork(nn.Module):
    """See `penstock.learn.sequence.network`.

    Args:
        form: the sizes.
        weights: to begin with, such as `penstock.learn.sequence.training.train` gives; drawn anew where absent.
        attributes: of the items.
        drop: the share of values dropped while training.
    """

    def __init__(
        self,
        form: Form,
        weights: Mapping[str, Array] | None = None,
        attributes: Attributes | None = None,
        *,
        drop: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.form, self.drop = form, drop
        held = begin(form, np.random.default_rng(seed)) if weights is None else weights
        # PyTorch gives names with a point a meaning of its own.
        self.held = nn.ParameterDict({_inner(name): nn.Parameter(torch.tensor(value)) for name, value in held.items()})
        self._mixed = attributes is not None and form.attributes > 1
        if attributes is not None and form.attributes > 1:
            size = np.diff(attributes.starts)
            share = (1 / np.maximum(size, 1)).astype(held["item"].dtype)
            self.register_buffer("owner", torch.tensor(np.repeat(np.arange(attributes.items), size)), persistent=False)
            self.register_buffer("codes", torch.tensor(attributes.codes), persistent=False)
            self.register_buffer("share", torch.tensor(share[:, None]), persistent=False)

    def weights(self) -> dict[str, Array]:
        """The weights as arrays, for the NumPy form to serve."""
        return {name.replace("__", "."): value.detach().cpu().numpy().copy() for name, value in self.held.items()}

    def vectors(self) -> torch.Tensor:
        """Every item's vector, (items, width)."""
        table = self.held["item"]
        if self._mixed:
            mean = torch.zeros_like(table).index_add_(0, self.owner, self.held["attribute"][self.codes]) * self.share
            table = table + mean
        return functional.normalize(table, dim=-1, eps=1e-12) if self.form.cosine else table

    def forward(self, tokens: Tokens) -> torch.Tensor:
        """What is looked for after each event, (batch, length, width)."""
        form, w = self.form, self.held
        at = w["item"].device
        x = functional.embedding(torch.as_tensor(tokens.item, device=at), self.vectors())
        if tokens.kind is not None and "kind" in w:
            x = x + functional.embedding(torch.as_tensor(tokens.kind, device=at), w["kind"])
        if tokens.gap is not None and "gap" in w:
            x = x + functional.embedding(torch.as_tensor(gap_bucket(tokens.gap), device=at), w["gap"])
        x = self._dropped(x)
        batch, length, width = x.shape
        distance = torch.arange(length, device=at)[:, None] - torch.arange(length, device=at)
        later = torch.where(distance < 0, -torch.inf, 0.0).to(x.dtype)
        distance = distance.clamp(0, form.distances - 1)
        for layer in range(form.layers):
            seen = self._norm(x, f"{layer}.norm1")
            query, key, value = (
                (seen @ w[_inner(f"{layer}.{name}")]).view(batch, length, form.heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            bias = w[_inner(f"{layer}.distance")][:, distance] + later
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
            found = found.transpose(1, 2).reshape(batch, length, width)
            x = x + self._dropped(found @ w[_inner(f"{layer}.out")] + w[_inner(f"{layer}.out_bias")])
            inner = self._norm(x, f"{layer}.norm2") @ w[_inner(f"{layer}.in")] + w[_inner(f"{layer}.in_bias")]
            back = functional.relu(inner) @ w[_inner(f"{layer}.back")] + w[_inner(f"{layer}.back_bias")]
            x = x + self._dropped(back)
        out = self._norm(x, "norm")
        return functional.normalize(out, dim=-1, eps=1e-12) if form.cosine else out

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale, shift = self.held[_inner(f"{name}.scale")], self.held[_inner(f"{name}.shift")]
        return functional.layer_norm(x, x.shape[-1:], scale, shift)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.drop, self.training)


def _inner(name: str) -> str:
    return name.replace(".", "__")
