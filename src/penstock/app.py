"""The app: one Python file defines events, views and decisions; the same object runs them in process."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from penstock.clock import Clock, SystemClock, duration
from penstock.errors import DefinitionError, PenstockError, RequestError
from penstock.events import Event, Intake, SqliteLog, schema_of
from penstock.features import View, define
from penstock.learn import Shown, join_outcomes
from penstock.releases import Registry
from penstock.releases.run import Step, Trained
from penstock.releases.training import train
from penstock.releases.verdicts import train_verdict
from penstock.serve.decisions import DECISIONS, acted, impressions, logged
from penstock.serve.definition import Decision, unknown_decision
from penstock.serve.definition import define as define_decision
from penstock.serve.ingestor import Ingestor, Inlet
from penstock.serve.lock import HomeLock
from penstock.serve.requests import Answer, Judged, checked
from penstock.serve.runtime import Runtime
from penstock.serve.verdicts import Verdict
from penstock.serve.verdicts import define as define_verdict
from penstock.stores import open_store
from penstock.types import Accepted, Micros, Progress, Store

D = TypeVar("D")
HOME = Path("penstock-data")


class App:
    """A system under one name.

    Used as a definition (`event`, `view` and `decision` decorate classes), and in process as the system
    itself: `ingest`, `train`, `decide` and `features` open the home folder when first called.

    Args:
        name: of the app.
        home: the folder of everything durable.
        clock: says now, and how far in the future an event may lie; the wall clock by default.
        store: the address of a Redis for the features, ``"redis://HOST:PORT/DB"``; they are in the home folder without.

    >>> app = App("shop")
    >>> class Action(Event):
    ...     user: str
    ...     item: str
    >>> import penstock as ps
    >>> @app.view(on=Action, by="user")
    ... class Shopper:
    ...     recent = ps.last("item", k=10)
    >>> Shopper.by
    ('user',)
    """

    def __init__(
        self, name: str, *, home: Path | str = HOME, clock: Clock | None = None, store: str | None = None
    ) -> None:
        self.name = name
        self.home = Path(home)
        self.store = store
        self.clock: Clock = clock or SystemClock()
        self.events: dict[str, type[Event]] = {}
        self.views: dict[str, View] = {}
        self.decisions: dict[str, Decision] = {}
        self.verdicts: dict[str, Verdict] = {}
        self._runtime: Runtime | None = None

    # Definition

    def event(self, cls: type[Event]) -> type[Event]:
        """Declares an event type that no view reads yet; views declare theirs by themselves."""
        stream = schema_of(cls).stream
        if self.events.setdefault(stream, cls) is not cls:
            raise DefinitionError("a stream has one event type", got=f"{stream} twice", remedy="rename one class")
        return cls

    def view(self, *, on: type[Event], by: str | Sequence[str] = ()) -> Callable[[type], View]:
        """Declares a view: the decorated class holds aggregates by name, and becomes the `View`.

        Args:
            on: the event type it reads.
            by: the field, or fields, that name an entity; none makes one global entity.
        """
        self.event(on)

        def declare(cls: type) -> View:
            view = define(cls, schema=schema_of(on), by=by)
            if view.name in self.views:
                raise DefinitionError("a view's name is its own", got=f"{view.name} twice", remedy="rename one")
            self.views[view.name] = view
            return view

        return declare

    def decision(
        self,
        name: str,
        *,
        by: str,
        item: str = "item",
        budget: str = "50ms",
        k: int = 20,
        context: Sequence[str] = (),
        cache: str | None = None,
    ) -> Callable[[type], Decision]:
        """Declares a decision: the decorated class says where items come from, how they rank, what else holds.

        The class body may hold ``candidates`` (sources), ``rank`` (a `LambdaRank`), ``rerank`` (rules),
        ``fallback`` (popular sources), ``leave_out`` (names of list features never shown) and ``most``.

        Args:
            name: in the address, ``/v1/decide/{name}``.
            by: the key field that a request names, such as ``"user"``.
            item: the key field of what is decided on.
            budget: the time within which an answer must leave.
            k: items an answer, unless the request says otherwise.
            context: text fields that a request may carry.
            cache: how long an answer may be given again to a shopper who has done nothing since.
        """

        def declare(cls: type) -> Decision:
            decision = define_decision(
                name, cls, by=by, item=item, budget=duration(budget), k=k, context=context,
                cache=0 if cache is None else duration(cache), views=self.views,
            )  # fmt: skip
            self._name_once(name)
            self.decisions[name] = decision
            return decision

        return declare

    def verdict(self, name: str, *, on: type[Event], by: str, budget: str = "50ms") -> Callable[[type], Verdict]:
        """Declares a decision on single events: the decorated class says what is learned, what acting costs, and rules.

        The class body holds ``costs`` (a `Costs`) and ``outcomes`` (what tells bad events from good), and may hold
        ``views`` (all that fit, where absent), ``request`` (columns computed when an event asks), ``models`` (the
        simplest first), ``first``, ``last`` and ``fallback`` (rules), ``otherwise`` (what is done where nothing can be
        known in time), ``explore`` (the share of declines that are approved to learn from), ``labels``, ``valid`` and
        ``most`` (how far back, and from how many events, is learned).

        Args:
            name: in the address, ``/v1/decide/{name}``.
            on: the type of the events that are decided on.
            by: the field that says who is decided about, such as ``"customer"``.
            budget: the time within which an answer must leave.
        """
        self.event(on)

        def declare(cls: type) -> Verdict:
            verdict = define_verdict(
                name, cls, schema=schema_of(on), by=by, budget=duration(budget), views=self.views
            )  # fmt: skip
            self._name_once(name)
            self.verdicts[name] = verdict
            return verdict

        return declare

    def _name_once(self, name: str) -> None:
        if name in self.decisions or name in self.verdicts:
            raise DefinitionError("a decision's name is its own", got=f"{name} twice", remedy="rename one")

    # In process

    def open(self, *, progress: Progress | None = None) -> Runtime:
        """Opens the home folder; the store catches up with the log first.

        Args:
            progress: told while the store catches up.
        """
        if self._runtime is None:
            with ExitStack() as opened:
                log, store, ingestor = self.ingesting(opened, progress)
                self._runtime = self.answering(log, store, ingestor, opened)
        return self._runtime

    def ingesting(self, opened: ExitStack, progress: Progress | None = None) -> tuple[SqliteLog, Store, Ingestor]:
        """What writes: the home's log and store, and what feeds both; `opened` closes them."""
        opened.callback(HomeLock(self.home).close)
        log = self.log()
        opened.callback(log.close)
        store = open_store(self.store, self.home, log.id)
        opened.callback(store.close)
        ingestor = Ingestor(log, store, self.registry, list(self.views.values()), self.clock, progress)
        opened.callback(ingestor.close)
        return log, store, ingestor

    def answering(self, log: SqliteLog, store: Store, inlet: Inlet, opened: ExitStack, *, workers: int = 1) -> Runtime:
        """What answers, over what was opened for it; closing it closes that too. `workers` such processes share all."""
        return Runtime(
            self.home,
            log=log,
            store=store,
            inlet=inlet,
            intake=self.intake(),
            views=list(self.views.values()),
            decisions=list(self.decisions.values()),
            verdicts=list(self.verdicts.values()),
            clock=self.clock,
            closing=opened.pop_all(),
            workers=workers,
        )

    def close(self) -> None:
        """Commits and closes what was opened."""
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def __enter__(self) -> App:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def log(self, *, read_only: bool = False) -> SqliteLog:
        """The event log of the home folder; `read_only` where another process may append."""
        schemas = [schema_of(cls) for cls in self.events.values()]
        return SqliteLog(self.home / "log.sqlite", schemas, read_only=read_only)

    def intake(self) -> Intake:
        """Checks events of this app's types."""
        return Intake(list(self.events.values()), self.clock)

    def ingest(self, events: Iterable[Mapping[str, Any] | Event]) -> int:
        """Appends events; once it returns they are durable and in the next decision. Returns how many were new.

        Raises:
            EventError: at the first bad event; none of the batch is appended then.
        """
        runtime = self.open()
        accepted: list[Accepted] = []
        newest = 0
        for event in events:
            accepted.append(runtime.intake.check(event, after=newest))
            newest = max(newest, accepted[-1].time)
        return sum(runtime.append(accepted))

    def decide(
        self,
        name: str,
        *,
        user: str,
        context: dict[str, Any] | None = None,
        event: Mapping[str, Any] | Event | None = None,
        k: int | None = None,
        budget_ms: float | None = None,
    ) -> Answer:
        """Decides as the server does. An `event` given along is durable on return, and not in its own features."""
        runtime = self.open()
        given = runtime.intake.check(event) if event is not None else None
        asked = checked(user=user, context=context, k=k, budget_ms=budget_ms)
        if name in self.verdicts:
            raise RequestError(f"{name} decides on events", got="a user", remedy="ask app.judge(name, event)")
        answer = runtime.decide(name, asked)
        assert isinstance(answer, Answer)
        if given is not None:
            runtime.append([given])
        runtime.served(answer)
        return answer

    def judge(self, name: str, event: Mapping[str, Any] | Event, *, budget_ms: float | None = None) -> Judged:
        """Decides on one event as the server does; it is durable on return, and not in its own features.

        An event that was decided on before, by its id, gets the same answer again.

        Raises:
            EventError: the event breaks a rule; nothing is decided or logged then.
            RequestError: the id is that of an event with other fields.
        """
        runtime = self.open()
        given = runtime.intake.check(event)
        if name in self.decisions:
            raise RequestError(f"{name} answers lists", got="an event", remedy="ask app.decide(name, user=…)")
        return runtime.judge(name, checked(budget_ms=budget_ms), given)

    def features(self, view: str, key: str) -> dict[str, Any]:
        """The present features of one entity; several ids are joined by commas."""
        found: dict[str, Any] = self.open().features(view, key)["features"]
        return found

    def train(
        self,
        decision: str | None = None,
        *,
        promote: bool = True,
        until: int | None = None,
        study: bool = False,
        step: Step | None = None,
    ) -> Trained:
        """Trains a decision's rankers on the log, writes a release and, by default, promotes it.

        Args:
            decision: its name; the app's first without it.
            promote: whether the release takes charge at once.
            until: only events below this offset are learned from.
            study: whether to fit a ranker again with fewer labels, and without each view and source, for the report.
            step: told of each step, for progress bars.
        """
        chosen = self._any(decision)
        if study and isinstance(chosen, Verdict):
            raise RequestError(
                "a study is made of a ranker", got=f"the verdict {chosen.name}", remedy="leave --study out"
            )
        log = self._runtime.log if self._runtime is not None else self.log()
        folder, names = self.home / "releases", {"app": self.name, "log_id": log.id}
        try:
            if self._runtime is not None:
                self._runtime.decisions.flush()
            if isinstance(chosen, Verdict):
                decided = logged(
                    self.home / DECISIONS,
                    chosen.name,
                    audited=False,
                    since=_oldest(chosen, log) if until is None else 0,
                )
                done = acted(decided, chosen.recipe.schema.stream)
                trained = train_verdict(
                    chosen.recipe, chosen.costs, log, folder, **names, acted=done, until=until, step=step
                )
            else:
                shown = None
                rewards = chosen.rewards
                if rewards or chosen.recipe.rank.examples == "shown":
                    shown = impressions(logged(self.home / DECISIONS, chosen.name), chosen.recipe, log.strings)
                trained = train(
                    chosen.recipe, log, folder, **names, shown=shown, rewards=rewards, wanted=chosen.wanted,
                    until=until, study=study, step=step,
                )  # fmt: skip
        finally:
            if self._runtime is None:
                log.close()
        if promote:
            self.registry.promote(trained.release)
            if self._runtime is not None:
                self._runtime.refresh(wait=True)
        return trained

    def impressions(self, decision: str | None = None, *, window: str = "1d", as_of: int | None = None) -> pl.DataFrame:
        """Every item that was shown, with what came of it: training rows of the system's own making.

        Args:
            decision: its name; the app's first without it.
            window: how long after being shown an item the goal's event still counts as its outcome.
            as_of: the moment from which to look, microseconds; labels that arrive later are not there yet.

        Returns:
            A row an item shown: decision_id, time, user, item, place (from 1), score, propensity, tier, release,
            positive, mature (the window has closed, so that no event means none), delay_s (to the label's arrival).
        """
        chosen = self._decision(decision)
        runtime = self.open()
        runtime.decisions.flush()
        decided = runtime.decisions.read(chosen.name)
        strings = runtime.log.strings
        size = [len(d.shown) for d in decided]
        owner = np.repeat(np.arange(len(decided)), size)
        none = np.zeros(0, np.uint32)
        shown = Shown(
            np.array([strings.code(d.entity) for d in decided], np.uint32)[owner],
            np.concatenate([none, *(d.items[d.shown] for d in decided)]),
            np.array([d.time for d in decided], np.int64)[owner],
        )
        now = max(self.clock.now(), runtime.log.newest) if as_of is None else as_of
        rows = runtime.log.read(0, runtime.log.end)
        found = join_outcomes(shown, chosen.recipe, rows, strings, window=duration(window), as_of=now)
        return pl.DataFrame(
            {
                "decision_id": [decided[i].id for i in owner.tolist()],
                "time": pl.Series(shown.time).cast(pl.Datetime("us", "UTC")),
                "user": [decided[i].entity for i in owner.tolist()],
                "item": strings.texts(shown.item),
                "place": np.concatenate([none, *(np.arange(1, n + 1, dtype=np.uint32) for n in size)]),
                "score": np.concatenate([np.zeros(0, np.float32), *(d.scores for d in decided)]),
                "propensity": np.concatenate([np.zeros(0, np.float32), *(d.propensities for d in decided)]),
                "tier": [decided[i].tier for i in owner.tolist()],
                "release": pl.Series([decided[i].release for i in owner.tolist()], dtype=pl.String),
                "positive": found.positive,
                "mature": found.mature,
                "delay_s": np.where(found.delay < 0, np.nan, found.delay / 1e6),
            }
        )

    @property
    def registry(self) -> Registry:
        """The releases of the home folder."""
        return Registry(self.home / "releases")

    def _decision(self, name: str | None) -> Decision:
        return _named(name, self.decisions)

    def named_verdict(self, name: str | None = None) -> Verdict:
        """The verdict of a name; without a name, the first."""
        return _named(name, self.verdicts)

    def _any(self, name: str | None) -> Decision | Verdict:
        both: dict[str, Decision | Verdict] = {**self.decisions, **self.verdicts}
        return _named(name, both)


