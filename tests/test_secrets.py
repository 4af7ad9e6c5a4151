"""No secret leaves the server: not the operator's token, not a session, not what somebody sent in its place."""

from __future__ import annotations

import http.client
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import helpers

WRONG = "a-token-of-somebody-elses"
SHOPPER = "shopper-whom-no-log-names"


@contextmanager
def serving(app: Path, home: Path, log: Path, errors: Path) -> Iterator[http.client.HTTPConnection]:
    """`penstock serve`, all that it prints kept in a file."""
    command = [sys.executable, "-X", "dev", "-m", "penstock.cli", "serve", "--app", app, "--home", home, "--port", "0"]
    command += ["--clock", "events", "--json", "--access-log", log]
    with errors.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        assert process.stdout is not None
        address = urlsplit(json.loads(process.stdout.readline())["url"])
        connection = http.client.HTTPConnection(str(address.hostname), int(address.port or 0), timeout=30)
        try:
            yield connection
        finally:
            connection.close()
            process.terminate()
            rest = process.communicate(timeout=60)[0]
            file.write(rest.encode())


def test_what_is_secret_is_in_no_log_no_page_and_no_answer(tmp_path: Path) -> None:
    """Every page and address is asked, with the token, without it, with another, and with one in the wrong place."""
    helpers.trained(tmp_path).close()
    home, app = tmp_path / "home", tmp_path / "small.py"
    log, errors = tmp_path / "access.jsonl", tmp_path / "errors.txt"
    seen: list[bytes] = []
    with serving(app, home, log, errors) as line:

        def ask(method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
            line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = line.getresponse()
            text = answer.read()
            kept = [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() != "set-cookie"]
            seen.append(b"\n".join([f"{method} {path.partition('?')[0]}".encode(), *map(str.encode, kept), text]))
            return answer

        token = (home / "operator-token").read_text().strip()
        event = {**helpers.history()[-1], "user": SHOPPER, "id": "secret-1"}
        assert ask("POST", "/v1/events", json.dumps(event)).status == 202
        decided = ask("POST", "/v1/decide/home", json.dumps({"user": SHOPPER}))
        assert decided.status == 200
        signed = ask(
            "POST", "/console/sign-in", urlencode({"token": token}), Sec_Fetch_Site="same-origin",
            Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip
        assert signed.status == 303
        session = signed.headers["set-cookie"].split(";")[0]
        document = json.loads(_last(seen, ask("GET", "/openapi.json")))
        release = json.loads(_last(seen, ask("GET", "/v1/releases", Authorization=f"Bearer {token}")))
        assert release["releases"]
        name = release["releases"][0]["id"]
        places = [
            path.replace("{id}", name).replace("{view}", "Shopper").replace("{key}", "u") for path in _paths(document)
        ]
        places += ["/", "/console/live", "/console/status", "/console/views", "/console/releases", "/console/newest",
                   f"/console/releases/{name}/report", "/nowhere"]  # fmt: skip
        for path in places:
            for method in ("GET", "POST"):
                for headers in (
                    {},
                    {"Authorization": f"Bearer {token}"},
                    {"Authorization": f"Bearer {WRONG}"},
                    {"Authorization": f"{token} {WRONG}"},
                    {"Cookie": session, "Accept": "text/html"},
                    {"Cookie": session.replace("=", f"={WRONG}")},
                ):
                    ask(method, path, "{}" if method == "POST" else None, **headers)
                ask(method, f"{path}?token={token}&wrong={WRONG}")
        wrong = ask("POST", "/console/sign-in", urlencode({"token": WRONG}), Sec_Fetch_Site="same-origin")
        assert wrong.status in (401, 403, 422)
    doctor = helpers.cli("doctor", "--app", app, "--home", home)
    explained = helpers.cli("explain", _decision(seen), "--app", app, "--home", home)
    assert SHOPPER in explained.stdout
    texts = {
        "answers": b"\n".join(seen),
        "what it printed": errors.read_bytes(),
        "the access log": log.read_bytes(),
        "doctor": (doctor.stdout + doctor.stderr).encode(),
        "explain": (explained.stdout + explained.stderr).encode(),
        **{
            f"{path.name}": path.read_bytes()
            for path in home.rglob("*")
            if path.is_file() and path.name != "operator-token"
        },
    }
    value = session.partition("=")[2]
    assert len(token) > 20
    assert len(value) > 20
    for where, text in texts.items():
        for secret in (token, value, WRONG):
            assert secret.encode() not in text, f"{where} has a secret"
    # Whom a shop knows is in its own data, and nowhere else.
    assert SHOPPER.encode() not in texts["what it printed"] + texts["the access log"]
    mode = stat.S_IMODE(os.stat(home / "operator-token").st_mode)
    assert mode == 0o600


def _last(seen: list[bytes], answer: http.client.HTTPResponse) -> bytes:
    assert answer.status == 200
    return seen[-1].rsplit(b"\n", 1)[1]


def _paths(document: dict[str, dict[str, object]]) -> list[str]:
    return [path.replace("{decision}", "home") for path in document["paths"]]


def _decision(seen: list[bytes]) -> str:
    found = re.search(rb'"decision_id":"(\w+)"', b"".join(seen))
    assert found is not None
    return found[1].decode()
