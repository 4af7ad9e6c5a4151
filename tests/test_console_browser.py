"""The console in a real browser: figures move, releases are moved, a decision is explained; it fits, and breaks
none of its own rules."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import browsing
import helpers
from browsing import DESKTOP, PHONE, Visit, luminance
from serving import until

expect = browsing.api.expect
KNOWN = str(helpers.history()[-1]["user"])
LOOKS = [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two releases, the second in charge."""
    folder = tmp_path_factory.mktemp("console")
    with helpers.trained(folder) as app:
        app.ingest([{"user": "u1", "item": "i1", "kind": "view", "time": helpers.next_time(helpers.history(), 1)}])
        app.train()
        return app.home


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """Two workers and a writer in processes of their own."""
    with helpers.server(home.parent / "small.py", home, "--workers", "2") as running:
        yield f"http://{running.host}:{running.port}"


@pytest.fixture(scope="module")
def chromium(need: Callable[[str, str], str]) -> Iterator[Any]:
    with browsing.chromium(need("chromium", "chromium")) as browser:
        yield browser


@pytest.fixture
def visit(chromium: Any, url: str) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def begin(size: tuple[int, int] = DESKTOP, **options: Any) -> Visit:
        opened.append(Visit(chromium, url, size, **options))
        return opened[-1]

    yield begin
    for one in opened:
        one.context.close()


def signed_in(one: Visit, home: Path, path: str = "/") -> Any:
    page = one.page
    page.goto(path)
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type((home / "operator-token").read_text().strip())
    page.keyboard.press("Enter")
    page.locator("#traffic").wait_for()
    return page


def decide(url: str, count: int, user: str = KNOWN) -> str:
    """Asks for decisions, each on a connection of its own, so that both workers get some. Returns the last one's id."""
    for _ in range(count):
        line = http.client.HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port or 0, timeout=20)
        line.request("POST", "/v1/decide/home", json.dumps({"user": user}))
        answer = json.loads(line.getresponse().read())
        line.close()
    return str(answer["decision_id"])


def shown(page: Any) -> int:
    """The decisions of the last minute, by the table of tiers."""
    return sum(
        int(cell.replace(",", "")) for cell in page.locator("[data-rows=tiers] td:nth-child(2)").all_inner_texts()
    )


def figure(page: Any, name: str) -> str:
    return str(page.locator(f'[data-figure="{name}"]').inner_text())


@pytest.mark.parametrize(
    ("size", "scheme"), LOOKS, ids=lambda value: value if isinstance(value, str) else str(value[0])
)
def test_figures_move_a_release_is_moved_and_a_decision_is_explained(
    visit: Callable[..., Visit], home: Path, url: str, size: tuple[int, int], scheme: str, tmp_path: Path
) -> None:
    """The way of an operator, at each width and in both lights, without a complaint of the browser."""
    one = visit(size, color_scheme=scheme)
    page = one.page
    page.goto("/")
    one.check()
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.locator("#problem").wait_for()
    assert all("sign-in" in complaint or "401" in complaint for complaint in one.complaints)
    one.complaints.clear()
    page = signed_in(one, home)
    expect(page.locator("#no-script")).to_be_hidden()
    expect(page.locator(".plot canvas")).to_have_count(6)
    one.check()

    before = shown(page)
    decide(url, 20)
    until(lambda: shown(page) >= before + 20)
    assert float(figure(page, "decisions")) > 0
    assert re.fullmatch(r"\d+\.\d+ ms", figure(page, "p50"))
    stages = page.locator("[data-rows=waterfall] th").all_inner_texts()
    assert stages[:2] == ["queue", "parse"]
    assert stages[-2:] == ["serialise", "total"]
    one.check()

    page.once("dialog", lambda dialog: dialog.accept())
    champion = page.locator("#releases-table tr", has_text="Champion").locator("th").inner_text()
    page.locator("#releases-table button", has_text="Promote").first.click()
    page.locator(".notice").wait_for()
    now = page.locator("#releases-table tr", has_text=re.compile("Champion|Loading")).locator("th").inner_text()
    assert now != champion
    expect(page.locator(".notice")).to_have_count(0, timeout=20_000)
    expect(page.locator("#releases-table tr", has_text="Champion").locator("th")).to_have_text(now)
    one.check()

    asked = decide(url, 1)
    page.locator("#again").click()
    page.locator("#newest a", has_text=asked).click()
    page.locator("#explanation h3", has_text=asked).wait_for()
    assert page.locator("#explanation .facts", has_text="agree").count() == 1
    assert page.locator("#explanation .items tbody > tr").count() == 10
    page.locator("#explanation summary").first.click()
    one.check()
    page.fill("#decision", "none")
    page.keyboard.press("Enter")
    page.locator("#explanation .problem").wait_for()
    one.check()
    page.screenshot(path=tmp_path / "console.png", full_page=True)
    assert (tmp_path / "console.png").stat().st_size > 20_000

    page.locator("text=Sign out").click()
    page.locator("#token").wait_for()
    assert "penstock-console" not in page.evaluate("Object.keys(sessionStorage)")
    page.go_back()
    page.locator("#token").wait_for()


