"""Candidate sources, one a file; each registers itself."""

from penstock.retrieve.base import Documents, Found, History, Index, Query, Reader, Source
from penstock.retrieve.neighbours import Covisits, Similar
from penstock.retrieve.popularity import Popular, Popularity, PopularLists
from penstock.retrieve.recent import Seen
from penstock.retrieve.sessions import SessionNeighbours
from penstock.retrieve.text import Lexical, Semantic

covisits, similar, seen, popular, session_neighbours = Covisits, Similar, Seen, Popular, SessionNeighbours
lexical, semantic = Lexical, Semantic

__all__ = [
    "Covisits",
    "Documents",
    "Found",
    "History",
    "Index",
    "Lexical",
    "Popular",
    "PopularLists",
    "Popularity",
    "Query",
    "Reader",
    "Seen",
    "Semantic",
    "SessionNeighbours",
    "Similar",
    "Source",
    "covisits",
    "lexical",
    "popular",
    "seen",
    "semantic",
    "session_neighbours",
    "similar",
]  # fmt: skip
