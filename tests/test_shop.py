"""The shop window: clicks are events, lists are decisions, what it says of them is so, and it trusts nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
import penstock as ps
from penstock.demo.window import catalogue_of
from penstock.errors import DefinitionError
from penstock.events import SqliteLog
from penstock.releases import read
from penstock.serve.server import BackgroundServer
from penstock.shop import pages
from penstock.shop.catalogue import FOLDER, PRODUCTS, Catalogue, Known, Product
from penstock.shop.pictures import picture
from penstock.shop.search import Search, query_words
from penstock.shop.visitors import Dates, Visitor
from serving import Client, Response

WORLD = ps.World(seed=3, shoppers=80, items=60, categories=6, days=4, sessions=5)
KNOWN = str(helpers.history()[-1]["user"])
OWN = {"Sec-Fetch-Site": "same-origin"}
PART = {**OWN, "HX-Request": "true"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ps.App]:
    """A release in charge over the simulated history, and the catalogue of the same world beside it."""
    with helpers.trained(tmp_path_factory.mktemp("shop")) as app:
        Catalogue(catalogue_of(WORLD).products, [Known(KNOWN, "the last of the history")]).write(app.home)
        yield app


@pytest.fixture(scope="module")
def server(app: ps.App) -> Iterator[BackgroundServer]:
    with BackgroundServer(app.open(), pages=pages(app.home)) as running:
        yield running


@pytest.fixture
def browser(server: BackgroundServer) -> Iterator[Browser]:
    with Client(server) as call:
        yield Browser(call)


class Page(HTMLParser):
    """What tests look for in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.text = text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    @property
    def items(self) -> list[str]:
        return [a["data-item"] for tag, a in self.tags if tag == "li" and "data-item" in a]

    @property
    def decided(self) -> list[str]:
        """The items of the decided list, which is what the next click sends along."""
        return next(a["value"].split() for tag, a in self.tags if a.get("id") == "shown")

    @property
    def notes(self) -> dict[str, str]:
        """What stands under each product of the page."""
        found = re.findall(r'<li data-item="([^"]*)">.*?(?:<small>(.*?)</small>)?</a></li>', self.text)
        return dict(found)


class Browser:
    """One person's browser, as far as cookies go."""

    def __init__(self, call: Client) -> None:
        self.call = call
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Response:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, given: Mapping[str, str], headers: Mapping[str, str] = PART) -> Response:
        return self._ask("POST", path, urlencode(given).encode(), headers)

    @property
    def user(self) -> str:
        return self.cookies["penstock_shopper"]

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Response:
        kept = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        self.call.connection.request(method, path, body, {**kept, **headers})
        answer = self.call.connection.getresponse()
        lines = answer.headers.get_all("set-cookie", [])
        self.cookies.update(line.split(";")[0].split("=", 1) for line in lines)
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, {**named, "set-cookie": " and ".join(lines)}, answer.read())


def recent(app: ps.App, user: str) -> list[str]:
    items: list[str] = app.features("Shopper", user)["recent"]
    return list(dict.fromkeys(items))


# Lists


def test_a_click_is_an_event_and_the_next_list_is_made_from_it(app: ps.App, browser: Browser) -> None:
    """A stranger sees what is popular; after one click the log has it and the list is personal."""
    first = browser.get("/shop")
    assert b"<b>popular</b>" in first.text
    before = Page(first.text.decode()).decided
    end = app.open().log.end
    page = Page(browser.post("/shop/view", {"item": before[1], "shown": " ".join(before)}).text.decode())
    assert app.open().log.end == end + 1
    assert app.features("Shopper", browser.user)["actions"] == 1
    assert recent(app, browser.user) == [before[1]]
    assert "<b>personal</b>" in page.text
    assert page.decided != before
    assert before[1] not in page.items
    assert before[1] in Page(browser.get("/shop").text.decode()).items
    assert page.text.count("new here") == len(set(page.decided) - set(before))


def test_clicks_in_quick_succession_keep_their_order(app: ps.App, browser: Browser) -> None:
    """The events' clock stands still between events; the window's dates do not."""
    items = [product.item for product in WORLD_PRODUCTS[:12]]
    for item in items:
        assert browser.post("/shop/view", {"item": item}).status == 200
    assert recent(app, browser.user) == items[::-1]


