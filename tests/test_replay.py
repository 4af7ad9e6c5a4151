"""The demo's clients measure what a live shop would see: in order, bounded, fairly compared, every failure counted."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.clock import DAY, MINUTE, SECOND
from penstock.demo.baselines import Covisits, Popular, Recent, Touch, score_baselines, touch
from penstock.demo.figures import hit_rate, mrr
from penstock.demo.replay import ReplayResult, replay
from penstock.printing import Printer

TAOBAO = Path(__file__).parents[2] / "shared/data/clickstream/taobao.csv.gz"
Reply = tuple[int, bytes]
Fault = Callable[[str, int], bytes | None]
"""Raw bytes to send instead of the answer to the n-th request of a kind; empty ones hang up, None leaves it alone."""


class Shop:
    """A peer that speaks HTTP, answers after a random number of turns of the loop, and recommends what was seen last.

    A count that it shows lags behind by `lag` reads.
    """

    def __init__(self, seed: int = 0, lag: int = 0, fault: Fault = lambda kind, number: None) -> None:
        self._random = random.Random(seed)
        self._lag = lag
        self._fault = fault
        self.numbers: Counter[str] = Counter()
        self._reads_to_go: dict[str, int] = {}
        self.seen: dict[str, list[str]] = defaultdict(list)
        self.log: list[tuple[str, str]] = []
        self.most = 0
        self._busy: Counter[str] = Counter()
        self.shared = False
        self.handlers: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.append(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(next(h for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")).split()[1])
                _, path, _ = head.decode().split(" ", 2)
                message = await self._answer(path, await reader.readexactly(length))
                cut = self._random.randrange(len(message) + 1)
                writer.write(message[:cut])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(message[cut:])
                if not message:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes) -> bytes:
        kind = path.split("/")[2]
        self.numbers[kind] += 1
        raw = self._fault(kind, self.numbers[kind])
        if raw is not None:
            return raw
        sent = json.loads(body) if body else {"user": path.rsplit("/", 1)[1]}
        user = sent["user"]
        self._busy[user] += 1
        self.shared |= self._busy[user] > 1
        self.most = max(self.most, self._busy.total())
        for _ in range(self._random.randrange(12)):
            await asyncio.sleep(0)
        self._busy[user] -= 1
        return http(*getattr(self, f"_{kind}")(user, sent))

    def _events(self, user: str, event: dict[str, Any]) -> Reply:
        self.seen[user].append(event["item"])
        self.log.append((user, event["id"]))
        self._reads_to_go[user] = self._lag
        return 202, json.dumps({"accepted": 1, "duplicates": 0, "rejected": []}).encode()

    def _decide(self, user: str, asked: dict[str, Any]) -> Reply:
        self.log.append((user, "ask"))
        recent = list(dict.fromkeys(reversed(self.seen[user])))[: asked["k"]]
        items = [{"id": item, "score": 0.5, "propensity": 1.0} for item in recent]
        tier = "personal" if items else "popular"
        answer = {"decision_id": "d", "items": items, "tier": tier, "release": "r", "arm": "a"}
        return 200, json.dumps(answer).encode()

    def _features(self, user: str, _: dict[str, Any]) -> Reply:
        left = self._reads_to_go.get(user, 0)
        self._reads_to_go[user] = max(left - 1, 0)
        return 200, json.dumps({"features": {"events": len(self.seen[user]) - (left > 0)}}).encode()


def http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nServer-Timing: parse;dur=0.5, score;dur=2\r\n\r\n"
    return head.encode() + body


def run(shop: Shop, events: Sequence[dict[str, Any]], **options: Any) -> ReplayResult:
    async def all_of_it() -> ReplayResult:
        server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            result = await replay("127.0.0.1", port, events, **{"ask": is_view, **options})
            await asyncio.gather(*shop.handlers)
            return result

    return asyncio.run(all_of_it())


def is_view(event: Mapping[str, Any]) -> bool:
    return bool(event["kind"] == "view")


def traffic(n: int, users: int = 4, items: int = 12, seed: int = 1) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "id": f"e{i}",
            "user": f"u{draw.randrange(users)}",
            "item": f"i{draw.randrange(items)}",
            "kind": draw.choice(["view", "view", "buy"]),
            "time": float(1_000 + i),
        }
        for i in range(n)
    ]


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_no_shopper_is_reordered_or_asked_twice_at_once_and_the_bound_on_clients_is_reached_and_kept(
    clients: int,
) -> None:
    events = traffic(400)
    shop = Shop(seed=clients)
    result = run(shop, events, clients=clients)
    for user in {event["user"] for event in events}:
        steps = [event for event in events if event["user"] == user]
        want = [step for event in steps for step in (["ask"] if is_view(event) else []) + [event["id"]]]
        assert [step for who, step in shop.log if who == user] == want
    assert not shop.shared
    assert shop.most == min(clients, 4)
    assert result.events == len(events)
    assert result.errors == {}


def test_the_served_ranks_of_a_shop_that_lists_what_was_seen_last_are_those_of_the_recent_baseline() -> None:
    events = traffic(600, items=40)
    result = run(Shop(), events, clients=3, k=10)
    touches = [touch(event) for event in events]
    want = score_baselines([], touches, [is_view(event) for event in events], k=10)["recent"]
    assert result.ranks.tolist() == want.tolist()
    assert result.asked.tolist() == [place for place, event in enumerate(events) if is_view(event)]
    assert len(set(want.tolist())) > 5


def test_the_summary_is_json_with_a_latency_of_every_request_the_stages_and_the_shares_of_tiers() -> None:
    events = traffic(100)
    result = run(Shop(), events)
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    views = sum(map(is_view, events))
    assert (len(result.decide_ms), len(result.post_ms)) == (views, len(events))
    assert 0 < summary["decide_p50_ms"] <= summary["decide_p99_ms"]
    assert summary["waterfall_ms"] == {"parse": 0.5, "score": 2.0}
    assert sum(summary["tiers"].values()) == pytest.approx(1.0)
    assert summary["hit_rate_20"] == np.mean(result.ranks > 0)
    assert summary["freshness_p99_ms"] is None


def test_freshness_ends_with_the_first_answer_that_shows_the_post() -> None:
    events = [{**event, "user": event["id"]} for event in traffic(90)]
    shop = Shop(lag=3)
    result = run(shop, events, freshness_every=10, freshness_probe=("Shopper", "events"))
    assert len(result.freshness_ms) == 9
    assert result.freshness_ms.min() > result.post_ms.min()
    # One read before the post, three that do not show it yet, and the one that does.
    assert shop.numbers["features"] == 9 * (1 + 3 + 1)
    assert result.errors == {}


def test_freshness_is_not_measured_where_an_earlier_post_may_still_be_on_its_way() -> None:
    result = run(Shop(lag=3), traffic(60, users=1), freshness_every=10, freshness_probe=("Shopper", "events"))
    assert len(result.freshness_ms) == 0


def answer_with(wrong: bytes, at: str, numbers: range = range(3, 5)) -> Fault:
    return lambda kind, number: wrong if kind == at and number in numbers else None


@pytest.mark.parametrize(
    ("kind", "wrong", "name", "says"),
    [
        ("decide", http(503, b'{"error": "no release"}'), "decide 503", "no release"),
        ("decide", http(200, b'{"items": [], '), "decide unreadable", "truncated"),
        ("decide", b"", "decide ConnectionResetError", "closed"),
        ("decide", b"SSH-2.0-x\r\n\r\n", "decide UnavailableError", "HTTP/1.1"),
        ("events", http(422, b'{"error": "bad"}'), "post 422", "bad"),
        (
            "events",
            http(202, b'{"accepted": 0, "duplicates": 0, "rejected": [{"index": 0, "field": "time", "error": "old"}]}'),
            "post rejected",
            "time: old",
        ),
        ("features", http(200, b'{"features": {"events": null}}'), "features unreadable", "None"),
    ],
)
def test_a_failed_request_is_counted_and_named_and_the_replay_goes_on(
    kind: str, wrong: bytes, name: str, says: str
) -> None:
    events = traffic(60, users=30)
    result = run(Shop(fault=answer_with(wrong, kind)), events, freshness_every=5, freshness_probe=("Shopper", "events"))
    assert result.errors == {name: 2}
    assert says in result.examples[name]
    assert len(result.ranks) == sum(map(is_view, events))
    assert result.summary()["errors"] == 2


def test_a_server_that_is_gone_is_counted_not_raised() -> None:
    result = asyncio.run(replay("127.0.0.1", 1, traffic(5), ask=lambda event: False))
    assert result.errors == {"post ConnectionRefusedError": 5}
    assert result.summary()["hit_rate_20"] is None


def test_an_answer_that_never_comes_is_an_error_after_the_timeout() -> None:
    stuck = http(202, b"x" * 50)[:-1]
    result = run(Shop(fault=answer_with(stuck, "events", range(2, 3))), traffic(9), timeout=0.05)
    assert result.errors == {"post TimeoutError": 1}


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(1, 25))
def test_hit_rate_and_mrr_are_their_definitions(ranks: list[int], k: int) -> None:
    inside = [rank for rank in ranks if 1 <= rank <= k]
    assert hit_rate(np.array(ranks), k) == pytest.approx(len(inside) / len(ranks))
    assert mrr(np.array(ranks), k) == pytest.approx(sum(1 / rank for rank in inside) / len(ranks))


def walk(steps: list[tuple[int, int, int]]) -> list[tuple[str, int, int]]:
    times = accumulate(step[2] for step in steps)
    return [(f"u{user}", item, time) for (user, item, _), time in zip(steps, times, strict=True)]


STEPS = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3 * MINUTE))
TOUCHES = st.lists(STEPS, min_size=1, max_size=60).map(walk)


@given(TOUCHES)
@settings(max_examples=60, deadline=None)
def test_popular_counts_the_window_as_it_was_at_the_last_recount(touches: list[tuple[str, int, int]]) -> None:
    window, refresh = 20 * MINUTE, MINUTE
    popular = Popular(5, window, refresh)
    counted, want = None, []
    for place, (user, item, now) in enumerate(touches):
        if counted is None or now - counted >= refresh:
            counted = now
            counts = Counter(i for _, i, time in touches[:place] if time > now - window)
            want = sorted(counts, key=lambda i: (-counts[i], i))[:5]
        assert popular.list(user, now) == want
        popular.observe(user, item, now)


@given(TOUCHES)
@settings(max_examples=60, deadline=None)
def test_recent_is_the_distinct_items_newest_first(touches: list[tuple[str, int, int]]) -> None:
    recent = Recent(4)
    for place, (user, item, now) in enumerate(touches):
        assert recent.list(user, now) == newest(touches[:place], user)[:4]
        recent.observe(user, item, now)


def newest(touches: Sequence[tuple[str, int, int]], user: str) -> list[int]:
    return list(dict.fromkeys(item for who, item, _ in reversed(touches) if who == user))


def plain_covisits(touches: Sequence[tuple[str, int, int]], user: str) -> dict[int, float]:
    """By definition: every pair of a shopper's events, at most 4 places and less than 5 minutes apart."""
    score: dict[int, float] = defaultdict(float)
    decay = {item: 0.8**place for place, item in enumerate(newest(touches, user)[:3])}
    for who in {name for name, _, _ in touches}:
        path = [(item, time) for name, item, time in touches if name == who]
        for b, (later, then) in enumerate(path):
            for a, (earlier, before) in enumerate(path[:b]):
                if b - a <= 4 and then - before < 5 * MINUTE and earlier != later:
                    score[later] += decay.get(earlier, 0.0) / (b - a)
                    score[earlier] += decay.get(later, 0.0) / (b - a) * 0.5
    return {item: value for item, value in score.items() if value}


