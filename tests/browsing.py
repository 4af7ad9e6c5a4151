"""What the tests in a real browser share: how it is started, one person's visit, and how text stands out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[dev]'")

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = (1280, 900), (375, 812)


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    """The browser at `path`. An event loop of its own runs meanwhile, so no longer than a module's tests."""
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """One person's page, and everything that the browser complained of."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int], **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, base_url=url, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda answer: answer.status >= 400 and self.complaints.append(answer.url))

    def check(self) -> None:
        """Nothing went wrong so far, and nothing sticks out to the right."""
        assert not self.complaints, self.complaints
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wide) == 0

    def tones(self, names: list[str]) -> dict[str, str]:
        """The style's colours of these names, #rrggbb."""
        script = "names => names.map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())"
        return dict(zip(names, self.page.evaluate(script, names), strict=True))

    def weak(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Of pairs of the style's colours, by name, those with less contrast than WCAG asks of text, 4.5."""
        tone = self.tones(sorted({name for pair in pairs for name in pair}))
        found = {pair: contrast(tone[pair[0]], tone[pair[1]]) for pair in pairs}
        return {pair: ratio for pair, ratio in found.items() if ratio < 4.5}


def luminance(tone: str) -> float:
    """Relative luminance of #rrggbb, as WCAG defines it."""
    parts = [int(tone[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)
