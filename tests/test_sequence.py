"""The sequence network: its gradients, its three forms (whole, one event at a time, PyTorch), and that it learns."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Tensor, gradcheck, gradients, rows
from penstock.learn.losses import softmax_over, softmax_over_sample
from penstock.learn.sequence.incremental import Stepper
from penstock.learn.sequence.network import Attributes, Form, Tokens, begin, encode, gap_bucket, vectors
from penstock.learn.sequence.plain import Plain
from penstock.learn.sequence.training import Course, Sequences, _part, batches, split, train
from penstock.learn.threads import one_blas_thread
from penstock.types import Array

MISSING = "torch is missing: .venv/bin/pip install torch==2.13.0"
SMALL = Form(items=7, kinds=3, width=4, heads=2, layers=2, distances=3, timed=True, attributes=4)
KNOWN = Attributes.of([[], [1], [1, 2], [], [3], [2, 3], [1]])


def drawn(form: Form, seed: int = 0, dtype: type[Any] = np.float64) -> dict[str, Array]:
    """Weights with nothing left at zero or one."""
    random = np.random.default_rng(seed)
    return {
        name: (value + 0.3 * random.normal(size=value.shape)).astype(dtype)
        for name, value in begin(form, random, dtype).items()
    }  # fmt: skip


def events(form: Form, length: int, batch: int = 2, seed: int = 1) -> Tokens:
    random = np.random.default_rng(seed)
    shape = (batch, length)
    kind, gap = random.integers(0, form.kinds, shape), np.abs(random.normal(size=shape)) * 10.0 ** random.integers(0, 6)
    return Tokens(random.integers(1, form.items, shape), kind, gap)


def whole(form: Form, weights: dict[str, Array], tokens: Tokens, known: Attributes | None) -> tuple[Array, Array]:
    held = {name: Tensor(value) for name, value in weights.items()}
    table = vectors(form, held, known)
    return encode(form, held, table, tokens).value, table.value


@pytest.mark.parametrize("cosine", [True, False])
def test_the_gradient_of_the_whole_network_is_that_of_differences(cosine: bool) -> None:
    """Of every weight, item vectors with attributes among them, to 1e-5."""
    form = Form(**{**SMALL.__dict__, "cosine": cosine, "scale": 2.0})
    weights, tokens = drawn(form), events(form, 4)
    before, target, there = split(tokens)

    def loss(*values: Tensor) -> Tensor:
        held = dict(zip(weights, values, strict=True))
        table = vectors(form, held, KNOWN)
        return softmax_over(encode(form, held, table, before)[there], table[1:], target - 1, scale=form.scale)

    assert gradcheck(loss, *weights.values()) < 1e-5


@given(st.integers(1, 9), st.integers(0, 3), st.integers(0, 50))
@settings(max_examples=25)
def test_one_event_at_a_time_gives_what_the_whole_sequence_gives(length: int, layers: int, seed: int) -> None:
    """With kinds, times and attributes, for any number of layers, to 1e-5 in float32."""
    form = Form(**{**SMALL.__dict__, "layers": layers})
    weights, tokens = drawn(form, seed, np.float32), events(form, length, 1, seed)
    wanted, table = whole(form, weights, tokens, KNOWN)
    stepper = Stepper(form, weights, KNOWN, most=length)
    np.testing.assert_array_equal(stepper.table, table)
    state = stepper.start()
    assert tokens.kind is not None
    assert tokens.gap is not None
    for i in range(length):
        state = stepper.step(state, int(tokens.item[0, i]), int(tokens.kind[0, i]), float(tokens.gap[0, i]))
        np.testing.assert_allclose(state.found, wanted[0, i], atol=1e-5)


@given(st.integers(1, 9), st.integers(0, 3), st.booleans(), st.integers(0, 50))
@settings(max_examples=25)
def test_the_definition_gives_what_the_whole_sequence_gives(length: int, layers: int, cosine: bool, seed: int) -> None:
    """Place by place in float64, by code of its own, to 1e-9: with kinds, times and attributes."""
    form = replace(SMALL, layers=layers, cosine=cosine)
    weights, tokens = drawn(form, seed), events(form, length, 1, seed)
    found, table = whole(form, weights, tokens, KNOWN)
    plain = Plain(form, weights, KNOWN)
    np.testing.assert_allclose(plain.table, table, atol=1e-9)
    assert tokens.kind is not None
    assert tokens.gap is not None
    steps = list(zip(tokens.item[0].tolist(), tokens.kind[0].tolist(), tokens.gap[0].tolist(), strict=True))
    np.testing.assert_allclose(plain.fits(steps), table @ found[0, -1], atol=1e-9)


def test_going_on_from_what_was_kept_gives_the_same_bits() -> None:
    """A state that was copied, gone on from and left alone gives, to the last bit, what going anew gives."""
    form = SMALL
    stepper = Stepper(form, drawn(form, 3, np.float32), KNOWN, most=40)
    items = np.random.default_rng(4).integers(1, form.items, 40).tolist()
    kept = [stepper.start()]
    for item in items:
        kept.append(stepper.step(stepper.copied(kept[-1]), item))
    for end in (1, 17, 40):
        anew = stepper.start()
        for item in items[:end]:
            anew = stepper.step(anew, item)
        np.testing.assert_array_equal(anew.found, kept[end].found)


def test_what_comes_after_the_end_of_a_sequence_changes_nothing() -> None:
    """A short sequence beside a long one gives what it gives alone."""
    weights = drawn(SMALL)
    tokens = events(SMALL, 6, 1)
    alone, _ = whole(SMALL, weights, Tokens(tokens.item[:, :3]), KNOWN)
    padded = np.r_[np.where(np.arange(6) < 3, tokens.item, 0), tokens.item]
    beside, _ = whole(SMALL, weights, Tokens(padded), KNOWN)
    np.testing.assert_allclose(beside[0, :3], alone[0], atol=1e-12)


def test_times_between_events_fall_into_doubling_buckets() -> None:
    """Each bucket begins at a power of two seconds, exactly, and the last one has no end."""
    powers = 2.0 ** np.arange(22)
    assert gap_bucket(powers).tolist() == list(range(1, 23))
    assert gap_bucket(np.nextafter(powers[1:], 0)).tolist() == list(range(1, 22))
    assert gap_bucket(np.array([-5.0, 0.0, 0.01, 1e12])).tolist() == [0, 0, 1, 23]


def test_tokens_are_the_newest_events_of_each_sequence() -> None:
    """Cut to their length, aligned at the beginning, with the time since the event before in seconds."""
    second = 1_000_000
    sequences = Sequences(
        np.array([0, 3]), np.array([3, 4]), np.array([5, 6, 7, 8]), np.array([1, 2, 1, 2]),
        np.array([0, 1, 5, 9]) * second,
    )  # fmt: skip
    tokens = sequences.tokens(np.array([0, 1]), 2)
    assert tokens.item.tolist() == [[6, 7], [8, 0]]
    assert tokens.kind is not None
    assert tokens.kind.tolist() == [[2, 1], [2, 0]]
    assert tokens.gap is not None
    assert tokens.gap.tolist() == [[0.0, 4.0], [0.0, 0.0]]


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(2, 9))
def test_pieces_hold_every_step_once(sizes: list[int], most: int) -> None:
    """Cut into pieces, each pair of neighbours of a sequence stands in just one piece, and no piece is too long."""
    sequences = Sequences.of([[1] * size for size in sizes])
    pieces = sequences.cut(most)
    assert (pieces.size <= most).all()
    steps = [(at, at + 1) for a, b in zip(pieces.begins, pieces.ends, strict=True) for at in range(a, b - 1)]
    wanted = [(at, at + 1) for a, b in zip(sequences.begins, sequences.ends, strict=True) for at in range(a, b - 1)]
    assert sorted(steps) == wanted


def test_every_sequence_is_in_one_batch() -> None:
    """Batches hold each usable sequence once, whatever lengths there are."""
    size = np.random.default_rng(0).integers(1, 9, 101)
    usable = np.flatnonzero(size > 1)
    parts = list(batches(usable, size, 8, np.random.default_rng(1)))
    assert max(map(len, parts)) <= 8
    assert sorted(np.concatenate(parts).tolist()) == usable.tolist()


def steps_of_two() -> tuple[Form, Sequences]:
    """After each item comes the one two places on: what a model of single items can learn; 12 items in a circle."""
    random = np.random.default_rng(0)
    lists = [[1 + (start + 2 * i) % 12 for i in range(6)] for start in random.integers(0, 12, 300).tolist()]
    return Form(items=13, width=16, layers=1, scale=10.0), Sequences.of(lists)


def right(form: Form, weights: dict[str, Array]) -> float:
    """How often the best item after [1, 3, 5, …] is the one that follows."""
    items = np.array([[1 + (start + 2 * i) % 12 for i in range(5)] for start in range(12)])
    found, table = whole(form, weights, Tokens(items), None)
    best = (found[:, -1] @ table[1:].T).argmax(axis=1) + 1
    return float((best == 1 + (np.arange(12) + 10) % 12).mean())


@pytest.mark.parametrize("negatives", [0, 8])
def test_training_learns_what_follows(negatives: int) -> None:
    """With all items and with a sample of them; before training it does not know."""
    form, sequences = steps_of_two()
    course = Course(epochs=6, batch=32, rate=1e-2, drop=0.1, negatives=negatives)
    assert right(form, begin(form, np.random.default_rng(1))) < 0.5
    losses: list[float] = []
    weights = train(form, course, sequences, each=lambda epoch, loss, now: losses.append(loss) or False)  # type: ignore[func-returns-value]
    assert right(form, weights) == 1.0
    assert losses[-1] < losses[0] / 2
    assert not weights["item"][0].any()


def test_training_is_the_same_every_time() -> None:
    """The same seed gives the same bits; another seed gives others; `each` ends it early."""
    form, sequences = steps_of_two()
    course = Course(epochs=2, batch=64)
    one, other = train(form, course, sequences), train(form, course, sequences)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
    assert (train(form, Course(epochs=2, batch=64, seed=2), sequences)["item"] != one["item"]).any()
    seen: list[int] = []
    train(form, Course(epochs=5), sequences, each=lambda epoch, loss, now: seen.append(epoch) or epoch == 1)
    assert seen == [0, 1]


def test_training_leaves_the_weights_that_it_goes_on_from_as_they_are() -> None:
    """The caller's arrays are copied: trained further, in either form, an earlier network is still itself."""
    form, sequences = steps_of_two()
    first = begin(form, np.random.default_rng(1))
    before = {name: value.copy() for name, value in first.items()}
    assert (train(form, Course(epochs=1, batch=64), sequences, weights=first)["item"] != first["item"]).any()
    for name, value in first.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"epochs": 0}, "a course has epochs"),
        ({"negatives": -1}, "no less than no negatives"),
        ({"rate": 0.0}, "a rate"),
        ({"drop": 1.0}, "shares below 1"),
        ({"smoothing": -0.1}, "shares below 1"),
        ({"decay": -1.0}, "decay is 0 or more"),
    ],
)
def test_a_course_that_cannot_be_is_refused(wrong: dict[str, Any], rule: str) -> None:
    """With the rule and the remedy, before anything is trained."""
    with pytest.raises(DefinitionError, match=rule) as raised:
        Course(**wrong)
    assert raised.value.remedy


