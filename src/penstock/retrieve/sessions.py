"""Session nearest neighbours: what past sessions like this one went on to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from penstock.clock import duration
from penstock.registry import registered
from penstock.retrieve.base import EVERY, Found, History, Index, Query, Source, between, distinct, places


@registered("source")
@dataclass(frozen=True)
class SessionNeighbours(Source):
    """Items of the past sessions that share most with the newest items, the newest sharing most (V-SKNN).

    After Ludewig and Jannach, "Evaluation of session-based recommendation algorithms" (2018); `near` after Garg et al.,
    "Sequence and time aware neighborhood for session-based recommendations" (STAN, 2019).

    Args:
        of: the list feature whose events make the sessions.
        recent: how many of the newest different items to compare.
        gap: a pause that ends a session.
        sample: past sessions looked at an item, the newest ones.
        neighbours: sessions that vote.
        idf: whether an item counts the more the fewer sessions have it.
        near: whether a session's vote counts the more the newer the item is that it shares.
    """

    of: str = "recent"
    k: int = 60
    name: str = ""
    recent: int = 10
    gap: str = "30min"
    sample: int = 200
    neighbours: int = 100
    idf: bool = False
    near: bool = False

    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    def fit(self, history: Mapping[str, History], earlier: Index | None = None) -> Index:
        past = history[self.of]
        pause = np.r_[True, (past.owner[1:] != past.owner[:-1]) | (np.diff(past.time) > duration(self.gap))]
        session = np.cumsum(pause[: len(past.item)]) - 1
        # A session holds each item once.
        visit = np.unique((session.astype(np.uint64) << np.uint64(32)) | past.item)
        session, item = (visit >> np.uint64(32)).astype(np.int64), (visit & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        starts = np.searchsorted(session, np.arange(int(session.max(initial=-1)) + 2))
        ended = np.zeros(len(starts) - 1, np.int64)
        np.maximum.at(ended, np.cumsum(pause[: len(past.item)]) - 1, past.time)
        by_item = np.lexsort((-ended[session], item))
        items, first = np.unique(item[by_item], return_index=True)
        keep = np.arange(len(item)) - np.repeat(first, np.diff(np.r_[first, len(item)])) < self.sample
        return {
            "items": items,
            "item_starts": np.searchsorted(item[by_item][keep], items).astype(np.int64),
            "item_sessions": session[by_item][keep],
            "starts": starts.astype(np.int64),
            "visited": item,
            "idf": np.log(max(len(starts) - 1, 1) / np.diff(np.r_[first, len(item)])),
        }

    def find(self, query: Query, index: Index) -> Found:
        place, at = places(index["items"], np.array(distinct(query.lists[self.of], self.recent), np.uint32))
        ends = np.append(index["item_starts"], len(index["item_sessions"]))
        first, end = ends[at], ends[at + 1]
        shared = index["item_sessions"][between(first, end)]
        sessions, inverse = np.unique(shared, return_inverse=True)
        weight = np.repeat(1.0 / (1.0 + place), end - first)
        like = np.bincount(inverse, weights=weight, minlength=len(sessions)).astype(np.float64)
        nearest = np.lexsort((-sessions, -like))[: self.neighbours]
        vote = like[nearest]
        if self.near:
            newest = np.zeros(len(sessions))
            np.maximum.at(newest, inverse, weight)
            vote = vote * newest[nearest]
        first, end = index["starts"][sessions[nearest]], index["starts"][sessions[nearest] + 1]
        visited, inverse = np.unique(index["visited"][between(first, end)], return_inverse=True)
        weights = np.repeat(vote, end - first)
        # Without any weight, bincount would count in integers.
        score = np.bincount(inverse, weights=weights, minlength=len(visited)).astype(np.float64)
        if self.idf:
            score = score * index["idf"][np.searchsorted(index["items"], visited)]
        best = np.lexsort((visited, -score))
        return Found.first(self.k, visited[best].astype(np.uint32), score[best].reshape(-1, 1))

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        known = {item: place for place, item in enumerate(index["items"].tolist())}
        ends = [*index["item_starts"].tolist(), len(index["item_sessions"])]
        like: dict[int, float] = {}
        newest: dict[int, float] = {}
        for position, code in enumerate(distinct(query.lists[self.of], self.recent)):
            at = known.get(code)
            if at is not None:
                for session in index["item_sessions"][ends[at] : ends[at + 1]].tolist():
                    like[session] = like.get(session, 0.0) + 1.0 / (1.0 + position)
                    newest.setdefault(session, 1.0 / (1.0 + position))
        nearest = sorted(like, key=lambda session: (-like[session], -session))[: self.neighbours]
        scores: dict[int, float] = {}
        for session in nearest:
            for code in index["visited"][index["starts"][session] : index["starts"][session + 1]].tolist():
                vote = like[session] * (newest[session] if self.near else 1.0)
                scores[code] = scores.get(code, 0.0) + vote
        if self.idf:
            scores = {code: score * float(index["idf"][known[code]]) for code, score in scores.items()}
        best = sorted(scores, key=lambda code: (-scores[code], code))[: self.k]
        return {code: (scores[code],) for code in best}

    def plain_others(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        return replace(self, k=EVERY).plain(query, index)
