"""Two towers as a candidate source: what is near the shopper in a space learned from what followed what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.losses import SampledSoftmax
from penstock.learn.two_tower.codes import examples, item_bags, packed, rows
from penstock.learn.two_tower.exact import ITEM_GRID, QUERY_GRID, grid, nearest, plain_through, scores_of, through
from penstock.learn.two_tower.network import Bags, Form, encode
from penstock.learn.two_tower.training import Course, Pairs, train
from penstock.registry import registered
from penstock.retrieve.base import EVERY, Found, History, Index, Listed, Query, Source, places
from penstock.retrieve.beside import Beside
from penstock.retrieve.vectors import Vectors, build
from penstock.types import Array

_HELD = 2_000
_MANY = 20_000
"""With fewer items, comparing all of them takes less than a tenth of a millisecond or two."""
_NEAR = "near."


@registered("source")
@dataclass(frozen=True)
class TwoTower(Source):
    """Items whose vectors are nearest to the shopper's, learned by two towers that share one table of codes.

    The shopper's tower reads the newest items and their attributes, the item's tower the id and its attributes; each
    takes the mean of the codes' rows. They are trained on which item came next, with the batch's own items and evenly
    drawn ones as negatives (see `Course`). An item that training met rarely is found by its attributes. The shopper's
    newest items themselves are not proposed.

    Score column: the cosine, exact to the grid that vectors are rounded to.

    Args:
        of: the shopper's list feature whose events make the sequences, such as ``"recent"``.
        attributes: list features of the shopper that say what the same events' items are like: with
            ``categories = ps.last("category", k=50)`` in the view, ``("categories",)``.
        recent: how many of the newest events to read.
        decay: what each older one counts relative to the one before.
        width: of vectors; inner: of a layer behind the mean, 0: none.
        epochs: at most; training ends where recall on the newest pairs, held out, has not risen for two.
        batch, rate, temperature, uniform, mined, alike, cold: see `Course`.
        most: pairs to learn from, the newest.
        recall: of the k nearest items the share that is to be found; below 1 a vector index is built for a catalogue of
            20,000 items or more (see `penstock.retrieve.vectors`), once, for the release. In training it is exact.
        seed: of training.
        always: keeps it in a release where the ranker gains nothing by it.
    """

    of: str = "recent"
    k: int = 60
    name: str = ""
    attributes: tuple[str, ...] = ()
    recent: int = 10
    decay: float = 0.8
    width: int = 48
    inner: int = 0
    epochs: int = 8
    batch: int = 512
    rate: float = 3e-3
    temperature: float = 0.1
    uniform: int = 512
    mined: int = 0
    alike: float = 1.0
    cold: float = 0.2
    most: int = 200_000
    recall: float = 1.0
    seed: int = 1
    always: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.attributes, str):
            raise DefinitionError(
                "attributes are named in a tuple", got=repr(self.attributes),
                remedy=f"write attributes=({self.attributes!r},)",
            )  # fmt: skip
        if min(self.k, self.recent, self.most) < 1 or not 0 < self.decay <= 1:
            raise DefinitionError(
                "a source reads one item or more and finds one or more; older ones count less",
                got=f"k={self.k}, recent={self.recent}, most={self.most}, decay={self.decay}",
                remedy="k=60, recent=10, most=200_000, decay=0.8",
            )  # fmt: skip
        _ = self.course  # refuses what it cannot be

    @property
    def course(self) -> Course:
        """How the towers are trained."""
        return Course(
            epochs=self.epochs, batch=self.batch, rate=self.rate, loss=SampledSoftmax(self.temperature),
            uniform=self.uniform, mined=self.mined, alike=self.alike, cold=self.cold,
            by="attributes" if self.attributes else "cosine", like=0.6 if self.attributes else 0.9,
            patience=2, seed=self.seed,
        )  # fmt: skip

    @property
    def costly(self) -> bool:
        return not self.always

    def needs(self) -> tuple[str, ...]:
        return (self.of, *self.attributes)

    def check(self, lists: Mapping[str, Listed]) -> None:
        """Each list holds what is read of it: training reads the events themselves, however few a list keeps."""
        for need in self.needs():
            if need in lists:
                view, name = lists[need]
                k = getattr(view.features[name], "k", self.recent)
                if k < self.recent:
                    raise DefinitionError(
                        f"{need} holds the {self.recent} newest events that a source reads of it", got=f"k={k}",
                        remedy=f"give it k={self.recent} or more, or the source recent={k}",
                    )  # fmt: skip

    def fit(self, history: Mapping[str, History], earlier: Index | None = None) -> Index:
        """The towers' weights, every item's vector, and the codes that they read."""
        past = history[self.of]
        known = np.unique(past.item[past.item != 0]).astype(np.uint32)
        parts = [history[name] for name in self.attributes]
        said = [packed(part.item, place) for place, part in enumerate(parts)]
        values = np.unique(np.concatenate([np.zeros(0, np.uint64), *(codes[codes != 0] for codes in said)]))
        id_of = rows(known.astype(np.uint64), past.item.astype(np.uint64), 1)
        lines = [rows(values, codes, 1 + len(known)) for codes in said]
        of_items = [rows(values, packed(past.beside(part), place), 1 + len(known)) for place, part in enumerate(parts)]
        items = item_bags(id_of, of_items, past.time, len(known))
        queries, pairs = examples(
            [(past, id_of), *zip(parts, lines, strict=True)], self.recent, self.decay, self.most
        )  # fmt: skip
        form = self._form(1 + len(known) + len(values))
        index: dict[str, Array] = {"items": known, "values": values}
        if not len(pairs):
            return self._finished(form, index, self._untrained(form), items)
        # The newest pairs say when to stop, as they are what will be asked next.
        held = min(_HELD, len(pairs) // 20)
        cut = len(pairs) - held
        weights = train(
            form, self.course, queries, items, Pairs(pairs.query[:cut], pairs.item[:cut]),
            held=Pairs(pairs.query[cut:], pairs.item[cut:]) if held else None,
        )  # fmt: skip
        return self._finished(form, index, weights, items)

    def released(self, index: Index) -> Index:
        """With an index over the vectors, where one is asked for and worth it.

        Its engine is chosen by what is quick on this machine: training, whose rows are to be the same everywhere,
        compares all.
        """
        if self.recall >= 1 or len(index["items"]) < _MANY:
            return index
        near = build(
            index["vectors"], ids=index["items"].astype(np.int64), metric="ip", recall=self.recall, k=self.k,
            seed=self.seed,
        )  # fmt: skip
        return {**index, **{_NEAR + name: part for name, part in near.arrays().items()}}

    def find(self, query: Query, index: Index) -> Found:
        asked = self._asked(query, index)
        vector = self._vector(asked, index)
        if vector is None:
            return Found.first(self.k, np.zeros(0, np.uint32), np.zeros((0, 1)))
        own = np.array(self._own(query), np.uint32)
        items, scores = nearest(index, vector, self.k, own, _near(index))

        def others(items: NDArray[np.uint32]) -> NDArray[np.float64]:
            """Those of whatever is known and not among the newest."""
            out = np.full((len(items), 1), np.nan)
            held, at = places(index["items"], items)
            out[held, 0] = scores_of(index, vector, at)
            out[np.isin(items, own)] = np.nan
            return out

        return Found(items, scores.astype(np.float64).reshape(-1, 1), others)

    def because(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The recent item whose vector, as much as it counts, is nearest; of equal ones the newer."""
        led = np.zeros(len(items), np.uint32)
        held, at = places(index["items"], items)
        recent = np.array(self._own(query), np.uint32)
        mine, from_ = places(index["items"], recent)
        if not len(held) or not len(mine):
            return led
        place = [query.lists[self.of].tolist().index(code) for code in recent[mine].tolist()]
        passed = (index["vectors"][from_] @ index["vectors"][at].T) * (self.decay ** np.array(place))[:, None]
        led[held] = np.where(passed.max(axis=0) > 0, recent[mine][passed.argmax(axis=0)], 0)
        return led

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        vector = self._plain_vector(self._plain_asked(query, index), index)
        if vector is None:
            return {}
        own = set(self._own(query))
        scores = {
            code: math.fsum(a * b for a, b in zip(vector, line, strict=True)) + 0.0
            for code, line in zip(index["items"].tolist(), index["vectors"].tolist(), strict=True)
            if code not in own
        }
        best = sorted(scores, key=lambda code: (-scores[code], code))[: self.k]
        return {code: (scores[code],) for code in best}

    def plain_others(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        return replace(self, k=EVERY).plain(query, index)

    def _own(self, query: Query) -> list[int]:
        """The different items among the newest, newest first."""
        return [code for code in dict.fromkeys(query.lists[self.of][: self.recent].tolist()) if code]

    def _asked(self, query: Query, index: Index) -> list[tuple[int, float]]:
        """Rows of the table that the shopper's tower reads, and what each counts: once each, where it came first."""
        out: list[tuple[int, float]] = []
        for number, name in enumerate(self.needs()):
            codes = query.lists[name][: self.recent].tolist()
            first = {code: place for place, code in reversed(list(enumerate(codes))) if code}
            different = np.array(sorted(first, key=lambda code: first[code]), np.uint32)
            if number:
                held, at = places(index["values"], packed(different, number - 1))
                at = at + len(index["items"])
            else:
                held, at = places(index["items"], different)
            for code, place in zip(different[held].tolist(), at.tolist(), strict=True):
                out.append((1 + place, self.decay ** first[code]))
        return out

    def _vector(self, asked: list[tuple[int, float]], index: Index) -> NDArray[np.float32] | None:
        """The shopper's vector; None where nothing of what they touched is known.

        In float64 and in a fixed order, element by element, so that plain Python comes to the same bits.
        """
        if not asked:
            return None
        x = np.zeros(self.width)
        total = 0.0
        for row, weight in asked:
            x = x + index["code"][row].astype(np.float64) * weight
            total += weight
        x = x / total
        if self.inner:
            hidden = np.maximum(through(x, index["tower.query.in"], index["tower.query.in_bias"]), 0.0)
            x = x + through(hidden, index["tower.query.back"], index["tower.query.back_bias"])
        length = math.sqrt(math.fsum((x * x).tolist()))
        return grid(x / length, QUERY_GRID) if length else None

    def _plain_asked(self, query: Query, index: Index) -> list[tuple[int, float]]:
        items = {code: row for row, code in enumerate(index["items"].tolist(), 1)}
        values = [(value, row) for row, value in enumerate(index["values"].tolist(), 1 + len(items))]
        row_of = [
            items,
            *(
                {value % 2**32: row for value, row in values if value // 2**32 == number}
                for number in range(len(self.attributes))
            ),
        ]
        out = []
        for name, known in zip(self.needs(), row_of, strict=True):
            seen = {0}
            for place, code in enumerate(query.lists[name].tolist()[: self.recent]):
                if code not in seen and known.get(code):
                    out.append((known[code], self.decay**place))
                seen.add(code)
        return out

    def _plain_vector(self, asked: list[tuple[int, float]], index: Index) -> list[float] | None:
        if not asked:
            return None
        x = [0.0] * self.width
        total = 0.0
        for row, weight in asked:
            x = [have + value * weight for have, value in zip(x, index["code"][row].tolist(), strict=True)]
            total += weight
        x = [value / total for value in x]
        if self.inner:
            hidden = plain_through(x, index["tower.query.in"], index["tower.query.in_bias"])
            back = plain_through(
                [max(value, 0.0) for value in hidden], index["tower.query.back"], index["tower.query.back_bias"]
            )
            x = [have + value for have, value in zip(x, back, strict=True)]
        length = math.sqrt(math.fsum(value * value for value in x))
        return [round(value / length * QUERY_GRID) / QUERY_GRID for value in x] if length else None

    def _form(self, codes: int) -> Form:
        return Form(max(codes, 2), max(codes, 2), self.width, self.inner, shared=True)

    def _untrained(self, form: Form) -> dict[str, Array]:
        nothing = {"code": np.zeros((form.query, self.width), np.float32)}
        if not self.inner:
            return nothing
        shapes = {"in": (self.width, self.inner), "in_bias": (self.inner,), "back": (self.inner, self.width)}
        shapes["back_bias"] = (self.width,)
        sides = ("query", "item")
        return nothing | {f"{s}.{n}": np.zeros(shape, np.float32) for s in sides for n, shape in shapes.items()}

    def _finished(self, form: Form, index: dict[str, Array], weights: dict[str, Array], items: Bags) -> Index:
        vectors = grid(encode(form, weights, "item", items), ITEM_GRID)
        layers = {f"tower.{name}": part for name, part in weights.items() if name != "code"}
        return index | {"code": weights["code"], "vectors": vectors} | layers


_OPENED: Beside[Vectors] = Beside()


def _near(index: Index) -> Vectors | None:
    """The opened index over the vectors, where there is one."""
    if not any(name.startswith(_NEAR) for name in index):
        return None
    arrays = {name.removeprefix(_NEAR): part for name, part in index.items() if name.startswith(_NEAR)}
    return _OPENED.of(index["vectors"], lambda: Vectors.from_arrays(arrays))


two_tower = TwoTower