def test_smoothing_counts_with_drawn_negatives() -> None:
    """Drawn often enough, the sample's smoothed loss and its gradient are those over all items."""
    random = np.random.default_rng(2)
    query, table, target = random.normal(size=(5, 4)), random.normal(size=(7, 4)), random.integers(1, 7, 5)
    drawn = np.repeat(np.arange(1, 7), 50)
    q, t = Tensor(query), Tensor(table)
    log_q = np.full(300, np.log(300 / 6))
    sampled = softmax_over_sample(
        q, rows(t, target), rows(t, drawn), (target, drawn), log_q, scale=2.0, smoothing=0.3
    )  # fmt: skip
    whole = softmax_over(q, t[1:], target - 1, scale=2.0, smoothing=0.3)
    assert float(sampled.value) == pytest.approx(float(whole.value), abs=1e-12)
    for one, other in zip(gradients(sampled, [q, t]), gradients(whole, [q, t]), strict=True):
        np.testing.assert_allclose(*(g if isinstance(g, np.ndarray) else g.dense() for g in (one, other)), atol=1e-12)
    gradcheck(
        lambda a, b, c: softmax_over_sample(a, b, c, (target, drawn[::50]), log_q[::50], smoothing=0.3),
        query, table[target], table[1:], tolerance=1e-6,
    )  # fmt: skip