def test_what_the_page_says_led_to_a_product_did(app: ps.App, browser: Browser) -> None:
    """Under each product stands the recent item that passed on the most, worked out edge by edge from the release."""
    browser.get("/shop")
    for item in ("p-00003", "p-00031", "p-00055"):
        text = browser.post("/shop/view", {"item": item}).text.decode()
    page = Page(text)
    names = {product.item: product.name for product in WORLD_PRODUCTS}
    release = app.decide("home", user=browser.user).release
    index = read(app.home / "releases", str(release)).indexes["covisits"]
    code, own = app.open().log.strings.code, recent(app, browser.user)
    known = index["items"].tolist()
    told = 0
    for item, note in page.notes.items():
        if item not in page.decided or not note.startswith("because you looked at "):
            continue
        passed = {}
        for place, mine in enumerate(own):
            at = slice(*index["starts"][known.index(code(mine)) :][:2].tolist())
            edges = dict(zip(index["near"][at].tolist(), index["score"][at].tolist(), strict=True))
            passed[names[mine]] = edges.get(code(item), 0.0) * 0.8**place
        assert passed[note.removeprefix("because you looked at ")] == pytest.approx(max(passed.values()))
        told += 1
    assert told >= 3


def test_a_page_opened_by_its_address_counts_once_its_script_says_so(app: ps.App, browser: Browser) -> None:
    """A fetch of the address alone is no look; the page asks to have it taken down."""
    browser.get("/shop")
    end = app.open().log.end
    page = Page(browser.get("/shop/item/p-00007").text.decode())
    assert app.open().log.end == end
    assert any(a.get("hx-post") == "/shop/view" and a.get("hx-trigger") == "load" for _, a in page.tags)


def test_one_may_be_somebody_else_and_start_cold(app: ps.App, browser: Browser) -> None:
    """The switch gives a fresh id, or that of a shopper whom the catalogue names, with all they did; no other."""
    browser.get("/shop")
    before = browser.user
    browser.post("/shop/view", {"item": "p-00001"})
    gone = browser.post("/shop/shopper", {"user": ""}, OWN)
    assert (gone.status, gone.headers["location"]) == (303, "/shop")
    assert browser.user != before
    assert b"<b>popular</b>" in browser.get("/shop").text
    browser.post("/shop/shopper", {"user": KNOWN}, OWN)
    assert browser.user == KNOWN
    page = browser.get("/shop").text
    assert b"<b>personal</b>" in page
    assert b"the last of the history" in page
    assert browser.post("/shop/shopper", {"user": "u-00001"}, OWN).status == 404
    assert browser.user == KNOWN


# The cart


def test_the_cart_is_kept_and_what_happens_to_it_is_durable(app: ps.App, browser: Browser) -> None:
    """Cart and purchase are events in the log's file before the answer, as another reader of it sees."""
    browser.get("/shop")
    browser.post("/shop/view", {"item": "p-00009"})
    browser.post("/shop/cart", {"item": "p-00009"})
    browser.post("/shop/cart", {"item": "p-00011"})
    cart = browser.get("/shop/cart").text.decode()
    assert all(name in cart for name in (WORLD_PRODUCTS[9].name, WORLD_PRODUCTS[11].name))
    browser.post("/shop/remove", {"item": "p-00009"})
    assert browser.cookies["penstock_cart"] == "11"
    browser.post("/shop/buy", {})
    assert browser.cookies["penstock_cart"] == ""
    log: SqliteLog = app.log(read_only=True)
    try:
        rows = log.read(log.end - 4, log.end)["action"]
        kinds = log.strings.texts(rows.fields["kind"])
        assert list(zip(kinds, log.strings.texts(rows.fields["item"]), strict=True)) == [
            ("view", "p-00009"), ("cart", "p-00009"), ("cart", "p-00011"), ("buy", "p-00011"),
        ]  # fmt: skip
        assert set(log.strings.texts(rows.fields["user"])) == {browser.user}
    finally:
        log.close()


