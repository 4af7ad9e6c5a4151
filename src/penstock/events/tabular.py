"""Data files as frames of text: CSV, TSV, NDJSON and Parquet, plain or gz."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from penstock.errors import MappingError
from penstock.events.mapping import Csv
from penstock.events.rejection import Rejection

ROW = "_row"
_TEXT = {".csv", ".tsv", ".ndjson", ".jsonl"}
_KINDS = ".csv, .tsv, .ndjson, .jsonl (each also .gz) or .parquet"


@dataclass(frozen=True)
class Table:
    """A file's rows: every column text (or a date), `ROW` their number from 0; and the rows that are broken."""

    frame: pl.DataFrame
    broken: list[Rejection]


def kind_of(path: Path) -> str:
    """The format by the file's ending, without .gz.

    >>> kind_of(Path("events.csv.gz"))
    '.csv'
    """
    endings = [ending.lower() for ending in path.suffixes]
    kind = endings[-2] if endings[-1:] == [".gz"] and len(endings) > 1 else "".join(endings[-1:])
    if kind in _TEXT or endings[-1:] == [".parquet"]:
        return kind
    raise MappingError(f"a data file ends in {_KINDS}", got=path.name, remedy="rename or convert it")


def read_table(path: Path, look: Csv) -> Table:
    """All rows of a file.

    Raises:
        MappingError: it cannot be read as what its ending says.
    """
    kind = kind_of(path)
    try:
        if kind == ".parquet":
            return Table(_as_text(pl.read_parquet(path), ()), [])
        if kind in (".ndjson", ".jsonl"):
            return _ndjson(_bytes(path), look.missing)
        return _delimited(path, look, look.separator or ("\t" if kind == ".tsv" else ","))
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise MappingError(
            f"{path.name} can be read", got=str(error).splitlines()[0], remedy="check the file and the mapping"
        ) from None


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _as_text(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    columns = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype.is_temporal():
            columns.append(column)
            continue
        if dtype.is_float():
            column = column.fill_nan(None)
        text = column.cast(pl.String)
        columns.append(pl.when(text.is_in(["", *missing])).then(None).otherwise(text).alias(name))
    return frame.select(columns).with_row_index(ROW)


def _delimited(path: Path, look: Csv, separator: str) -> Table:
    utf8 = look.encoding.lower().replace("-", "") == "utf8"
    try:
        source = path if utf8 else io.BytesIO(_bytes(path).decode(look.encoding).encode())
        frame = pl.read_csv(source, separator=separator, has_header=look.header, infer_schema=False)
    except (UnicodeDecodeError, LookupError) as error:
        raise MappingError("csv.encoding fits the file", got=str(error), remedy="name the file's encoding") from None
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame()
    except pl.exceptions.ComputeError:
        # Somewhere a row is broken: read again, row by row, to reject that one only.
        return _row_by_row(
            _bytes(path).decode(look.encoding if not utf8 else "utf-8", "surrogateescape"), look, separator
        )
    return Table(_as_text(_named(frame, look.columns), look.missing), [])


def _named(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    if not columns:
        return frame
    if len(columns) != frame.width:
        raise MappingError(
            "csv.columns names every column",
            got=f"{len(columns)} names for {frame.width} columns",
            remedy="add or drop",
        )
    return frame.rename(dict(zip(frame.columns, columns, strict=True)))


def _row_by_row(text: str, look: Csv, separator: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names = list(look.columns)
    if look.header:
        header = next(reader, [])
        names = names or header
    rows: list[tuple[int, list[str]]] = []
    broken: list[Rejection] = []
    index = -1
    try:
        for index, row in enumerate(reader):
            names = names or [f"column_{n}" for n in range(1, len(row) + 1)]
            fault = _fault(row, len(names))
            if fault:
                broken.append(Rejection(index, "", *fault, separator.join(row)))
            else:
                rows.append((index, row + [""] * (len(names) - len(row))))
    except csv.Error as error:
        remedy = "close the quote; nothing after this row could be read"
        broken.append(Rejection(index + 1, "", "a row's quotes are closed", str(error), remedy, ""))
    columns = {name: pl.Series([row[n] for _, row in rows], dtype=pl.String) for n, name in enumerate(names)}
    frame = _as_text(pl.DataFrame(columns), look.missing)
    return Table(frame.with_columns(pl.Series(ROW, [at for at, _ in rows], dtype=pl.UInt32)), broken)


def _fault(row: Sequence[str], width: int) -> tuple[str, str, str] | None:
    if len(row) > width:
        return f"a row has {width} columns", f"{len(row)}", "quote values that hold the separator"
    if not all(map(_encodes, row)):
        return "text has the stated encoding", repr("".join(row)[:60]), 'name another, such as encoding = "latin-1"'
    return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ndjson(data: bytes, missing: Sequence[str]) -> Table:
    # Numbers stay as they are written: an amount must not pass through a float.
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=str)
    broken: list[Rejection] = []
    try:
        objects = list(enumerate(decoder.decode_lines(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        objects = []
        for index, line in enumerate(line for line in data.split(b"\n") if line.strip()):
            try:
                objects.append((index, decoder.decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raw = line.decode("utf-8", "replace")
                remedy = "check the quotes and commas, one whole object a line"
                broken.append(Rejection(index, "", "a line is one JSON object", str(error), remedy, raw))
    names = list(dict.fromkeys(name for _, held in objects for name in held))
    frame = pl.DataFrame({name: _column(held.get(name) for _, held in objects) for name in names})
    table = _as_text(frame, missing)
    return Table(table.with_columns(pl.Series(ROW, [at for at, _ in objects], dtype=pl.UInt32)), broken)


def _column(values: Iterable[Any]) -> pl.Series:
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pl.Series(texts, dtype=pl.String)
