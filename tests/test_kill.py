"""kill -9 at ten random moments of a replay loses nothing that was acknowledged, counts nothing twice, and the
audit finds no mismatch."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import helpers

KILLS = 10
POSTS = 120


def live_posts(history: list[dict[str, Any]], draw: random.Random) -> list[list[dict[str, Any]]]:
    """Batches of one to five events after the history, by known and by new shoppers."""
    users = [*sorted({event["user"] for event in history})[:30], "new-1", "new-2"]
    items = sorted({event["item"] for event in history})
    posts = []
    made = 0
    for _ in range(POSTS):
        batch = []
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            made += 1
            event = {"stream": "action", "id": f"live-{made}", "time": helpers.next_time(history, 2.0 * made)}
            batch.append({**event, "user": draw.choice(users), "item": draw.choice(items), "kind": "view"})
        posts.append(batch)
    return posts


def test_nothing_acknowledged_is_lost_or_counted_twice_over_ten_kills(tmp_path: Path) -> None:
    app = helpers.trained(tmp_path)
    app.close()
    file, home = tmp_path / "small.py", app.home
    history = helpers.history()
    draw = random.Random(11)
    posts = live_posts(history, draw)
    kills = set(draw.sample(range(5, POSTS), KILLS))
    in_flight = set(sorted(kills)[::2])
    acknowledged: list[str] = []
    tiers: Counter[str] = Counter()

    server = helpers.Server(file, home)
    try:
        for place, batch in enumerate(posts):
            if place in in_flight:
                # Killed before the answer is read: whether the log has it is unknown, so it is sent again.
                server.send("POST", "/v1/events", batch)
            else:
                answer = server("POST", "/v1/events", batch)
                assert answer == {"accepted": len(batch), "duplicates": 0, "rejected": []}
            if place in kills:
                server.kill()
                server = helpers.Server(file, home)
                # Acknowledged or not, a client may always send again under the same ids.
                answer = server("POST", "/v1/events", batch)
                assert answer["accepted"] + answer["duplicates"] == len(batch)
                if place not in in_flight:
                    assert answer["accepted"] == 0, "what was acknowledged is gone"
            acknowledged += [event["id"] for event in batch]
            if place % 3 == 0:
                tiers[server("POST", "/v1/decide/home", {"user": batch[0]["user"]})["tier"]] += 1

        everything = history + [event for batch in posts for event in batch]
        for view, field in (("Shopper", "user"), ("Product", "item")):
            counts = Counter(event[field] for event in everything)
            for key in {event[field] for batch in posts for event in batch}:
                assert server("GET", f"/v1/features/{view}/{key}")["features"]["actions"] == counts[key], (view, key)
        assert server.stop() == 0
    finally:
        if server.process.returncode is None:
            server.kill()

    assert tiers["personal"] > 20
    with_log = app.log()
    try:
        rows = with_log.read(0, with_log.end)["action"]
    finally:
        with_log.close()
    held = Counter(rows.tie.tolist())
    assert all(held[helpers.tie(id)] == 1 for id in acknowledged)
    assert set(held.values()) == {1}
    assert len(rows) == len(everything)

    audit = helpers.cli("audit", "--app", file, "--home", home, "--json")
    assert audit.returncode == 0, audit.stderr
    found = json.loads(audit.stdout.splitlines()[-1])
    assert found["audit_mismatches"] == 0
    assert found["proof_mismatches"] == 0
    assert found["audit_rows"] > 100
