"""The files of a new app's folder: an app, a mapping, a test, and events where the user has none."""

from __future__ import annotations

from collections.abc import Mapping as ReadOnly
from pathlib import Path

import polars as pl

from penstock.clock import DAY, Clock, SystemClock
from penstock.errors import NotFoundError, RequestError, UnavailableError
from penstock.scaffold.guess import Guess
from penstock.scaffold.toml import mapping_toml
from penstock.scaffold.words import KINDS, identifier
from penstock.simulator import World

TEMPLATES = Path(__file__).parent / "templates"
STARTERS = tuple(sorted(folder.name for folder in TEMPLATES.iterdir() if folder.is_dir()))
"""What a new app can start from; a folder of templates each."""
SAMPLE = "events.csv"
_TEMPLATE = ".template"


def files_of(
    starter: str, folder: Path, history: str | None, guess: Guess | None, clock: Clock | None = None
) -> dict[str, str]:
    """The files of a new folder: name → text.

    Args:
        starter: what to start from, one of `STARTERS`.
        folder: where; its name becomes the app's.
        history: the user's own file as seen from the folder, or None.
        guess: what that file holds.
        clock: when simulated events, where there is no file, have just ended.

    Raises:
        NotFoundError: there is no such starter.
    """
    if starter not in STARTERS:
        raise NotFoundError("a new app starts from one that there is", got=starter, remedy=f"use {', '.join(STARTERS)}")
    name = identifier(folder.resolve().name)
    events = history or SAMPLE
    words = {
        "name": name,
        "events": events,
        "kinds": ", ".join(f'"{kind}"' for kind in (guess.kinds if guess else KINDS)),
        "fields": _fields(guess),
        "goal": guess.goal if guess else "view",
        "valid": f"{guess.days}d" if guess else "1d",
        "labels": f"{3 * guess.days}d" if guess else "3d",
    }
    out = {}
    for path in sorted((TEMPLATES / starter).iterdir()):
        text = path.read_text("utf-8")
        for word, value in words.items():
            text = text.replace("{{" + word + "}}", value)
        out[path.name.removesuffix(_TEMPLATE)] = text
    if guess is not None:
        out["mapping.toml"] = mapping_toml(guess, Path(events).name)
    else:
        out[SAMPLE] = sample_events(clock or SystemClock())
    return out


def write(folder: Path, files: ReadOnly[str, str], *, force: bool) -> None:
    """Writes them all, or none.

    Raises:
        RequestError: some are there already and `force` is not given.
        UnavailableError: the folder cannot be written.
    """
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        raise RequestError(
            "init writes no file that is there already", got=f"{', '.join(there)} in {folder}",
            remedy="name another folder, or add --force to write over them",
        )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise UnavailableError(
            "the new folder can be written", got=f"{folder}: {error.strerror}", remedy="name another folder"
        ) from None


def sample_events(clock: Clock) -> str:
    """Two weeks of a small simulated shop as CSV, up to the last midnight."""
    days = 14
    midnight = clock.now() // DAY * DAY
    world = World(
        seed=7, shoppers=250, items=150, categories=8, days=days, sessions=5, views=5, start=midnight - days * DAY
    )
    frame = world.events().frame()
    cents = pl.col("price")
    amount = pl.format("{}.{}", cents // 100, (cents % 100).cast(pl.String).str.zfill(2))
    at = pl.col("time").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame.select(at.alias("time"), "user", "item", "kind", "category", price=amount).write_csv()


def _fields(guess: Guess | None) -> str:
    if guess is None:
        return ""
    return "".join(f"    {name}: {extra.type} | None = None\n" for name, extra in guess.extras.items())