def threads_of_products() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_trainings_that_overlap_leave_products_as_many_threads_as_before() -> None:
    """Whichever ends first: products take one thread until the last has ended, and then as many as before."""
    with threadpool_limits(2, "blas"):
        before = threads_of_products()
        assert before
        assert set(before) == {2}
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(one_blas_thread())
            second.enter_context(one_blas_thread())
            first.close()
            assert set(threads_of_products()) == {1}
            second.close()
            assert threads_of_products() == before


FORKED = """
import os, sys, warnings
sys.path.insert(0, {tests!r})
from test_sequence import steps_of_two
from penstock.learn.sequence.training import Course, train
warnings.simplefilter("ignore", DeprecationWarning)
form, sequences = steps_of_two()
one = train(form, Course(epochs=1, batch=64), sequences)
child = os.fork()
other = train(form, Course(epochs=1, batch=64), sequences)
if not child:
    os._exit(0 if (one["item"] == other["item"]).all() else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_was_forked_after_a_training_can_train() -> None:
    """The child has none of the threads of an earlier training, waits for none, and comes to the same bits."""
    script = FORKED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("more", [{"decay": 20.0}, {"smoothing": 0.4}], ids=repr)
def test_pytorch_trains_by_the_whole_course(more: dict[str, Any]) -> None:
    """With decay or smoothing three epochs on PyTorch end with NumPy's weights to 1e-3; without, with others."""
    pytest.importorskip("torch", reason=MISSING)
    from penstock.learn.pytorch.training import train as trained

    form, sequences = steps_of_two()
    weights = begin(form, np.random.default_rng(1))
    plain = Course(epochs=3, batch=64, rate=1e-2, drop=0.0)
    course = replace(plain, **more)
    found = trained(form, course, sequences, weights=weights, device="cpu")
    for name, value in train(form, course, sequences, weights=weights).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)
    assert np.abs(train(form, plain, sequences, weights=weights)["item"] - found["item"]).max() > 0.05


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_pytorch_has_the_loss_of_drawn_negatives(smoothing: float) -> None:
    """Of the same weights and the same draw, PyTorch's loss is NumPy's to 1e-9, smoothed or not."""
    pytest.importorskip("torch", reason=MISSING)
    from penstock.learn.pytorch.network import SequenceNetwork
    from penstock.learn.pytorch.training import _Whole

    weights, tokens = drawn(SMALL), events(SMALL, 5)
    course = Course(drop=0.0, negatives=9, smoothing=smoothing)
    found, places = _Whole(SequenceNetwork(SMALL, weights, KNOWN))(tokens, course, np.random.default_rng(3))
    others = np.random.default_rng(3).integers(1, SMALL.items, 9)
    wanted, _ = _part(SMALL, course, weights, tokens, KNOWN, np.random.default_rng(0), others, places)
    assert found.item() == pytest.approx(wanted, abs=1e-9)


