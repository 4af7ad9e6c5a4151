"""Candidate sources, one a file; each registers itself."""

from penstock.retrieve.base import Found, History, Index, Query, Source
from penstock.retrieve.neighbours import Covisits, Similar
from penstock.retrieve.popularity import Popular, Popularity, PopularLists
from penstock.retrieve.recent import Seen
from penstock.retrieve.sessions import SessionNeighbours

covisits, similar, seen, popular, session_neighbours = Covisits, Similar, Seen, Popular, SessionNeighbours

__all__ = [
    "Covisits",
    "Found",
    "History",
    "Index",
    "Popular",
    "PopularLists",
    "Popularity",
    "Query",
    "Seen",
    "SessionNeighbours",
    "Similar",
    "Source",
    "covisits",
    "popular",
    "seen",
    "session_neighbours",
    "similar",
]  # fmt: skip
