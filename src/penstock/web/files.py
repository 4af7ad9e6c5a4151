"""Files that pages load: scripts, styles, icons, as they come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from penstock.serve.replies import Reply
from penstock.serve.routes import Request, Route
from penstock.web.answers import SAFE

STATIC = Path(__file__).parent / "static"
HTMX = STATIC / "htmx.min.js"
_KINDS = {".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8", ".svg": b"image/svg+xml"}


class Files:
    """Some files under one address, each under a name that changes with its content, so that browsers keep them.

    Args:
        under: the address, such as ``/shop/static``.
        files: none two of the same name.
    """

    def __init__(self, under: str, files: Sequence[Path]) -> None:
        self._routes = []
        self._address = {}
        for file in files:
            content = file.read_bytes()
            digest = blake2b(content, digest_size=6).hexdigest()
            self._address[file.name] = address = f"{under}/{digest}/{file.name}"
            self._routes.append(_route(address, content, _KINDS[file.suffix]))

    def __getitem__(self, name: str) -> str:
        """The address of a file, by its name."""
        return self._address[name]

    @property
    def routes(self) -> Sequence[Route]:
        return self._routes


def _route(address: str, content: bytes, kind: bytes) -> Route:
    headers = ((b"cache-control", b"public, max-age=31536000, immutable"), *SAFE)
    reply = Reply(200, content, kind, headers)

    async def answer(request: Request) -> Reply:
        return reply

    return Route("GET", address, answer)
