"""From bytes to the durable log."""

from penstock.events.intake import Intake, Parsed
from penstock.events.log import Rejected, SqliteLog
from penstock.events.rows import RowsLog
from penstock.events.schema import Event, Money, schema_of

__all__ = ["Event", "Intake", "Money", "Parsed", "Rejected", "RowsLog", "SqliteLog", "schema_of"]
