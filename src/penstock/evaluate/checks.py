"""What every measurement asks of its input, said once."""

from __future__ import annotations

from penstock.errors import PenstockError
from penstock.types import Array


class EvaluationError(PenstockError):
    """Measurements that do not fit together, or a report with a fact missing."""


def equal_lengths(**columns: Array) -> None:
    """Refuses columns of different lengths, and empty ones: there is nothing to measure in no data."""
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise EvaluationError(
            f"{', '.join(sizes)} have one entry for each list, and there is at least one list",
            got=", ".join(f"{name}: {size}" for name, size in sizes.items()),
            remedy="pass columns of the same, non-zero length",
        )


def at_least_one(k: int) -> int:
    """Refuses lists cut before their first item; gives k back."""
    if k < 1:
        raise EvaluationError("k is at least 1", got=str(k), remedy="cut the lists after one item or more")
    return k