def check_covisits(found: Sequence[int], want: dict[int, float], k: int) -> None:
    best = sorted(want.values(), reverse=True)[:k]
    assert len(set(found)) == len(found) == len(best)
    assert [want[item] for item in found] == pytest.approx(best)


@given(TOUCHES)
@settings(max_examples=60, deadline=None)
def test_covisits_are_the_decayed_sum_over_all_pairs(touches: list[tuple[str, int, int]]) -> None:
    covisits = Covisits(6, recent=3, decay=0.8, steps=4, gap=5 * MINUTE, back=0.5)
    for place, (user, item, now) in enumerate(touches):
        if place % 5 == 0:
            check_covisits(covisits.list(user, now), plain_covisits(touches[:place], user), 6)
        covisits.observe(user, item, now)


def test_covisits_of_items_with_thousands_of_pairs_are_still_exact() -> None:
    draw = random.Random(3)
    touches = [(f"u{draw.randrange(5)}", draw.randrange(6), i * SECOND) for i in range(4_000)]
    covisits = Covisits(6, recent=3, decay=0.8, steps=4, gap=5 * MINUTE, back=0.5)
    for user, item, now in touches:
        covisits.observe(user, item, now)
    for user in ("u0", "u3"):
        check_covisits(covisits.list(user, 4_000 * SECOND), plain_covisits(touches, user), 6)


