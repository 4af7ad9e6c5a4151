"""What comes next, judged on anyone's files: odd lines are read or refused in words, ranks count ties and misses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks import sequences, sessions
from benchmarks._next import cooccurrence
from benchmarks._next.files import DataError
from benchmarks._next.pipeline import Asked, Pipeline

from penstock.learn import Fusion, LambdaRank, Trees
from penstock.retrieve import Covisits, Seen

ROOT = Path(__file__).parents[1]
Written = Callable[[str, str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file of that name and text; one whose name ends in gz is packed."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return path

    return write


def pipeline(items: int, **rank: int) -> Pipeline:
    return Pipeline([Seen("recent"), Covisits("recent")], LambdaRank("next", trees=5, **rank), most=50, items=items)


def test_sessions_are_read_with_what_is_odd_in_them(written: Written) -> None:
    """Blank lines hold nothing; an empty beginning and unknown items are questions all the same, an unknown answer is
    code 0; files are packed or not."""
    train = written("train.txt.gz", "1 2\n\n  \n3\r\n2 4\n")
    test = written("test.tsv", "1 9\t2\n\n\t3\n8\t1\n1\t9\n")
    lists, asked, names = sessions.read(train, test)
    assert [[names[code - 1] for code in part] for part in lists] == [["1", "2"], ["3"], ["2", "4"]]
    assert [[names[code - 1] for code in part] for part in asked.before] == [["1"], [], [], ["1"]]
    assert [names[code - 1] if code else None for code in asked.after.tolist()] == ["2", "3", "1", None]


def test_sequences_are_read_with_what_is_odd_in_them(written: Written) -> None:
    """Several lines of one shopper are one sequence; one item alone is learned from and not asked for; a name alone
    holds nothing."""
    train = written("train.txt", "ann 1 2\n\nbob 7\nann 3\ncy\ndee 1 8\n")
    lists, asked, names = sequences.read(train, None)
    assert [[names[code - 1] for code in part] for part in lists] == [["1", "2"], ["7"], ["1"]]
    assert [[names[code - 1] for code in part] for part in asked.before] == [["1", "2"], ["1"]]
    assert asked.after.tolist() == [0, 0]


def test_each_line_of_a_test_is_a_question(written: Written) -> None:
    """An answer alone is asked after the shopper's sequence in training; a line with more brings its own; a shopper
    that training does not know is asked about all the same."""
    train = written("train.txt", "ann 1 2\nbob 3 4\n")
    test = written("test.txt", "ann 3\nann 4\n\nbob 1 2 3\neve 1\nbob\n")
    lists, asked, names = sequences.read(train, test)
    assert len(lists) == 2
    assert [[names[code - 1] for code in part] for part in asked.before] == [["1", "2"], ["1", "2"], ["1", "2"], []]
    assert [names[code - 1] for code in asked.after.tolist()] == ["3", "4", "3", "1"]


def test_attributes_are_numbers_or_texts(written: Written) -> None:
    """Items that are not sold here are left out, and each attribute has one code."""
    about = written("about.json", json.dumps({"a": [7, "red"], "b": ["red"], "z": ["other"]}))
    assert sequences.attributes(about, ["a", "b", "c"]) == {1: [1, 2], 2: [2]}
    assert sequences.attributes(None, ["a"]) == {}


def test_of_equal_scores_the_answer_is_the_last() -> None:
    """A ranker that scores all alike earns the number of candidates as its rank, wherever the answer stands."""
    made = pipeline(5)
    made.fit_sources([[1, 2, 3, 4]], lambda past: {})
    made.model = Fusion(())
    found = made.ranks(Asked([[1], [1]], np.array([2, 4], np.uint32)))
    assert found["ranker"].tolist() == [4, 4]
    assert found["covisits"].tolist() == [1, 3]
    assert found["seen"].tolist() == [0, 0]


def test_what_cannot_be_known_is_a_miss() -> None:
    """A question that begins with nothing and an answer that training does not know have rank 0; others stay."""
    made = pipeline(4)
    made.fit_sources([[1, 2], [1, 3]], lambda past: {})
    made.fit_rank(Asked([], np.zeros(0, np.uint32)))
    asked = Asked([[], [1], [1], []], np.array([2, 0, 2, 0], np.uint32))
    found = made.ranks(asked)
    assert found["ranker"].tolist()[:2] == [0, 0]
    assert found["ranker"][2] > 0
    assert made.ranks(Asked([[]], np.array([1], np.uint32)))["ranker"].tolist() == [0]


def test_too_little_to_learn_from_fuses_the_lists() -> None:
    """Without a question whose answer is found, or with too few for one split, the sources' lists are fused."""
    made = pipeline(4)
    made.fit_sources([[1, 2], [1, 3]], lambda past: {})
    assert isinstance(made.fit_rank(Asked([], np.zeros(0, np.uint32))), Fusion)
    assert isinstance(made.fit_rank(Asked([[1]], np.array([2], np.uint32))), Fusion)
    assert made.importance == {}
    some = pipeline(4, min_leaf=1)
    some.fit_sources([[1, 2], [1, 2], [1, 3]], lambda past: {})
    assert isinstance(some.fit_rank(Asked([[1]] * 20, np.full(20, 2, np.uint32))), Trees)
    assert set(some.importance) == set(some.names)