def test_the_keyboard_is_enough(visit: Callable[..., Visit], home: Path, url: str) -> None:
    """Tab first leads past the header; every control is reached, in view, with its outline, and Enter opens it."""
    asked = decide(url, 1)
    one = visit()
    page = signed_in(one, home)
    page.locator("#newest a", has_text=asked).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.textContent.slice(0, 40)")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", name
        reached.append(name)
        if asked.startswith(name):
            break
    assert "decision" in reached
    assert any(str(name).startswith("rollback-") for name in reached)
    page.keyboard.press("Enter")
    page.locator("#explanation h3", has_text=asked).wait_for()
    one.check()


def test_the_focus_stays_while_tables_are_loaded_anew(visit: Callable[..., Visit], home: Path) -> None:
    one = visit()
    page = signed_in(one, home)
    button = page.locator("#releases-table button").first
    button.focus()
    name = button.get_attribute("id")
    with page.expect_response("**/console/releases"):
        pass
    expect(page.locator(f"#{name}")).to_be_focused()
    one.check()


def test_a_report_opens_and_runs_nothing(visit: Callable[..., Visit], home: Path) -> None:
    one = visit()
    page = signed_in(one, home)
    page.goto(page.locator("#releases-table a", has_text="Report").first.get_attribute("href"))
    assert "MRR" in page.locator("main").inner_text()
    assert page.evaluate("getComputedStyle(document.querySelector('section')).borderRadius") == "8px"
    assert page.evaluate("origin") == "null"
    one.check()


def test_an_expired_session_leads_to_the_door(visit: Callable[..., Visit], home: Path) -> None:
    one = visit()
    page = signed_in(one, home)
    one.context.clear_cookies()
    page.locator("#token").wait_for()


def test_it_works_without_scripts(visit: Callable[..., Visit], home: Path, url: str) -> None:
    """Tables, explanation and buttons do; and the page says where the figures are."""
    asked = decide(url, 1)
    one = visit(java_script_enabled=False)
    page = signed_in(one, home, f"/?decision={asked}")
    assert page.locator("#explanation h3", has_text=asked).count() == 1
    expect(page.locator("#no-script")).to_be_visible()
    page.fill("#decision", asked)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/?decision={asked}#decisions")
    champion = page.locator("#releases-table tr", has_text="Champion").locator("th").inner_text()
    page.locator("#releases-table button", has_text="Promote").first.click()
    page.wait_for_url("**/#releases")
    moved = page.locator("#releases-table tr", has_text=re.compile("Champion|Loading")).locator("th").inner_text()
    assert moved != champion
    one.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Callable[..., Visit], scheme: str) -> None:
    one = visit(color_scheme=scheme)
    one.page.goto("/")
    assert (luminance(one.tones(["page"])["page"]) < 0.2) == (scheme == "dark")
    grounds = ("page", "card", "tint")
    texts = ("ink", "soft", "strong", "good", "bad", "warn")
    assert one.weak([(text, ground) for text in texts for ground in grounds] + [("on-strong", "strong")]) == {}
