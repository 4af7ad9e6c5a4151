"""Whatever is sent to the server, it keeps to its own OpenAPI document: no 5xx, no answer that is not described."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import helpers
from penstock.serve.server import BackgroundServer
from serving import Client

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

EXAMPLES = 60
CALMLY: dict[str, Any] = {"suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A shop that serves a trained release."""
    with helpers.trained(tmp_path_factory.mktemp("fuzz")) as app, BackgroundServer(app.open()) as running:
        yield running


def fuzz(server: BackgroundServer, headers: dict[str, str], mode: GenerationMode) -> dict[str, set[int]]:
    """Sends drawn requests to every operation of the document; returns the statuses that came."""
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    came: dict[str, set[int]] = {}
    for result in document.get_all_operations():
        operation = result.ok()

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=[Phase.generate], **CALMLY)
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            answer = case.call_and_validate(checks=CHECKS, headers=headers)
            came.setdefault(case.operation.label, set()).add(answer.status_code)

        try:
            send()
        except Unsatisfiable:
            # Nothing can be wrong in a request that has neither parameters nor a body.
            assert mode is GenerationMode.NEGATIVE
    return came


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "misfitting"])
def test_the_operator_gets_what_the_document_says(server: BackgroundServer, mode: GenerationMode) -> None:
    """On every address and method, with requests that fit the document and such that do not."""
    came = fuzz(server, {"Authorization": f"Bearer {server.token}"}, mode)
    assert len(came) >= (13 if mode is GenerationMode.POSITIVE else 8)
    if mode is GenerationMode.POSITIVE:
        assert 401 not in set().union(*came.values())
        assert came["POST /v1/events"] == {202}
        assert 200 in came["POST /v1/decide/{decision}"]


def test_a_stranger_gets_what_the_document_says(server: BackgroundServer) -> None:
    """Without a token what is guarded is 401, and nothing else is."""
    came = fuzz(server, {}, GenerationMode.POSITIVE)
    guarded = {name for name in came if "releases" in name or "reviews" in name}
    assert {name for name, codes in came.items() if 401 in codes} == guarded
    assert all(codes == {401} for codes in came.values() if 401 in codes)


HOSTILE = [
    b"", b"\0", b"\xff\xfe", b"{}", b"[" * 2_000, b'{"a":' * 500, b'{"user": 1e999}', b'{"user": "\xff"}',
    b'{"user": "u", "k": 1e400}', b'{"user": "u", "event": {"time": -1e308}}', b'{"user": "\\ud800"}',
    b'{"user": "u", "context": {"\\u0000": "\\u0000"}}', b"NaN", b"-", b"9" * 5_000, b'"' + b"x" * 5_000 + b'"',
    b'{"user": "u", "user": "v"}', b'\xef\xbb\xbf{"user": "u"}', b"\r\n\r\n",
]  # fmt: skip
PATHS = [
    b"/", b"/v1/events", b"/v1/decide/home", b"/v1/decide/%00", b"/v1/decide/%zz", b"/v1/decide/%ff%fe",
    b"/v1/features/Shopper/%2F%2C,", b"/v1/features/Interest/a,b", b"/v1/features/%F0%9F/\xff", b"/invocations",
    b"//", b"/..%2f..%2f", b"/v1/releases/../x/promote", b"/v1/releases/%00/promote", b"*", b"http://x/healthz",
    b"/healthz?" + b"a=%00&" * 200, b"/console/sign-in", b"/metrics;x",
]  # fmt: skip
HEADERS = [
    b"Content-Type: application/json", b"Content-Type: \xff", b"Authorization: Bearer \xff", b"Cookie: \0=;;=",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Host: [::", b"X: " + b"y" * 3_000,
    b"Connection: upgrade\r\nUpgrade: h2c", b": empty", b"no colon", b"Range: bytes=0-", b"Accept: text/html",
]  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True, phases=[Phase.generate], **CALMLY)
@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"get", b"\0", b"PRI"]),
    path=st.sampled_from(PATHS) | st.binary(min_size=1, max_size=30).map(lambda path: b"/" + path),
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]),
    headers=st.lists(st.sampled_from(HEADERS), max_size=4),
    body=st.sampled_from(HOSTILE) | st.binary(max_size=50),
    counted=st.booleans(),
)
def test_no_bytes_on_the_line_make_it_fail(
    server: BackgroundServer,
    method: bytes,
    path: bytes,
    version: bytes,
    headers: list[bytes],
    body: bytes,
    counted: bool,
) -> None:
    """Each connection is answered below 500 or closed, every refusal says what to do, and the next one is served."""
    length = [b"Content-Length: %d" % len(body)] if counted else []
    sent = b"\r\n".join([b" ".join([method, path, version]), b"Host: x", *headers, *length, b"", body])
    with socket.create_connection((server.host, server.port), timeout=20) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        came = b"".join(iter(lambda: line.recv(1 << 16), b""))
    for head in re.findall(rb"^HTTP/1\.1 (\d{3})", came, re.MULTILINE):
        assert int(head) < 500, (sent, came)
    first, _, text = came.partition(b"\r\n\r\n")
    if re.match(rb"HTTP/1\.1 4", first) and method != b"HEAD" and b"application/json" in first:
        refusal, _ = json.JSONDecoder().raw_decode(text.decode())
        assert refusal["error"]
        assert refusal["remedy"]
    with Client(server) as call:
        assert call("GET", "/healthz").status == 200


def test_the_server_is_as_well_afterwards(server: BackgroundServer) -> None:
    with Client(server) as call:
        assert call("GET", "/readyz").status == 200
        answer = call("POST", "/v1/decide/home", {"user": helpers.history()[-1]["user"]})
        assert (answer.status, answer.json["tier"]) == (200, "personal")
