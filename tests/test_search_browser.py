"""The search box in a real browser: what is decided follows the typing, and a click on a result carries its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import browsing
import helpers
import test_search
from browsing import DESKTOP, PHONE
from penstock.demo.window import catalogue_of
from penstock.shop.catalogue import Catalogue


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers and a writer, with a search that was learned from clicks."""
    folder = tmp_path_factory.mktemp("search")
    with helpers.load_app(folder, test_search.APP) as app:
        app.ingest(test_search.history())
        app.train("home")
        app.train("search")
        Catalogue(catalogue_of(test_search.WORLD).products).write(app.home)
    with helpers.server(folder / "small.py", folder / "home", "--workers", "2") as running:
        yield f"http://{running.host}:{running.port}"


@pytest.fixture(scope="module")
def chromium(need: Callable[[str, str], str]) -> Iterator[Any]:
    with browsing.chromium(need("chromium", "chromium")) as browser:
        yield browser


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_list_follows_the_typing_and_a_click_carries_the_words(
    chromium: Any, url: str, size: tuple[int, int]
) -> None:
    """Letter by letter there is a decided list; the result's click posts the words, and the cart's form holds them."""
    one = browsing.Visit(chromium, url, size)
    page = one.page
    page.goto("/shop")
    page.locator("#q").press_sequentially("lam", delay=200)
    page.locator(".found h1", has_text="“lam”").wait_for()
    page.locator("#q").press_sequentially("p")
    page.locator(".found h1", has_text="“lamp”").wait_for()
    assert "products for “lamp”" in page.locator(".found h1").inner_text()
    assert "from your words" in page.locator(".how").inner_text()
    assert page.evaluate("document.activeElement.id") == "q"
    one.check()
    with page.expect_request("**/shop/view") as asked:
        page.locator(".found .cards a").first.click()
    assert "query=lamp" in str(asked.value.post_data)
    page.locator(".product .button").wait_for()
    assert page.locator(".product input[name=query]").get_attribute("value") == "lamp"
    one.check()
    page.fill("#q", "xyzzy")
    page.locator(".found h1", has_text="Nothing found for “xyzzy”").wait_for()
    one.check()
    one.context.close()
