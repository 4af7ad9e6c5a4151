"""From bytes to the durable log."""

from penstock.events.files import Ingested, ingest_file, read_file
from penstock.events.intake import BodyError, Intake, Parsed
from penstock.events.log import SqliteLog, ties
from penstock.events.mapping import Mapping
from penstock.events.rejection import DeadLetter, Rejection
from penstock.events.rows import RowsLog
from penstock.events.schema import Event, Money, schema_of

__all__ = [
    "BodyError", "DeadLetter", "Event", "Ingested", "Intake", "Mapping", "Money", "Parsed", "Rejection", "RowsLog",
    "SqliteLog", "ingest_file", "read_file", "schema_of", "ties",
]  # fmt: skip
