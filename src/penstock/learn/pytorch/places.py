"""Where to compute, and with whom."""

from __future__ import annotations

import os

import torch
from torch import distributed


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
