"""The first rows of a file of unknown look: how it is separated, whether it has a header, its columns as text."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

import polars as pl

from penstock.errors import MappingError
from penstock.events.mapping import Csv
from penstock.events.tabular import ROW, kind_of, read_table

ROWS = 100_000
_SEPARATORS = ",;\t|"
_MISSING = ("NULL", "null", "NaN", "nan", "NA", "N/A", "n/a", "None", "\\N", "(not set)")
_VALUE = re.compile(r"[+-]?\d+([.,]\d+)?|\d{1,4}[-./]\d.*")
"""A number or the beginning of a date: no name of a column."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a file.

    Attributes:
        name: the file's name.
        frame: its columns, texts but for dates.
        look: how a delimited file is read; the default for the other formats.
        share: about which share of the file the rows are, 1 for the whole.
        headed: whether the columns have names of their own.
    """

    name: str
    frame: pl.DataFrame
    look: Csv
    share: float
    headed: bool


def sampled(path: Path, rows: int = ROWS) -> Sample:
    """Reads the first `rows` rows of a CSV, TSV, NDJSON or Parquet file, plain or .gz.

    Raises:
        MappingError: it cannot be read, or holds no row.
    """
    kind = kind_of(path)
    try:
        with TemporaryDirectory(prefix="penstock-") as folder:
            head, share = _head(path, kind, rows + 1, Path(folder))
            look, headed = _look(head) if kind in (".csv", ".tsv") else (Csv(), True)
            frame = read_table(head, look).frame.drop(ROW)
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise MappingError("the data file can be read", got=str(error), remedy="name an existing file") from None
    if not len(frame):
        raise MappingError("a history holds rows", got=f"none in {path.name}", remedy="name a file with events")
    missing = tuple(word for word in _MISSING if _holds(frame, word)) if kind != ".parquet" else ()
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    frame = frame.with_columns(pl.when(~pl.col(name).is_in(missing)).then(name).alias(name) for name in texts)
    look = Csv(look.separator, look.header, look.columns, look.encoding, missing)
    return Sample(path.name, frame.head(rows), look, share, headed)


def _head(path: Path, kind: str, rows: int, folder: Path) -> tuple[Path, float]:
    """A file of the first rows, and about which share of the whole they are."""
    out = folder / f"head{kind}"
    if kind == ".parquet":
        whole = pl.scan_parquet(path)
        whole.head(rows).collect().write_parquet(out)
        return out, min(1.0, rows / max(1, whole.select(pl.len()).collect().item()))
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
        with out.open("wb") as copy:
            copy.writelines(islice(stream, rows))
        if not stream.read(1):
            return out, 1.0
        return out, min(1.0, file.tell() / path.stat().st_size)


def _look(path: Path) -> tuple[Csv, bool]:
    data = path.read_bytes()
    encoding = next(name for name in ("utf-8", "cp1252", "latin-1") if _decodes(data, name))
    lines = data.decode(encoding).removeprefix("\ufeff").splitlines()[:200]
    separator = max(_SEPARATORS, key=lambda mark: _evenness(lines, mark))
    first = next(csv.reader(lines[:1], delimiter=separator), [])
    header = not any(_VALUE.fullmatch(cell.strip()) for cell in first)
    shown = None if separator == ("\t" if path.suffix == ".tsv" else ",") else separator
    return Csv(shown, header=header, encoding=encoding), header


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _evenness(lines: Sequence[str], separator: str) -> tuple[float, int]:
    """How well a separator cuts lines into equally many columns, more than one."""
    widths = Counter(len(row) for row in csv.reader(lines, delimiter=separator) if row)
    width, count = widths.most_common(1)[0] if widths else (1, 0)
    return (count / max(1, widths.total()) if width > 1 else 0.0, width)


def _holds(frame: pl.DataFrame, word: str) -> bool:
    texts = frame.select(pl.col(pl.String))
    return bool(texts.width) and texts.select(pl.any_horizontal((pl.all() == word).any())).item() is True
