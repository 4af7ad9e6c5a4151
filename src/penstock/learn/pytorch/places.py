"""Where to compute, and with whom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import distributed

from penstock.errors import DefinitionError

T = TypeVar("T")


def joined(device: str | None) -> tuple[torch.device, int, int]:
    """The device, this process's number, and how many processes there are; joins the others where there are any.

    ``torchrun`` and Ray Train say so by WORLD_SIZE and LOCAL_RANK.
    """
    several = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    if several > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if gpu else "gloo")
    rank = distributed.get_rank() if several > 1 else 0
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if gpu else "cpu"
    return torch.device(device), rank, several


def share(parts: Sequence[T], rank: int, several: int) -> Sequence[T]:
    """The batches of an epoch that are this process's: every n-th, equally many of each process.

    They wait for one another at each step, so that what does not divide evenly is left out.

    Raises:
        DefinitionError: there are fewer batches than processes: nothing would be learned.

    >>> share(range(7), 1, 3)
    range(1, 6, 3)
    """
    if len(parts) < several:
        raise DefinitionError(
            f"each of {several} processes takes a batch or more", got=f"{len(parts)} an epoch",
            remedy="make batches smaller, or start fewer processes",
        )  # fmt: skip
    return parts[rank : len(parts) // several * several : several]
