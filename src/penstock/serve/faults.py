"""What a thread must outlive, whatever it was doing."""

from __future__ import annotations

from polars.exceptions import PanicException

# A panic inside Polars is no Exception, and would end the thread for good.
FAULTS: tuple[type[BaseException], ...] = (Exception, PanicException)
