"""Engines turn a log into feature values; all of them agree byte for byte."""

from penstock.engines.batch import BatchEngine
from penstock.engines.naive import NaiveEngine
from penstock.engines.stream import StreamEngine

__all__ = ["BatchEngine", "NaiveEngine", "StreamEngine"]