def test_pytorch_gives_the_same_numbers_and_gradients() -> None:
    """Forward and backward, with kinds, times and attributes, to 1e-5; weights come back as they went."""
    torch = pytest.importorskip("torch", reason=MISSING)
    from penstock.learn.pytorch.network import SequenceNetwork

    weights, tokens = drawn(SMALL), events(SMALL, 5)
    network = SequenceNetwork(SMALL, weights, KNOWN).eval()
    for name, value in network.weights().items():
        np.testing.assert_array_equal(value, weights[name])
    found, table = whole(SMALL, weights, tokens, KNOWN)
    theirs = network(tokens)
    np.testing.assert_allclose(theirs.detach().numpy(), found, atol=1e-10)
    np.testing.assert_allclose(network.vectors().detach().numpy(), table, atol=1e-10)
    before, target, there = split(tokens)
    scores = network(before)[torch.tensor(there)] @ network.vectors()[1:].T * SMALL.scale
    torch.nn.functional.cross_entropy(scores, torch.tensor(target) - 1).backward()
    held = {name: Tensor(value) for name, value in weights.items()}
    mine = vectors(SMALL, held, KNOWN)
    loss = softmax_over(encode(SMALL, held, mine, before)[there], mine[1:], target - 1, scale=SMALL.scale)
    for (name, _), gradient in zip(held.items(), gradients(loss, list(held.values())), strict=True):
        their = network.held[name.replace(".", "__")].grad.numpy()
        dense = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        np.testing.assert_allclose(dense, their, atol=1e-5, err_msg=name)


