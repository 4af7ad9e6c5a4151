"""Why an item was proposed: which sources found it, and which of the shopper's own items led to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.registry import name_of
from penstock.releases import Release
from penstock.retrieve import Query
from penstock.serve.requests import Reason
from penstock.types import Array, Strings


def reasons(
    release: Release,
    lists: Mapping[str, Array],
    items: NDArray[np.uint32],
    found_by: NDArray[np.uint32],
    strings: Strings,
) -> list[list[Reason]]:
    """The reasons of each item, in the order of the release's sources.

    Args:
        release: whose sources proposed them, from its indexes.
        lists: the shopper's list features, as they were when the decision was made.
        items: (n,) uint32 codes; `found_by` (n,) uint32, a bit a source.
        strings: spells the codes out.
    """
    query = Query(lists, {})
    out: list[list[Reason]] = [[] for _ in items]
    for bit, source in enumerate(release.recipe.sources):
        at = np.flatnonzero(found_by >> bit & 1)
        led = source.because(query, release.indexes.get(source.label, {}), items[at])
        for place, code in zip(at.tolist(), led.tolist(), strict=True):
            out[place].append(Reason(source.label, name_of(source), strings.text(code) if code else None))
    return out
