"""The engine that is an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import import_module
from typing import Any

from penstock.errors import UnavailableError
from penstock.types import Log

# Loaded when first used: PySpark is an extra.
_SPARK = "penstock.engines.spark"


@contextmanager
def local_spark(*, spread: int = 2) -> Iterator[Callable[[Log], AbstractContextManager[Any]]]:
    """A Spark of this machine, for as long as the block lasts: what makes a `SparkEngine` over a log.

    Args:
        spread: over how many parts the events of one key are spread.

    Raises:
        UnavailableError: PySpark or Java is missing; the message says what to install.
    """
    try:
        spark = import_module(_SPARK)
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "Spark needs PySpark", got=f"no module {error.name}", remedy="pip install 'penstock[spark]'"
        ) from None
    session = spark.local_session()
    try:
        # A worker holds the events of one cell.
        yield lambda log: closing(spark.SparkEngine(log, session, cells=max(4, log.end // 500_000), spread=spread))
    finally:
        session.stop()
