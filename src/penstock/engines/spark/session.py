"""A Spark of one machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from penstock.errors import UnavailableError

_LOGGING = Path(__file__).with_name("log4j2.properties")


def local_session(cores: int = 2, memory: str = "2g") -> SparkSession:
    """Spark in a process beside this one, quiet and without its web page; `stop()` ends it.

    Args:
        cores: how many workers it has.
        memory: of its Java process; the workers' own comes on top.

    Raises:
        UnavailableError: there is no Java.
    """
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise UnavailableError(
            "Spark runs on Java 17 or newer", got="no java", remedy="apt-get install default-jre-headless"
        )
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The first `python3` of PATH otherwise, which need not be the one that has penstock.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{_LOGGING}",
        "spark.driver.memory": memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        # Each task starts a Python worker, and there are no more cores than these.
        "spark.sql.shuffle.partitions": str(2 * cores),
    }
    builder = SparkSession.builder.master(f"local[{cores}]").appName("penstock")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise UnavailableError(
            "Spark runs on Java 17 or newer", got=str(error).splitlines()[0],
            remedy="apt-get install default-jre-headless, or set JAVA_HOME",
        ) from None  # fmt: skip