def test_times_are_read_as_they_are_posted() -> None:
    texts = ["2017-12-03T00:00:01.5+08:00", "2017-12-02T16:00:01.500Z", 1512230401.5]
    assert {touch({"user": "u", "item": "i", "time": text}).time for text in texts} == {1_512_230_401_500_000}


@pytest.mark.skipif(not TAOBAO.exists(), reason="the Taobao clickstream is not beside the repository")
def test_on_real_traffic_the_baselines_are_as_strong_as_they_are_known_to_be() -> None:
    names = ["user", "item", "category", "kind", "time"]
    frame = pl.read_csv(TAOBAO, has_header=False, new_columns=names).sort("time", maintain_order=True)
    rows = frame.select(pl.col("user", "item").cast(pl.String), pl.col("time") * SECOND).iter_rows()
    touches = [Touch(*row) for row in rows]
    start = next(i for i, t in enumerate(touches) if t.time > touches[-1].time - DAY)
    asked = (frame["kind"][start:] == "pv").to_list()
    ranks = score_baselines(touches[:start], touches[start:], asked)
    rates = {name: hit_rate(found) for name, found in ranks.items()}
    assert rates["recent"] == pytest.approx(0.197, abs=0.002)
    assert rates["covisit"] == pytest.approx(0.204, abs=0.002)
    assert rates["popular"] == pytest.approx(0.0047, abs=0.001)


