"""Pages as replies: what a browser may do with them, who may post to them, forms and cookies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from penstock.serve.replies import Header, Reply, refused

MAX_FORM = 16 << 10
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
"""Nothing but the server's own files runs, is loaded or is framed; a type is what it is said to be."""
HTML = b"text/html; charset=utf-8"


def page(html: str, *headers: Header, status: int = 200, note: Mapping[str, str | None] | None = None) -> Reply:
    """A page that no cache keeps, since it is one person's."""
    private = ((b"cache-control", b"no-store"), *SAFE, *headers)
    return Reply(status, html.encode(), HTML, private, dict(note or {}))


def to(address: str, *headers: Header) -> Reply:
    """Sends the browser on to `address`, with GET."""
    return Reply(303, b"", HTML, ((b"location", address.encode()), *SAFE, *headers))


def header(headers: Sequence[Header], name: bytes) -> str:
    """The value of a header, "" where there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def same_site(headers: Sequence[Header]) -> None:
    """Refuses a post that a page of another site, or of another server on this machine, has sent.

    Browsers say where a request comes from, in Sec-Fetch-Site or, older ones, in Origin; a page cannot forge either.
    """
    site = header(headers, b"sec-fetch-site")
    origin = header(headers, b"origin")
    own = {f"{scheme}://{header(headers, b'host')}" for scheme in ("http", "https")}
    if site == "same-origin" or (not site and origin in own):
        return
    raise refused(
        403, "a form is posted from this server's own pages", got=f"Sec-Fetch-Site {site or 'none'}, Origin "
        f"{origin[:100] or 'none'}", remedy="open the page and use it there",
    )  # fmt: skip


def form(body: bytes) -> dict[str, str]:
    """The fields of a posted form; of one given twice the first. What is no UTF-8 is replaced.

    >>> form(b"item=p-1&q=a+b&q=c")
    {'item': 'p-1', 'q': 'a b'}
    """
    try:
        given = parse_qs(body.decode("utf-8", "replace"), errors="replace", max_num_fields=100)
    except ValueError:
        return {}
    return {name: values[0] for name, values in given.items()}


def cookies(headers: Sequence[Header]) -> dict[str, str]:
    """The cookies of a request; of one given twice the first.

    >>> cookies([(b"cookie", b"a=1; b=2; a=3")])
    {'a': '1', 'b': '2'}
    """
    found: dict[str, str] = {}
    for part in "; ".join(v.decode("latin-1") for k, v in headers if k == b"cookie").split(";"):
        name, equals, value = part.strip().partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def cookie(name: str, value: str, path: str, *, days: int = 30) -> Header:
    """A cookie that scripts cannot read and other sites' forms do not send."""
    text = f"{name}={value}; Path={path}; Max-Age={days * 86_400}; HttpOnly; SameSite=Lax"
    return (b"set-cookie", text.encode())
