"""The files of a new app's folder: an app, a mapping, a test, and events where the user has none."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from penstock.clock import DAY, Clock, SystemClock
from penstock.errors import NotFoundError, RequestError, UnavailableError
from penstock.scaffold.guess import Guess
from penstock.scaffold.payments import sample_payments
from penstock.scaffold.toml import mapping_toml
from penstock.scaffold.words import KINDS, identifier
from penstock.simulator import World
from penstock.types import Micros

TEMPLATES = Path(__file__).parent / "templates"
APPS = Path(__file__).parents[1] / "apps"
_TEMPLATE = ".template"


@dataclass(frozen=True)
class Starter:
    """What a new app can start from; its files are templates in a folder of its name.

    Attributes:
        sample: the file of simulated events that a new folder gets where the user names none.
        simulated: its content, up to the midnight given.
        mappings: the files that say how its columns become events, one for each stream that it holds.
        guesses: whether a mapping can be guessed from a file of the user's own.
    """

    sample: str
    simulated: Callable[[Micros], str]
    mappings: tuple[str, ...]
    guesses: bool


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
        RequestError: it guesses nothing, and there is a file.
    """
    chosen = started(starter, guessing=history is not None)
    name = identifier(folder.resolve().name)
    events = history or chosen.sample
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
    if "app.py" not in out:
        out["app.py"] = _built_in(starter, name)
    if guess is not None:
        out["mapping.toml"] = mapping_toml(guess, Path(events).name)
    else:
        out[chosen.sample] = chosen.simulated((clock or SystemClock()).now() // DAY * DAY)
    return out


def started(starter: str, *, guessing: bool = False) -> Starter:
    """The starter of a name; `guessing` where it is to guess a mapping from a file.

    Raises:
        NotFoundError: there is none of that name.
        RequestError: it guesses nothing.
    """
    if starter not in STARTERS:
        raise NotFoundError("a new app starts from one that there is", got=starter, remedy=f"use {', '.join(STARTERS)}")
    chosen = STARTERS[starter]
    if guessing and not chosen.guesses:
        able = ", ".join(name for name, one in STARTERS.items() if one.guesses)
        raise RequestError(
            f"init --from guesses the columns for --app {able} only", got=f"--app {starter}",
            remedy=f"leave --from out, and write your file's columns into {' and '.join(chosen.mappings)}",
        )  # fmt: skip
    return chosen


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


def sample_events(midnight: Micros) -> str:
    """Two weeks of a small simulated shop as CSV, up to a midnight."""
    days = 14
    world = World(
        seed=7, shoppers=250, items=150, categories=8, days=days, sessions=5, views=5, start=midnight - days * DAY
    )
    frame = world.events().frame()
    cents = pl.col("price")
    amount = pl.format("{}.{}", cents // 100, (cents % 100).cast(pl.String).str.zfill(2))
    at = pl.col("time").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame.select(at.alias("time"), "user", "item", "kind", "category", price=amount).write_csv()


STARTERS = {
    "fraud": Starter(
        "payments.csv", lambda midnight: sample_payments(midnight).write_csv(), ("payments.toml", "chargebacks.toml"),
        guesses=False,
    ),
    "nextbest": Starter("events.csv", sample_events, ("mapping.toml",), guesses=True),
}  # fmt: skip


def _built_in(starter: str, name: str) -> str:
    """The app that comes along, under the name of the user's; there penstock is one package among others."""
    text = (APPS / starter / "app.py").read_text("utf-8")
    text = text.replace(f'ps.App("{starter}")', f'ps.App("{name}")', 1)
    return text.replace(
        "from polars import col\n\nimport penstock as ps\n", "import penstock as ps\nfrom polars import col\n", 1
    )


def _fields(guess: Guess | None) -> str:
    if guess is None:
        return ""
    return "".join(f"    {name}: {extra.type} | None = None\n" for name, extra in guess.extras.items())
