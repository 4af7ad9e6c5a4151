"""An answer is given again only to the same question, not for too long, and never to who has clicked since."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.audit import served
from penstock.errors import DefinitionError
from penstock.releases import read
from penstock.serve.cache import Cache
from penstock.serve.fallback import Outcome
from penstock.serve.requests import Answer

KEEPING = 'app.decision("home", by="user", budget="10s", k=10, context=["kind"], cache="1h")'
APP = helpers.APP.replace('app.decision("home", by="user", budget="10s", k=10)', KEEPING).replace(
    'goal="view", trees', 'goal="view", views=(Shopper, Product), trees'
)
USER = str(helpers.history()[-1]["user"])


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    with helpers.trained(tmp_path, APP) as app:
        yield app


def outcome(tier: str = "personal") -> Outcome:
    none = np.zeros(0, np.uint32)
    return Outcome(tier, 0, 0, none, none, none, none, none)


def ordered(answer: Answer) -> list[tuple[str, float]]:
    return [(item.id, item.score) for item in answer.items]


def click(app: ps.App, name: str, user: str) -> None:
    time = helpers.next_time(helpers.history(), 1)
    app.ingest([{"id": name, "time": time, "user": user, "item": "i-new", "kind": "view"}])


def test_the_same_question_has_the_same_answer_under_an_id_of_its_own(app: ps.App) -> None:
    """Also where others have clicked since; the audit recomputes both from the same offset."""
    first = app.decide("home", user=USER)
    click(app, "other", "somebody-else")
    again = app.decide("home", user=USER)
    assert (first.cached, again.cached) == (False, True)
    assert ordered(again) == ordered(first)
    assert again.decision_id != first.decision_id
    assert "score" not in again.timings
    runtime = app.open()
    runtime.decisions.flush()
    releases = {str(first.release): read(app.home / "releases", str(first.release))}
    audited = served(runtime.log, runtime.decisions.read("home"), releases)
    assert (audited.decisions, audited.mismatches) == (2, {})


def test_a_click_of_the_shopper_is_in_the_next_answer(app: ps.App) -> None:
    """What is then answered is what a system without the cache answers."""
    before = app.decide("home", user=USER)
    click(app, "own", USER)
    fresh = app.decide("home", user=USER)
    assert not fresh.cached
    assert ordered(fresh) != ordered(before)
    app.decisions["home"].__dict__["cache"] = 0
    app.close()
    plain = app.decide("home", user=USER)
    assert not plain.cached
    assert ordered(plain) == ordered(fresh)


def test_another_question_is_answered_anew(app: ps.App) -> None:
    """Another shopper, k, context, or release."""
    app.decide("home", user=USER)
    assert not app.decide("home", user="nobody-yet").cached
    assert not app.decide("home", user=USER, k=5).cached
    assert not app.decide("home", user=USER, context={"kind": "cart"}).cached
    assert app.decide("home", user=USER).cached
    click(app, "other", "somebody-else")
    app.train()
    after = app.decide("home", user=USER)
    assert not after.cached
    assert after.release == app.registry.champions()["home"]


def test_what_is_too_old_or_rests_on_other_features_is_not_given() -> None:
    now = 0.0
    cache = Cache(2.0, most=2, elapsed=lambda: now)
    cache.keep("ann", [1], outcome())
    now = 2.0
    assert cache.of("ann", [1]) is not None
    assert cache.of("ann", [2]) is None
    now = 2.1
    assert cache.of("ann", [1]) is None


def test_the_oldest_goes_first() -> None:
    cache = Cache(2.0, most=2)
    for asked in ("ann", "bob", "ann", "cid"):
        cache.keep(asked, [1], outcome())
    assert [asked for asked in ("ann", "bob", "cid") if cache.of(asked, [1]) is not None] == ["ann", "cid"]


def test_what_is_too_old_is_let_go() -> None:
    """Not only passed over: it holds whole matrices."""
    now = 0.0
    cache = Cache(2.0, elapsed=lambda: now)
    for i in range(50):
        now = float(i)
        cache.keep(i, [1], outcome())
        assert len(cache._held) <= 3


def test_a_click_shows_in_views_by_shopper_and_context_too(tmp_path: Path) -> None:
    text = re.sub(
        r"class Shopper:.*?\n\n\n", 'class Habit:\n    recent = ps.last("item", k=20)\n\n\n', APP, flags=re.DOTALL
    )
    text = text.replace('by="user")\nclass Habit', 'by=("user", "kind"))\nclass Habit').replace("(Shopper,", "(Habit,")
    with helpers.trained(tmp_path, text) as app:
        context = {"kind": "view"}
        app.decide("home", user=USER, context=context)
        assert app.decide("home", user=USER, context=context).cached
        click(app, "own", USER)
        assert not app.decide("home", user=USER, context=context).cached


def test_warming_up_leaves_no_answers_and_no_costs_of_repeated_ones(app: ps.App) -> None:
    decider = app.open()._deciders["home"]
    assert decider._cache._held == {}
    assert decider.costs.of("score") > 0


def test_without_a_cache_nothing_is_kept(tmp_path: Path) -> None:
    cache = Cache(0.0)
    cache.keep("ann", [1], outcome())
    assert cache.of("ann", [1]) is None
    with helpers.trained(tmp_path) as app:
        app.decide("home", user=USER)
        assert not app.decide("home", user=USER).cached


def test_a_view_by_shopper_and_item_forbids_it(tmp_path: Path) -> None:
    text = helpers.APP.replace("k=10)", 'k=10, cache="1h")')
    assert text != helpers.APP
    with pytest.raises(DefinitionError, match="cache with Interest in home"):
        helpers.load_app(tmp_path, text)
