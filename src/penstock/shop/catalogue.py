"""What a shop sells, as a table: item, name, category, brand, price."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from penstock.errors import DefinitionError
from penstock.events.archive import sync_folder

FOLDER = "catalogue"
"""Where the tables lie in a home folder."""
PRODUCTS, SHOPPERS = "products.csv", "shoppers.csv"
_MOST = Decimal(10_000_000)


class Product(msgspec.Struct, frozen=True):
    """One product; `item` is its id in events, `price` in cents."""

    item: str
    name: str
    category: str
    brand: str
    price: int


class Known(msgspec.Struct, frozen=True):
    """A shopper of the past whom a visitor may step into; `note` says what to expect."""

    user: str
    note: str


class Catalogue:
    """All products, in the order of the table.

    Args:
        products: at least one, each id once.
        shoppers: whom a visitor may step into.

    Attributes:
        place: where each item stands in `products`.
    """

    def __init__(self, products: Sequence[Product], shoppers: Sequence[Known] = ()) -> None:
        self.products = products
        self.shoppers = {shopper.user: shopper for shopper in shoppers}
        self.by_item = {product.item: product for product in products}
        self.place = {product.item: place for place, product in enumerate(products)}
        self.by_category: dict[str, list[Product]] = {}
        for product in products:
            self.by_category.setdefault(product.category, []).append(product)

    @classmethod
    def read(cls, home: Path) -> Catalogue | None:
        """The catalogue in a home folder; None where there is none.

        Raises:
            DefinitionError: a table breaks a rule; names the line.
        """
        table, known = home / FOLDER / PRODUCTS, home / FOLDER / SHOPPERS
        if not table.is_file():
            return None
        products = [_product(row, table, line) for line, row in _rows(table, Product.__struct_fields__)]
        if len({product.item for product in products}) < len(products) or not products:
            got = "an id twice" if products else "no line"
            raise DefinitionError("a catalogue lists each product once", got=f"{got} in {table}", remedy="correct it")
        shoppers = [Known(**row) for _, row in _rows(known, Known.__struct_fields__)] if known.is_file() else []
        return cls(products, shoppers)

    def write(self, home: Path) -> None:
        """Puts the tables into a home folder."""
        folder = home / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{**msgspec.to_builtins(p), "price": f"{p.price / 100:.2f}"} for p in self.products]
        _write(folder / PRODUCTS, Product.__struct_fields__, rows)
        _write(folder / SHOPPERS, Known.__struct_fields__, [msgspec.to_builtins(s) for s in self.shoppers.values()])


def leave_out(home: Path, user: str) -> None:
    """Takes a shopper out of those whom a visitor may step into; the table is replaced at once or not at all."""
    known = home / FOLDER / SHOPPERS
    kept = [row for _, row in _rows(known, Known.__struct_fields__) if row["user"] != user]
    part = known.with_suffix(".part")
    _write(part, Known.__struct_fields__, kept)
    part.replace(known)
    sync_folder(known.parent)


def steppable(home: Path, user: str) -> bool:
    """Whether a visitor may step into this shopper."""
    known = home / FOLDER / SHOPPERS
    return known.is_file() and any(row["user"] == user for _, row in _rows(known, Known.__struct_fields__))


def _rows(file: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise DefinitionError(
                f"a table of the catalogue has the columns {', '.join(columns)}",
                got=", ".join(reader.fieldnames or ()) or "an empty file", remedy=f"correct {file}",
            )  # fmt: skip
        return [(reader.line_num, {name: row[name] or "" for name in columns}) for row in reader]


def _product(row: Mapping[str, str], file: Path, line: int) -> Product:
    try:
        price = Decimal(row["price"])
    except InvalidOperation:
        price = Decimal(-1)
    if not row["item"] or not row["name"] or price.is_nan() or not 0 <= price < _MOST:
        raise DefinitionError(
            "a product has an id, a name, and a price such as 24.95",
            got=f"item {row['item']!r}, name {row['name']!r}, price {row['price']!r}",
            remedy=f"correct line {line} of {file}",
        )
    return Product(row["item"], row["name"], row["category"] or "other", row["brand"], round(price * 100))


def _write(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(rows)
