"""The shop window in a real browser: clicks change lists, nothing breaks the page's own policy, and it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import browsing
import helpers
import penstock as ps
from browsing import DESKTOP, PHONE, luminance
from penstock.demo.window import catalogue_of
from penstock.shop.catalogue import Catalogue, Known

WORLD = ps.World(seed=3, shoppers=80, items=60, categories=6, days=4, sessions=5)
KNOWN = str(helpers.history()[-1]["user"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers and a writer in processes of their own, over the simulated history."""
    folder = tmp_path_factory.mktemp("shop")
    with helpers.trained(folder) as app:
        Catalogue(catalogue_of(WORLD).products, [Known(KNOWN, "the last of the history")]).write(app.home)
    with helpers.server(folder / "small.py", folder / "home", "--workers", "2") as running:
        yield f"http://{running.host}:{running.port}"


@pytest.fixture(scope="module")
def chromium(need: Callable[[str, str], str]) -> Iterator[Any]:
    with browsing.chromium(need("chromium", "chromium")) as browser:
        yield browser


class Visit(browsing.Visit):
    """One person at the window."""

    @property
    def decided(self) -> list[str]:
        cards = self.page.locator("#decided [data-item]")
        return [card.get_attribute("data-item") or "" for card in cards.all()]

    def click(self, place: int) -> str:
        """Clicks a product of the decided list, and waits until its page is there. Returns its id."""
        card = self.page.locator("#decided [data-item]").nth(place)
        item, name = str(card.get_attribute("data-item")), card.locator("b").inner_text()
        with self.page.expect_response("**/shop/view"):
            card.locator("a").click()
        self.page.locator(".product h1", has_text=name).wait_for()
        return item


@pytest.fixture
def visit(chromium: Any, url: str) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def begin(size: tuple[int, int] = DESKTOP, **options: Any) -> Visit:
        opened.append(Visit(chromium, url, size, **options))
        return opened[-1]

    yield begin
    for one in opened:
        one.context.close()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_stranger_clicks_searches_and_buys(
    visit: Callable[..., Visit], size: tuple[int, int], tmp_path: Path
) -> None:
    """Each click changes the list below, which says why; the whole way fits and nothing is complained of."""
    one = visit(size)
    page = one.page
    page.goto("/shop")
    assert page.locator(".tier b").inner_text() == "popular"
    one.check()
    lists = [one.decided]
    for place in (1, 2):
        item = one.click(place)
        lists.append(one.decided)
        assert page.url.endswith(f"/shop/item/{item}")
        assert page.locator(".tier b").inner_text() == "personal"
        assert page.locator(".because").inner_text().startswith("Because you looked at ")
        assert page.locator(".new").count() > 0
        assert "your click was on disk and known after" in page.locator(".how").inner_text()
        one.check()
    assert lists[0] != lists[1] != lists[2]
    page.fill("#q", "lamp oa")
    page.locator(".found h1", has_text="lamp oa").wait_for()
    assert all("oak" in name.lower() for name in page.locator(".found b").all_inner_texts())
    assert page.evaluate("document.activeElement.id") == "q"
    one.check()
    with page.expect_response("**/shop/view"):
        page.locator(".found .cards a").first.click()
    page.locator(".product .button").click()
    page.locator(".product .quiet").wait_for()
    assert page.locator("#count").inner_text() == "1"
    page.click("a.cart")
    page.locator(".basket li").wait_for()
    one.check()
    page.click("text=Buy")
    page.locator("text=Thank you").wait_for()
    assert page.locator("#count").inner_text() == ""
    one.check()
    picture = tmp_path / "shop.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000


def test_the_keyboard_is_enough(visit: Callable[..., Visit]) -> None:
    """Tab and Enter lead from the address to a product; the focus is on its name afterwards, and visible before."""
    one = visit()
    page = one.page
    page.goto("/shop")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#decided') !== null"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    name = page.evaluate("document.activeElement.querySelector('b').textContent")
    page.keyboard.press("Enter")
    page.locator(".product h1", has_text=name).wait_for()
    browsing.api.expect(page.locator(".product h1")).to_be_focused()
    page.locator("#q").focus()
    page.keyboard.type("tab")
    page.keyboard.press("Enter")
    page.locator(".found h1", has_text="“tab”").wait_for()
    assert page.url.endswith("/shop/search?q=tab")
    one.check()


def test_going_back_leads_back(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.page.goto("/shop")
    first = one.click(0)
    one.click(0)
    one.page.go_back()
    one.page.wait_for_url(f"**/shop/item/{first}")
    one.page.locator(".product h1").wait_for()
    one.page.go_back()
    one.page.locator(".departments").wait_for()
    assert one.page.locator(".tier b").inner_text() == "personal"


def test_somebody_else_starts_cold_and_somebody_known_does_not(visit: Callable[..., Visit]) -> None:
    one = visit(PHONE)
    page = one.page
    page.goto("/shop")
    one.click(0)
    page.click(".who summary")
    one.check()
    box = page.locator(".who form").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE[0]
    page.click("text=Be another shopper")
    page.locator(".tier b", has_text="popular").wait_for()
    page.click(".who summary")
    page.click(f"text={KNOWN}")
    page.locator("summary", has_text=KNOWN).wait_for()
    assert page.locator(".tier b").inner_text() == "personal"
    one.check()


def test_it_works_without_scripts(visit: Callable[..., Visit]) -> None:
    """Links and forms do what they say; only looks are not taken down, and lists follow what is put into the cart."""
    one = visit(java_script_enabled=False)
    page = one.page
    page.goto("/shop")
    page.locator("#decided [data-item] a").first.click()
    page.locator(".product .button").click()
    page.wait_for_url("**/shop/cart")
    assert page.locator(".basket li").count() == 1
    assert page.locator(".tier b").inner_text() == "personal"
    page.click("text=Remove")
    assert "It is empty" in page.locator(".basket").inner_text()


def test_a_page_opened_by_its_address_is_a_look(visit: Callable[..., Visit]) -> None:
    one = visit()
    with one.page.expect_response("**/shop/view"):
        one.page.goto("/shop/item/p-00010")
    one.page.locator(".tier b", has_text="personal").wait_for()
    one.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Callable[..., Visit], scheme: str) -> None:
    """Ink, soft ink, accent and button text have the contrast that WCAG asks of text, 4.5, on what they stand on."""
    one = visit(color_scheme=scheme)
    one.page.goto("/shop")
    dark = luminance(one.tones(["ground"])["ground"]) < 0.2
    assert dark == (scheme == "dark")
    pairs = [("ink", "ground"), ("ink", "raised"), ("ink", "tint"), ("soft", "ground"), ("soft", "raised"),
             ("accent", "ground"), ("accent", "tint"), ("on-accent", "accent")]  # fmt: skip
    assert one.weak(pairs) == {}
