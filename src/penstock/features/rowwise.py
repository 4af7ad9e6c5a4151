"""Element-wise expressions over one row at a time, on plain Python numbers.

For one row Polars takes half a millisecond to get ready and next to nothing to compute. What is here gives the same
bits for the operations that IEEE 754 and integer arithmetic fix; whatever else an expression holds is left to Polars.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import polars as pl

from penstock.clock import DAY, HOUR, MINUTE
from penstock.types import Kind

Type = Literal["float", "int", "small", "bool", "text", "time"]
"""What a value is: "small" stands for the narrow integers of parts of a time, on which arithmetic would wrap around."""
Row = Mapping[str, Any]
"""Values by name: None where unknown, times in microseconds."""
Function = Callable[[Row], Any]
TYPES: Mapping[Kind, Type] = {"text": "text", "int": "int", "money": "int", "float": "float", "bool": "bool"}
FEW = 24
"""Up to so many rows are computed faster one by one."""


class _Part(NamedTuple):
    """A part of an expression: what it gives, how, and whether it reads no column."""

    type: Type
    of: Function
    constant: bool


class _Unsupported(Exception):
    """An operation that is left to Polars."""


def compiled(expressions: Sequence[pl.Expr], type_of: Callable[[str], Type | None]) -> list[Function] | None:
    """Each expression as a function of a row, or None where one of them needs Polars.

    Args:
        type_of: the type of a column; None where it has none of these.

    >>> share = compiled([pl.col("spent") / pl.col("payments")], lambda name: "float")
    >>> share[0]({"spent": 3.0, "payments": 2.0}), share[0]({"spent": 3.0, "payments": None})
    (1.5, None)
    """
    try:
        return [_node(msgspec.json.decode(e.meta.serialize(format="json")), type_of).of for e in expressions]
    except (_Unsupported, pl.exceptions.PolarsError, msgspec.DecodeError):
        return None


def as_float(value: Any) -> float:
    """As a feature: NaN for what is unknown or not finite."""
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _node(node: Any, type_of: Callable[[str], Type | None]) -> _Part:
    if not isinstance(node, dict) or len(node) != 1:
        raise _Unsupported
    ((kind, inner),) = node.items()
    if kind == "Column":
        found = type_of(inner)
        if found is None:
            raise _Unsupported
        return _Part(found, operator.itemgetter(inner), False)
    if kind == "Literal":
        return _literal(inner)
    if kind == "BinaryExpr":
        left, right = (_node(inner[side], type_of) for side in ("left", "right"))
        return _Part(*_binary(inner["op"], left, right), left.constant and right.constant)
    if kind == "Ternary":
        parts = [_node(inner[part], type_of) for part in ("predicate", "truthy", "falsy")]
        return _Part(*_choice(*parts), all(part.constant for part in parts))
    if kind == "Cast":
        part = _node(inner["expr"], type_of)
        return _Part(*_cast(str(inner["dtype"]), part), part.constant)
    if kind == "Function" and inner["function"] == "FillNull":
        part, other = (_node(one, type_of) for one in inner["input"])
        return _Part(*_filled(part, other), part.constant and other.constant)
    if kind == "Function" and len(inner["input"]) == 1:
        part = _node(inner["input"][0], type_of)
        return _Part(*_function(str(inner["function"]), part), part.constant)
    raise _Unsupported


def _literal(inner: Any) -> _Part:
    (given,) = inner.values() if isinstance(inner, dict) and len(inner) == 1 else (None,)
    if not isinstance(given, dict) or len(given) != 1:
        raise _Unsupported
    ((kind, value),) = given.items()
    types: Mapping[str, Type] = {"Int": "int", "Float": "float", "String": "text", "Boolean": "bool"}
    if kind not in types or value is None or (kind == "Int" and not -(2**63) <= value < 2**63):
        raise _Unsupported
    return _Part(types[kind], lambda row: value, True)


def _binary(op: str, left: _Part, right: _Part) -> tuple[Type, Function]:
    a, b = left.of, right.of
    types = {left.type, right.type}
    if op in ("And", "Or") and types == {"bool"}:
        return "bool", _both(a, b) if op == "And" else _either(a, b)
    if op in _COMPARED:
        if types <= {"int", "small", "float"}:
            return "bool", _known(_COMPARED[op], *_alike(types, a, b))
        if op in ("Eq", "NotEq") and types == {"text"}:
            return "bool", _known(_COMPARED[op], a, b)
    if any(part.constant and part.of({}) in (0, None) for part in (left, right)) and op not in _COMPARED:
        # Polars adds no zeros, so that -0.0 stays what it is: rarely written, and not worth a rule of its own.
        raise _Unsupported
    if op in ("Plus", "Minus", "Multiply") and types <= {"int", "float"}:
        return ("float", _known(_FLOATS[op], *_alike(types, a, b))) if "float" in types else ("int", _whole(op, a, b))
    if op == "TrueDivide" and types <= {"int", "float"}:
        # Of a column and one number for all rows Polars multiplies by the number's inverse.
        inverse = right.constant and not left.constant
        return "float", _known(_by_inverse if inverse else _divided, _float(a), _float(b))
    raise _Unsupported


def _alike(types: set[Type], a: Function, b: Function) -> tuple[Function, Function]:
    """Integers become floats beside floats, large ones rounded, as in Polars."""
    return (_float(a), _float(b)) if "float" in types else (a, b)


def _float(a: Function) -> Function:
    def value(row: Row) -> float | None:
        x = a(row)
        return None if x is None else float(x)

    return value


def _known(of: Callable[[Any, Any], Any], a: Function, b: Function) -> Function:
    """An operation of which nothing is known where one side is unknown."""

    def value(row: Row) -> Any:
        x, y = a(row), b(row)
        return None if x is None or y is None else of(x, y)

    return value


def _whole(op: str, a: Function, b: Function) -> Function:
    """In 64 bits, wrapping around."""
    of = _FLOATS[op]
    return _known(lambda x, y: (of(x, y) + 2**63) % 2**64 - 2**63, a, b)


def _divided(x: float, y: float) -> float:
    if y:
        return x / y
    return math.nan if not x or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _by_inverse(x: float, y: float) -> float:
    return x * _divided(1.0, y)


def _greater(x: Any, y: Any) -> bool:
    # NaN is the greatest number, and equal to itself.
    return bool(x > y or (x != x and y == y))


def _at_least(x: Any, y: Any) -> bool:
    return bool(x >= y or x != x)


def _same(x: Any, y: Any) -> bool:
    return bool(x == y or (x != x and y != y))


_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "Gt": _greater, "GtEq": _at_least, "Lt": lambda x, y: _greater(y, x), "LtEq": lambda x, y: _at_least(y, x),
    "Eq": _same, "NotEq": lambda x, y: not _same(x, y),
}  # fmt: skip
_FLOATS: Mapping[str, Callable[[Any, Any], Any]] = {
    "Plus": operator.add, "Minus": operator.sub, "Multiply": operator.mul,
}  # fmt: skip


def _both(a: Function, b: Function) -> Function:
    def value(row: Row) -> bool | None:
        x, y = a(row), b(row)
        return False if x is False or y is False else None if x is None or y is None else True

    return value


def _either(a: Function, b: Function) -> Function:
    def value(row: Row) -> bool | None:
        x, y = a(row), b(row)
        return True if x or y else None if x is None or y is None else False

    return value


def _choice(condition: _Part, then: _Part, otherwise: _Part) -> tuple[Type, Function]:
    types = {then.type, otherwise.type}
    if condition.type != "bool" or not (types <= {"int", "float"} or types == {"bool"}):
        raise _Unsupported
    holds, (a, b) = condition.of, _alike(types, then.of, otherwise.of)
    return ("float" if "float" in types else then.type), lambda row: a(row) if holds(row) else b(row)


def _function(name: str, part: _Part) -> tuple[Type, Function]:
    a = part.of
    if name == "{'Boolean': 'IsNull'}":
        return "bool", lambda row: a(row) is None
    if name == "{'Boolean': 'IsNotNull'}":
        return "bool", lambda row: a(row) is not None
    for given, taken, result, of in _ONE:
        if name == given and part.type == taken:
            return result, _where_known(of, a)
    raise _Unsupported


def _cast(dtype: str, part: _Part) -> tuple[Type, Function]:
    for given, taken, result, of in _CASTS:
        if dtype == given and part.type == taken:
            return result, _where_known(of, part.of)
    raise _Unsupported


def _filled(part: _Part, other: _Part) -> tuple[Type, Function]:
    if part.type != other.type or part.type == "small":
        raise _Unsupported
    a, b = part.of, other.of

    def value(row: Row) -> Any:
        x = a(row)
        return b(row) if x is None else x

    return part.type, value


def _where_known(of: Callable[[Any], Any], a: Function) -> Function:
    def value(row: Row) -> Any:
        x = a(row)
        return None if x is None else of(x)

    return value


_CASTS: Sequence[tuple[str, Type, Type, Callable[[Any], Any]]] = [
    ("{'Literal': 'Int64'}", "bool", "int", int), ("{'Literal': 'Float64'}", "bool", "float", float),
    ("{'Literal': 'Float64'}", "int", "float", float), ("{'Literal': 'Float64'}", "float", "float", float),
]  # fmt: skip
# What is done, to which type, giving which.
_ONE: Sequence[tuple[str, Type, Type, Callable[[Any], Any]]] = [
    ("{'Boolean': 'Not'}", "bool", "bool", operator.not_),
    ("Abs", "float", "float", abs),
    ("{'Pow': 'Sqrt'}", "float", "float", lambda x: math.nan if x < 0 else math.sqrt(x)),
    ("{'TemporalExpr': 'Hour'}", "time", "small", lambda time: time // HOUR % 24),
    ("{'TemporalExpr': 'Minute'}", "time", "small", lambda time: time // MINUTE % 60),
    # The epoch began on a Thursday.
    ("{'TemporalExpr': 'WeekDay'}", "time", "small", lambda time: (time // DAY + 3) % 7 + 1),
]