def test_without_scripts_a_form_leads_on(browser: Browser) -> None:
    browser.get("/shop")
    answer = browser.post("/shop/cart", {"item": "p-00004"}, OWN)
    assert (answer.status, answer.headers["location"]) == (303, "/shop/cart")
    assert WORLD_PRODUCTS[4].name in browser.get("/shop/cart").text.decode()


# Trust


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(browser: Browser) -> None:
    answer = browser.get("/shop")
    assert re.search(
        r"penstock_shopper=guest-[0-9a-f]{16}; Path=/shop; Max-Age=\d+; HttpOnly; SameSite=Lax",
        answer.headers["set-cookie"],
    )
    assert browser.get("/shop").headers["set-cookie"] == ""


@pytest.mark.parametrize("forged", ["u-00001", "guest-../../x", "guest-0", "", "guest-" + "é" * 16, "a" * 5_000])
def test_nobody_is_taken_for_another_by_a_forged_cookie(browser: Browser, forged: str) -> None:
    answer = browser.get("/shop", Cookie=f"penstock_shopper={quote(forged)}; penstock_cart=1.x.99999.-1.²")
    assert re.search(r"penstock_shopper=guest-[0-9a-f]{16};", answer.headers["set-cookie"])


@pytest.mark.parametrize(
    "sender",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["view", "cart", "remove", "buy", "shopper"])
def test_another_site_cannot_post(app: ps.App, browser: Browser, path: str, sender: dict[str, str]) -> None:
    """Nothing is logged, no cookie moves, and the answer says so with 403."""
    browser.get("/shop")
    user, end = browser.user, app.open().log.end
    assert browser.post(f"/shop/{path}", {"item": "p-00001"}, sender).status == 403
    assert (browser.user, app.open().log.end) == (user, end)


def test_an_older_browser_of_the_same_origin_may_post(server: BackgroundServer, browser: Browser) -> None:
    browser.get("/shop")
    own = {"Origin": f"http://{server.host}:{server.port}", "HX-Request": "true"}
    assert browser.post("/shop/view", {"item": "p-00001"}, own).status == 200
    # Where both are given, the newer header decides.
    assert browser.post("/shop/view", {"item": "p-00001"}, {**own, "Sec-Fetch-Site": "same-site"}).status == 403


EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "&lt;", "]]><svg/onload=x>")


@pytest.mark.parametrize("evil", EVIL)
def test_what_people_type_never_becomes_markup(browser: Browser, evil: str) -> None:
    """Neither a query, nor an item's address, nor a department's makes an element or an attribute."""
    plain = {(tag, name) for tag, a in Page(browser.get("/shop/search?q=zzz").text.decode()).tags for name in a}
    for path in (f"search?q={quote(evil)}", f"item/{quote(evil, safe='')}", f"category/{quote(evil, safe='')}"):
        page = Page(browser.get(f"/shop/{path}").text.decode())
        assert {(tag, name) for tag, a in page.tags for name in a} <= plain | {("p", "class"), ("a", "class")}
    posted = browser.post("/shop/view", {"item": evil, "shown": evil})
    assert posted.status == 404
    assert not {tag for tag, _ in Page(posted.text.decode()).tags} & {"script", "svg"}


def test_a_catalogue_is_text_as_well(app: ps.App, tmp_path: Path) -> None:
    """Names, brands and categories from the table are escaped wherever they stand, in drawings too."""
    evil = Product("x'\"<b>", *EVIL[:3], 100)
    Catalogue([evil, *WORLD_PRODUCTS]).write(tmp_path)
    with BackgroundServer(app.open(), pages=pages(tmp_path)) as server, Client(server) as call:
        address = quote(evil.item, safe="")
        for path in ("", "/search?q=script", f"/item/{address}", f"/category/{quote(evil.category, safe='')}"):
            answer = call("GET", f"/shop{path}")
            assert answer.status == 200
            found = Page(answer.text.decode())
            scripts = [a["src"] for tag, a in found.tags if tag == "script"]
            assert len(scripts) == 1
            assert scripts[0].startswith("/shop/static/")
            assert not any(name.startswith("on") for _, a in found.tags for name in a)
        assert call("GET", f"/shop/picture/{address}").text == picture(evil).encode()
        assert "script" not in picture(evil)


