"""Vectors, and what is nearest to them: exact, in lists or in a graph, whichever is fastest for the recall asked."""

from penstock.retrieve.vectors.balance import Balance
from penstock.retrieve.vectors.base import Engine, Searcher, Setting, VectorError
from penstock.retrieve.vectors.choose import build
from penstock.retrieve.vectors.exact import Exact, Int8
from penstock.retrieve.vectors.faiss_graph import FaissGraph
from penstock.retrieve.vectors.faiss_lists import FaissLists
from penstock.retrieve.vectors.lists import Lists
from penstock.retrieve.vectors.live import Vectors
from penstock.retrieve.vectors.report import Report, Trial
from penstock.retrieve.vectors.scann_tree import ScannTree

__all__ = [
    "Balance",
    "Engine",
    "Exact",
    "FaissGraph",
    "FaissLists",
    "Int8",
    "Lists",
    "Report",
    "ScannTree",
    "Searcher",
    "Setting",
    "Trial",
    "VectorError",
    "Vectors",
    "build",
]