def test_the_simple_peer_ranks_by_what_was_seen_close_together() -> None:
    """Nearer items rank before further ones; of equal ones the answer stands in the middle; the unseen is a miss."""
    weights = cooccurrence.learned([[1, 2, 3]])
    assert weights[1] == {2: 1.0, 3: 0.8}
    after = np.array([2, 3, 9, 2], np.uint32)
    assert cooccurrence.ranks(weights, [[1], [1], [1], []], after).tolist() == [1, 2, 0, 0]
    level = cooccurrence.learned([[1, code] for code in (2, 3, 4)])
    assert cooccurrence.ranks(level, [[1]] * 3, np.array([2, 3, 4], np.uint32)).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        ("1 2\n", None, "got --train alone; give both"),
        (None, "1\t2\n", "got --test alone; give both"),
        ("\n \n", "1\t2\n", "at least one session to learn from; got none"),
        ("1 2\n", "\n", "at least one question; got none"),
        ("1 2\n", "1\t2\n1 2\n", "a question is items, a tab.*got line 2 of .*'1 2'; write"),
        ("1 2\n", "1 2\t\n", "a question is items, a tab.*got line 1"),
    ],
)
def test_sessions_that_cannot_be_read_say_why(
    train: str | None, test: str | None, match: str, written: Written
) -> None:
    """The error has the rule, what came, and the remedy."""
    files = [None if text is None else written(name, text) for name, text in (("train", train), ("test", test))]
    with pytest.raises(DataError, match=match) as error:
        sessions.run(Namespace(train=files[0], test=files[1], quick=False))
    assert error.value.remedy


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"test": "ann 1\n"}, "got --test alone"),
        ({"train": "ann\n\n"}, "at least one sequence to learn from; got none"),
        ({"train": "ann 1\nbob 2\n"}, "at least one item to predict; got none"),
        ({"train": "ann 1 2\n", "test": "ann\n"}, "at least one item to predict; got none in .*test"),
        ({"train": "ann 1 2\n", "about": "ann 1"}, "--about is a JSON object"),
        ({"train": "ann 1 2\n", "about": '{"1": "red"}'}, "--about is a JSON object.*not lists by item"),
        ({"train": "ann 1 2\n", "about": "[1]"}, "--about is a JSON object"),
    ],
)
def test_sequences_that_cannot_be_read_say_why(files: dict[str, str], match: str, written: Written) -> None:
    """The error has the rule, what came, and the remedy."""
    given = {name: written(name, files[name]) if name in files else None for name in ("train", "test", "about")}
    with pytest.raises(DataError, match=match) as error:
        sequences.run(Namespace(**given, only=True))
    assert error.value.remedy


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    """On the command line too the error is one line, without a traceback."""
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(b"1 2 3")[:-9])
    for path in (packed, tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match=f"--train names a text file, .* got {path}"):
            sessions.read(path, path)
    command = [sys.executable, "-m", "benchmarks", "sequences", "--train", str(tmp_path / "none")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("--train names a text file")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("count", [1, 5, 60])
def test_few_sessions_of_a_small_shop_are_judged(count: int, written: Written) -> None:
    """Fewer than 20 sessions, eight items, unknown ones and empty lines: figures, and a ratio to the simple peer."""
    train = written("train.txt", "\n\n".join(f"{i % 8} {(i + 1) % 8} {(i + 2) % 8}" for i in range(count)))
    test = written("test.tsv", "0\t1\n\n9\t9\n\t0\n0 1\t2")
    found = sessions.run(Namespace(train=train, test=test, quick=False))
    assert found.detail["questions"] == 4  # type: ignore[index]
    assert found.detail["unknown_answers"] == 1  # type: ignore[index]
    assert found.unit == "P@20 (%), decayed co-occurrence"
    assert (found.ours, found.peer, found.ratio) == (50.0, 50.0, 1.0)


@pytest.mark.parametrize("count", [1, 30])
def test_few_shoppers_of_a_small_shop_are_judged(count: int, written: Written) -> None:
    """Where nobody found an answer there is no ratio; where some did it is to the simple peer."""
    lines = [f"u{i} {i % 8} {(i + 1) % 8} {(i + 2) % 8} {(i + 3) % 8}" for i in range(count)]
    given = Namespace(train=written("train.txt", "\n".join(lines)), test=None, about=None, only=True)
    found = sequences.run(given)
    assert found.unit == "HR@10, decayed co-occurrence"
    assert found.ours == (1.0 if count > 1 else 0.0)
    assert found.ratio == (1.0 if count > 1 else None)