def _oldest(verdict: Verdict, log: SqliteLog) -> Micros:
    """No event that training looks at was decided on before."""
    recipe = verdict.recipe
    return log.newest - recipe.within - duration(recipe.valid) - duration(recipe.labels)


def _named(name: str | None, known: Mapping[str, D]) -> D:
    """The one of a name; without a name, the first."""
    if name is None and known:
        return next(iter(known.values()))
    if name is None or name not in known:
        raise unknown_decision(name, known)
    return known[name]


def load(path: Path | str) -> App:
    """The App that a Python file defines.

    Raises:
        DefinitionError: no such file, it fails, or it defines no app or several.
    """
    file = Path(path)
    if not file.is_file():
        raise DefinitionError(
            "an app is a Python file", got=f"{file}, which is not there", remedy="name it: --app FILE"
        )
    spec = importlib.util.spec_from_file_location(f"penstock_app_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except PenstockError:
        raise
    except Exception as error:
        raise DefinitionError(
            "an app file is Python that runs", got=f"{type(error).__name__} in {_place(error, file)}: {error}",
            remedy=f"correct it: python {file} shows more",
        ) from error  # fmt: skip
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    if len(apps) != 1:
        raise DefinitionError(
            "an app file defines one App", got=f"{len(apps)} in {file}", remedy='write app = ps.App("shop")'
        )
    return next(iter(apps.values()))


def _place(error: Exception, file: Path) -> str:
    """The line of the app file at which it failed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    return f"{file}, line {line}" if line else str(file)
