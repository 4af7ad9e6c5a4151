"""The command line. Only signatures are here: what a command needs is loaded when it runs, so help is quick."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.errors import PenstockError


class _Later:
    """A module that is imported when first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


commands = _Later("penstock.commands")
care = _Later("penstock.care")
demo_main = _Later("penstock.demo.main")

cli = typer.Typer(
    name="penstock",
    help="Real-time machine learning for a shop's decisions, from events to decisions and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: penstock demo, then: penstock init myshop --from history.csv",
)
release = typer.Typer(
    help="List releases, and move the pointer to the champion.", no_args_is_help=True, rich_markup_mode=None
)
cli.add_typer(release, name="release")

AppFile = Annotated[
    Path | None, typer.Option("--app", help="The app's Python file; ./app.py if there, else the next-best-action app.")
]
Home = Annotated[Path, typer.Option("--home", help="The folder of everything durable; deleting it is a clean start.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last on standard output.")]
HOME = Path("penstock-data")


@cli.command()
def demo(
    app: AppFile = None,
    home: Annotated[Path, typer.Option("--home", help="Where the demo keeps its data; emptied first.")] = HOME / "demo",
    events: Annotated[Path | None, typer.Option(help="A file of events; the shop simulator's without one.")] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="How the file's columns become fields; found by the file's name if it is a known one."),
    ] = None,
    last: Annotated[str, typer.Option(help="How much of the newest history to replay live.")] = "1d",
    clients: Annotated[int, typer.Option(min=1, max=64, help="Live clients at once.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer; one more writes.")] = 2,
    size: Annotated[int, typer.Option(min=5_000, help="Events to simulate where no file is given.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Of the simulator.")] = 7,
    serve: Annotated[bool, typer.Option("--serve", help="Stay up afterwards, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to serve; 0 takes any free port.")] = 0,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="Also propose items by self-attention, whether or not it earns its place."),
    ] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small, quick run, to see that all works.")] = False,
    json: Json = False,
) -> None:
    """Run the whole system once: ingest, train, release, serve, replay the newest day as live clients, audit."""
    demo_main.run(
        app=app, home=home, events=events, mapping=mapping, last=last, clients=clients, workers=workers,
        size=size, seed=seed, stay=serve, port=port, attention=attention,
        smoke=smoke, json=json,
    )  # fmt: skip


@cli.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new folder; its name becomes the app's.")],
    history: Annotated[
        Path | None, typer.Option("--from", help="A file of events, whose columns it guesses; a small simulated one.")
    ] = None,
    app: Annotated[str, typer.Option("--app", help="The application to start from: nextbest or fraud.")] = "nextbest",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there already.")] = False,
    json: Json = False,
) -> None:
    """Write a folder of your own to start from: an app, a mapping, a test and what to do next."""
    commands.init(folder=folder, history=history, starter=app, force=force, json=json)


@cli.command()
def ingest(
    files: Annotated[list[Path] | None, typer.Argument(help="CSV, Parquet or NDJSON files, plain or .gz.")] = None,
    app: AppFile = None,
    home: Home = HOME,
    mapping: Annotated[Path | None, typer.Option(help="How the file's columns become fields (TOML).")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="List what was refused, newest first, and why.")] = False,
    most: Annotated[int, typer.Option(help="How many rejects to list.")] = 20,
    archive: Annotated[bool, typer.Option("--archive", help="Move what the log holds to a Parquet segment.")] = False,
    json: Json = False,
) -> None:
    """Append events from files to the log. Stopped halfway, the same command goes on where it was."""
    commands.ingest(
        files=files or [], app=app, home=home, mapping=mapping, rejects=rejects, most=most, archive=archive, json=json
    )


