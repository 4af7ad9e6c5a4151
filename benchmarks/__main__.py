"""Finds a benchmark by its module's name, runs it, and prints one JSON line last."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pkgutil

import benchmarks
from penstock.errors import PenstockError


def main() -> None:
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    chosen, rest = parser.parse_known_args()
    module = importlib.import_module(f"benchmarks.{chosen.name}")
    takes = getattr(module, "arguments", None)
    own = argparse.ArgumentParser(prog=f"python -m benchmarks {chosen.name}")
    if takes is not None:
        takes(own)
    options = own.parse_args(rest)
    try:
        result = module.run(options) if takes is not None else module.run()
    except PenstockError as error:
        raise SystemExit(f"{error}") from None
    if chosen.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(text(result))


def text(result: benchmarks.Result) -> str:
    """A result for people."""
    peer = "no peer here" if result.peer is None else f"peer {result.peer:,.4g}"
    if result.ratio is not None:
        peer += f", {result.ratio:.1f} times better"
    return f"{result.name}: {result.ours:,.4g} {result.unit} ({peer}). {result.detail}"


if __name__ == "__main__":
    main()