def test_every_answer_says_what_a_browser_may_do_with_it(browser: Browser) -> None:
    page = browser.get("/shop")
    addresses = re.findall(r'(?:src|href)="(/shop/(?:static|picture)[^"]*)"', page.text.decode())
    kinds = set()
    for path in ["/shop", "/shop/search?q=a", "/shop/nowhere/at/all", *addresses]:
        answer = browser.get(path)
        if answer.status == 200:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            kinds.add(answer.headers["content-type"].split(";")[0])
    assert kinds == {"text/html", "text/javascript", "text/css", "image/svg+xml"}
    assert browser.get("/shop").headers["cache-control"] == "no-store"


# Search

WORLD_PRODUCTS = list(catalogue_of(WORLD).products)
SHELF = [
    *WORLD_PRODUCTS,
    Product("x-1", "Crème brûlée torch", "cookware", "Élan", 1_900),
    Product("x-2", "Chef's no. 2 knife (9\")", "knives", "O'Neill & Söhne", 5_400),
    Product("x-3", "東京 tea tin", "tea", "", 900),
    Product("x-4", "NEAR and NOT or AND", "other", "OR", 100),
]
WORDS = sorted({word for p in SHELF for word in re.findall(r"[^\W_]+", f"{p.name} {p.category} {p.brand}")})


def plain(text: str) -> str:
    """Lower case without accents, the plain way."""
    table = str.maketrans("éèêûôöüàâç", "eeeuoouaac")
    return text.lower().translate(table)


def matching(words: list[str]) -> tuple[str, set[str]]:
    """The oracle: for each product the words it has, by string comparison alone."""
    have = {p.item: [plain(word) for word in re.findall(r"[^\W_]+", f"{p.name} {p.category} {p.brand}")] for p in SHELF}
    hits = {item: [any(w.startswith(plain(word)) for w in own) for word in words] for item, own in have.items()}
    every = {item for item, found in hits.items() if words and all(found)}
    some = {item for item, found in hits.items() if any(found)}
    return ("all", every) if every else ("some", some) if some else ("popular", set())


QUERIES = st.lists(
    st.sampled_from(WORDS).flatmap(lambda word: st.integers(1, len(word)).map(lambda n: word[:n])), min_size=1,
    max_size=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(words=QUERIES, between=st.sampled_from([" ", "  ", '" ', " - ", "*", " (", "\t"]))
def test_search_finds_what_has_every_word_or_else_some(words: list[str], between: str) -> None:
    """The same products as comparing the beginnings of words one by one, whatever stands between them."""
    found = SEARCH.find(between.join(words), {}, k=1_000)
    by, items = matching(words)
    assert found.by == by
    assert {p.item for p in found.products} == items
    assert found.total == len(items)


SEARCH = Search(SHELF)


@settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=300))
def test_no_text_breaks_search(text: str) -> None:
    """Whatever is typed, there is an answer, and never an empty shelf."""
    found = SEARCH.find(text, {"p-00005": 3})
    assert found.products
    if found.by == "popular":
        assert found.products[0].item == "p-00005"


@pytest.mark.parametrize(
    "text",
    ["", " ", '"', '""', "AND", "OR OR", "NOT", "NEAR(a b)", "name:x", "a*", "^a", "{", "-", "😀", "\x00", "'; --"],
)
def test_odd_queries_over_http(browser: Browser, text: str) -> None:
    answer = browser.get(f"/shop/search?q={quote(text)}")
    assert answer.status == 200
    assert Page(answer.text.decode()).items
    assert answer.text.decode().count("Popular now" if not text.strip() else "“") >= 1