@cli.command()
def train(
    app: AppFile = None,
    home: Home = HOME,
    decision: Annotated[str | None, typer.Option(help="Which decision; all that the app has without it.")] = None,
    promote: Annotated[bool, typer.Option(help="Whether the release takes charge at once.")] = True,
    study: Annotated[
        bool, typer.Option("--study", help="Also fit with fewer labels, and without each view and source; slower.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare rankers on the log, write a release with its report, and promote it."""
    commands.train(app=app, home=home, decision=decision, promote=promote, study=study, json=json)


@cli.command()
def serve(
    app: AppFile = None,
    home: Home = HOME,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes any free one.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer; with several, one more writes for all.")
    ] = 1,
    clock: Annotated[
        str, typer.Option(help="'system', or 'events': now is the newest event's time, to replay recorded days.")
    ] = "system",
    future: Annotated[
        str | None,
        typer.Option(help="How far ahead of now an event may be dated; 5min, or 30d on the events' clock."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="PENSTOCK_STORE",
            show_envvar=False,
            help="Where features are kept: redis://HOST:PORT/DB; in the home folder without it.",
        ),
    ] = None,
    access_log: Annotated[
        Path | None, typer.Option("--access-log", help="A file that gets a JSON line for each request.")
    ] = None,
    json: Json = False,
) -> None:
    """Serve events, decisions, features and releases over HTTP until Ctrl-C."""
    # Requests hold some hundred rows: Polars' thread pool would only take the cores from other requests.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    commands.serve(
        app=app, home=home, host=host, port=port, workers=workers, clock=clock, future=future, store=store,
        access_log=access_log, json=json,
    )  # fmt: skip


@cli.command()
def audit(
    app: AppFile = None,
    home: Home = HOME,
    decisions: Annotated[int, typer.Option(min=1, help="How many served decisions to recompute.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    prove: Annotated[
        bool, typer.Option("--prove", help="Also compare every engine and store on apps drawn at random.")
    ] = False,
    spark: Annotated[
        bool, typer.Option("--spark", help="The same as --prove with Spark on this machine, which takes minutes.")
    ] = False,
    json: Json = False,
) -> None:
    """Recompute served decisions from the log, and run the app's views in disorder; exit 1 on any mismatch."""
    commands.audit(app=app, home=home, decisions=decisions, seed=seed, prove=prove, spark=spark, json=json)


@cli.command()
def explain(
    id: Annotated[str, typer.Argument(help="The decision_id of an answer.")],
    app: AppFile = None,
    home: Home = HOME,
    most: Annotated[int, typer.Option(min=1, help="How many items to explain, from the first place on.")] = 5,
    json: Json = False,
) -> None:
    """Say what one decision knew, where each item came from, and what put it in its place."""
    commands.explain(id=id, app=app, home=home, most=most, json=json)


@cli.command()
def doctor(
    app: AppFile = None,
    home: Home = HOME,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where the server would listen.")] = 8000,
    json: Json = False,
) -> None:
    """Name what is missing or wrong here and in the home folder, with the command that mends it; exit 1 if anything."""
    care.doctor(app=app, home=home, named=home != HOME, port=port, json=json)


@cli.command()
def forget(
    entity: Annotated[str, typer.Argument(help="Whom, as FIELD=VALUE: user=u-123.")],
    app: AppFile = None,
    home: Home = HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before erasing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; a server may be running.")
    ] = False,
    json: Json = False,
) -> None:
    """Erase a person from everything in the home folder, and name the releases that learned from them."""
    care.forget(entity=entity, app=app, home=home, yes=yes, dry_run=dry_run, json=json)


@cli.command()
def reviews(
    decision: Annotated[
        str | None, typer.Argument(help="The verdict's name; may be left out where the app has one.")
    ] = None,
    app: AppFile = None,
    home: Home = HOME,
    most: Annotated[int, typer.Option(help="So many at most.", min=1)] = 20,
    staff: Annotated[
        float | None, typer.Option(help="Say how many reviews a day there are people for; a running server hears it.")
    ] = None,
    json: Json = False,
) -> None:
    """List what waits for a person, by what a look at it is expected to save."""
    commands.reviews(decision=decision, app=app, home=home, most=most, staff=staff, json=json)


@release.command("list")
def release_list(home: Home = HOME, json: Json = False) -> None:
    """List the releases, oldest first; the champion of each decision is marked."""
    commands.release_list(home=home, json=json)


@release.command("promote")
def release_promote(
    id: Annotated[str, typer.Argument(help="The release's id.")], home: Home = HOME, json: Json = False
) -> None:
    """Make a release the champion of its decision; a running server swaps when it has caught up."""
    commands.release_promote(id=id, home=home, json=json)


@release.command("rollback")
def release_rollback(
    decision: Annotated[str, typer.Argument(help="The decision's name.")], home: Home = HOME, json: Json = False
) -> None:
    """Go back to the champion before the present one."""
    commands.release_rollback(decision=decision, home=home, json=json)


def main() -> None:
    """Runs the command line; errors of the user's are one line, never a traceback."""
    try:
        cli()
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("penstock: stopped; what was acknowledged is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
