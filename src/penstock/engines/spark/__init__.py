"""Apache Spark as an engine: needs `pip install 'penstock[spark]'` and Java 17 or newer."""

from penstock.engines.spark.engine import SparkEngine
from penstock.engines.spark.session import local_session

__all__ = ["SparkEngine", "local_session"]