def test_the_better_match_comes_first_and_among_equals_the_popular_one() -> None:
    """A word in the name outweighs one in the brand, and of two alike products the one that is looked at leads."""
    shelf = [
        Product("a", "Plain cup", "mugs", "Walnut", 100),
        Product("b", "Walnut cup", "mugs", "Plain", 100),
        *(Product(f"c{i}", "Oak bench", "tables", "Maker", 100) for i in range(9)),
        *(Product(f"d{i}", "Steel pan", "cookware", "Maker", 100) for i in range(30)),
    ]
    search = Search(shelf)
    assert [p.item for p in search.find("walnut", {}).products] == ["b", "a"]
    assert search.find("oak", {"c7": 9, "c2": 1}).products[0].item == "c7"
    assert [p.item for p in search.find("oak", {"c7": 9, "c2": 1}).products[:3]] == ["c7", "c2", "c0"]


def test_words_have_a_limit() -> None:
    assert len(query_words("a " * 10_000)) == 8


# The rest


def test_a_catalogue_comes_back_as_it_was_written(tmp_path: Path) -> None:
    shelf = [Product('a,"b"\n', "Ünï", "c", "", 5), *WORLD_PRODUCTS]
    Catalogue(shelf, [Known("u-1", "fond of, say, tea")]).write(tmp_path)
    found = Catalogue.read(tmp_path)
    assert found is not None
    assert list(found.products) == shelf
    assert list(found.shoppers.values()) == [Known("u-1", "fond of, say, tea")]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("item,name\n", "item, name, category, brand, price"),
        ("item,name,category,brand,price\na,A,c,b,dear\n", "line 2"),
        ("item,name,category,brand,price\na,A,c,b,-1\n", "line 2"),
        ("item,name,category,brand,price\na,A,c,b,NaN\n", "line 2"),
        ("item,name,category,brand,price\na,A,c,b,1\na,A,c,b,1\n", "twice"),
        ("item,name,category,brand,price\n", "no line"),
    ],
)
def test_a_bad_catalogue_is_told_in_one_line(tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / PRODUCTS).write_text(table)
    with pytest.raises(DefinitionError, match=told):
        pages(tmp_path)


def test_without_a_catalogue_there_is_no_window(tmp_path: Path) -> None:
    assert pages(tmp_path) == ()


def test_every_product_of_the_simulated_shop_has_a_drawing_of_its_own_kind() -> None:
    """No category falls back to the parcel, and the same product always looks the same."""
    world = catalogue_of(ps.World(items=240))
    assert len(world.by_category) == 24
    drawn = {category: picture(products[0]) for category, products in world.by_category.items()}
    assert len(set(drawn.values())) == 24
    parcel = picture(Product("p", "thing", "nothing like it", "", 1))
    assert parcel.split("<g")[1].split(">", 1)[1][:20] not in "".join(drawn.values())
    assert picture(world.products[5]) == picture(world.products[5])


def test_a_drawing_follows_the_end_of_the_name_within_the_category() -> None:
    """A stool is no chair and a flower pot no saucepan; what is not known is drawn as its category."""

    def drawn(name: str, category: str) -> str:
        return picture(Product("p", name, category, "", 1))

    assert drawn("oak bar stool", "chairs") != drawn("oak dining chair", "chairs")
    assert drawn("oak bar stool No. 2", "chairs") == drawn("oak bar stool", "chairs")
    assert drawn("zinc flower pot", "planters") == drawn("zinc planter", "planters")
    assert drawn("oak bar stool", "nothing like it") == drawn("oak thing", "nothing like it")


def test_dates_go_on_where_the_clock_stands_still() -> None:
    """Between events, what has gone by here is added to the newest one's time; a later event resets that."""
    now, elapsed = 1_000_000, 5.0
    dates = Dates(lambda: now, lambda: elapsed)
    assert dates.next() == "1970-01-01T00:00:01.000001+00:00"
    elapsed = 7.5
    assert dates.next() == "1970-01-01T00:00:03.500000+00:00"
    now = 9_000_000
    assert dates.next() == "1970-01-01T00:00:09.000001+00:00"


def test_a_cart_holds_only_what_the_catalogue_has() -> None:
    cookie = b"penstock_shopper=guest-0123456789abcdef; penstock_cart=3.1.3.60.59.x.1e3." + b"9" * 400
    assert Visitor.of([(b"cookie", cookie)], (), 60).cart == (3, 1, 59)
