"""The same decision without what is costly: a source that trains a network has to earn its place in a release."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from penstock.errors import DefinitionError
from penstock.learn import Candidates, Dataset, Recipe


def lean(recipe: Recipe, wanted: Collection[str] = ()) -> Recipe | None:
    """The recipe without its costly sources; None where there are none, nothing else, or columns that read them.

    Args:
        wanted: columns, and labels of sources, that stay.
    """
    kept = tuple(
        source
        for source in recipe.sources
        if not source.costly or not {source.label, *source.columns}.isdisjoint(wanted)
    )
    if not kept or len(kept) == len(recipe.sources):
        return None
    try:
        return replace(recipe, sources=kept)
    except DefinitionError:
        return None


def cut(held: Dataset, recipe: Recipe) -> bool:
    """Whether some request had as many candidates as the recipe takes: others, found later in order, may be missing."""
    return bool((held.groups >= recipe.most).any())


def without(part: Dataset, recipe: Recipe, leaner: Recipe) -> Dataset:
    """Rows of a recipe as a leaner one would have had them: without candidates that only its other sources found.

    That is so where no candidates were `cut`; where some were, they cannot be had from the rows.
    """
    labels = [source.label for source in recipe.sources]
    left = [labels.index(source.label) for source in leaner.sources]
    names = recipe.assembler.names
    columns = [names.index(name) for name in leaner.assembler.names]
    scores = [recipe.assembler.scores.index(name) for name in leaner.assembler.scores]
    found = [~np.isnan(one.place) for one in part.candidates]
    # Rows that no source found are there for another reason, and stay.
    rows = [~one.any(axis=1) | one[:, left].any(axis=1) for one in found]
    fewer = part.keep(np.concatenate([np.zeros(0, bool), *rows]))
    candidates = [Candidates(one.items, one.scores[:, scores], one.place[:, left]) for one in fewer.candidates]
    return replace(fewer, rows=fewer.rows[:, columns], candidates=candidates)