RESULT = {
    "hit_rate_20": 0.22,
    "mrr_20": 0.1,
    "covisit_hit_rate_20": 0.2,
    "decide_p50_ms": 1.0,
    "decide_p99_ms": 2.0,
    "freshness_p50_ms": None,
    "waterfall_ms": {"score": 0.7},
    "tiers": {"personal": 1.0},
    "audit_values": 10_000,
    "audit_mismatches": 0,
    "errors": 1,
    "errors_by_kind": {"decide 503": 1},
    "error_examples": {"decide 503": "[bold]no[/bold] release"},
}


@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_terminal_people_get_plain_lines_and_json_is_alone_on_standard_output(
    as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    printer = Printer(as_json)
    with printer.step("ingested") as step:
        step.progress(10, 100)
        step.note("74,321 events [/]")
    with pytest.raises(KeyError), printer.step("trained"):
        raise KeyError
    printer.table(RESULT)
    out, err = capsys.readouterr()
    human = err if as_json else out
    assert (json.loads(out) == RESULT) if as_json else (err == "")
    assert "✓ ingested  74,321 events [/]  0.0 s" in human
    assert "✗ trained" in human
    assert ["served", "0.2200", "0.1000"] in [line.split()[:3] for line in human.splitlines()]
    assert "agree on 10,000 values" in human
    assert "1 of decide 503: [bold]no[/bold] release" in human
    assert all(c == "\n" or c.isprintable() for c in human)


def test_on_a_terminal_a_step_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    with Printer().step("replayed") as step:
        step.progress(5, 10)
    assert "5/10" in terminal.getvalue()
    assert "✓" in terminal.getvalue()
