"""Search by words: how texts are read, BM25 over weighted fields, and latent meaning beside it."""

from penstock.retrieve.text.analyse import Analyser
from penstock.retrieve.text.bm25 import Bm25, Hits
from penstock.retrieve.text.lexical import Lexical
from penstock.retrieve.text.semantic import Semantic

__all__ = ["Analyser", "Bm25", "Hits", "Lexical", "Semantic"]