def test_losses_in_pytorch_have_the_same_gradients() -> None:
    """A loss of the project's as an operation of PyTorch's: value and gradient agree with PyTorch's own to 1e-5."""
    torch = pytest.importorskip("torch", reason=MISSING)
    from penstock.learn.losses import SampledSoftmax
    from penstock.learn.pytorch.losses import loss_of

    scores = torch.tensor(np.random.default_rng(0).normal(size=(4, 5)), requires_grad=True)
    other = scores.detach().clone().requires_grad_(True)
    target = np.array([0, 4, 2, 2])
    mine = loss_of(SampledSoftmax(0.5), scores, target) * 3
    theirs = torch.nn.functional.cross_entropy(other / 0.5, torch.tensor(target)) * 3
    mine.backward()
    theirs.backward()
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-10)
    np.testing.assert_allclose(scores.grad.numpy(), other.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("negatives", [0, 8])
def test_pytorch_learns_what_numpy_serves(negatives: int) -> None:
    """Weights trained on PyTorch are right in NumPy, and NumPy's training goes on from them."""
    pytest.importorskip("torch", reason=MISSING)
    from penstock.learn.pytorch.training import train as trained

    form, sequences = steps_of_two()
    course = Course(epochs=6, batch=32, rate=1e-2, drop=0.1, negatives=negatives)
    weights = trained(form, course, sequences, device="cpu")
    assert right(form, weights) == 1.0
    assert right(form, train(form, Course(epochs=1, batch=64), sequences, weights=weights)) == 1.0


PART = """
import os
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_sequence import right, steps_of_two
from penstock.learn.pytorch.training import train
from penstock.learn.sequence.training import Course
form, sequences = steps_of_two()
weights = train(form, Course(epochs=6, batch=16, rate=1e-2, drop=0.1), sequences, device="cpu")
assert right(form, weights) == 1.0
np.save(f"weights-{{os.environ['RANK']}}.npy", weights["item"])
"""


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """Under torchrun, DistributedDataParallel leaves the same weights in both, and they are right."""
    pytest.importorskip("torch", reason=MISSING)
    script = tmp_path / "part.py"
    script.write_text(PART.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = (np.load(tmp_path / f"weights-{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(one, other)
