"""One form of the sequence network, timed in a process of its own: ``python -m benchmarks._next.forms
numpy|pytorch``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from penstock.learn.autodiff import Tensor
from penstock.learn.sequence import training
from penstock.learn.sequence.incremental import State, Stepper
from penstock.learn.sequence.network import Form, Tokens, begin, encode, vectors
from penstock.learn.sequence.training import Course, Sequences
from penstock.learn.threads import one_blas_thread

ITEMS, LENGTH, BATCH = 3_417, 200, 64
"""As MovieLens 1M has them."""
FORM = Form(items=ITEMS, width=64, heads=2, layers=2, distances=200)
LENGTHS = (50, 200, 1_000)
_STEPS = 12


def sequences() -> Sequences:
    """So many that one epoch is the steps that are timed."""
    random = np.random.default_rng(0)
    return Sequences.of(random.integers(1, ITEMS, (BATCH * _STEPS, LENGTH + 1)).tolist())


def tokens(length: int) -> Tokens:
    return Tokens(np.random.default_rng(length).integers(1, ITEMS, (1, length)))


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, after one that warms up."""
    work()
    spent = []
    for _ in range(repeats):
        began = perf_counter()
        work()
        spent.append(perf_counter() - began)
    return float(np.median(spent)) * 1e3


def trained(train: Callable[..., Any], negatives: int) -> float:
    """Milliseconds a step, of an epoch after another that warms up."""
    moments = [perf_counter()]

    def each(epoch: int, loss: float, now: Any) -> bool:
        moments.append(perf_counter())
        return False

    course = Course(epochs=2, batch=BATCH, length=LENGTH, drop=0.2, negatives=negatives)
    train(FORM, course, sequences(), each=each)
    return (moments[-1] - moments[-2]) / _STEPS * 1e3


def of_numpy() -> dict[str, Any]:
    """NumPy: a step of training, all of a sequence, and one event more."""
    # Products as small as those of one request only lose by a second thread.
    with one_blas_thread():
        asked = of_numpy_requests()
    return asked | {
        "train_ms": {"all items": trained(training.train, 0), "256 negatives": trained(training.train, 256)}
    }


def of_numpy_requests() -> dict[str, Any]:
    """All of a sequence, one event more, and how far apart their numbers are at most."""
    weights = begin(FORM, np.random.default_rng(1))
    stepper = Stepper(FORM, weights, most=max(LENGTHS) + 64)
    held = {name: Tensor(value) for name, value in weights.items()}
    table = vectors(FORM, held, None)
    out: dict[str, Any] = {"whole_ms": {}, "one_more_ms": {}, "difference": {}}
    for length in LENGTHS:
        asked = tokens(length)
        state = stepper.start()
        worst = 0.0
        whole = encode(FORM, held, table, asked).value[0]
        for place, item in enumerate(asked.item[0].tolist()):
            before = stepper.copied(state) if place == length - 1 else state
            state = stepper.step(state, item)
            worst = max(worst, float(np.abs(state.found - whole[place]).max()))
        out["difference"][length] = worst
        out["whole_ms"][length] = median_ms(partial(encode, FORM, held, table, asked), 15)
        out["one_more_ms"][length] = median_ms(partial(_one_more, stepper, before), 200)
    return out


def _one_more(stepper: Stepper, before: State) -> State:
    return stepper.step(stepper.copied(before), 5)


def of_pytorch() -> dict[str, Any]:
    """PyTorch on the CPU: a step of training, and all of a sequence."""
    import torch

    from penstock.learn.pytorch import training as other
    from penstock.learn.pytorch.network import SequenceNetwork

    network = SequenceNetwork(FORM).eval()
    out: dict[str, Any] = {"whole_ms": {}, "version": torch.__version__, "threads": torch.get_num_threads()}
    with torch.inference_mode():
        for length in LENGTHS:
            asked = tokens(length)
            out["whole_ms"][length] = median_ms(partial(network, asked), 15)
    out["train_ms"] = {"all items": trained(other.train, 0), "256 negatives": trained(other.train, 256)}
    return out


if __name__ == "__main__":
    print(json.dumps({"numpy": of_numpy, "pytorch": of_pytorch}[sys.argv[1]]()))
