"""The interface, described for machines: OpenAPI 3.1, built from the structs that the server decodes and encodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from penstock.serve.requests import Answer, DecideRequest, DialRequest, Invocation, Judged, StaffRequest

Json = dict[str, Any]


class Rejection(msgspec.Struct):
    """One event that was refused; the others of its body were taken."""

    index: int
    field: str | None
    error: str


class Ingested(msgspec.Struct):
    """What became of a body of events."""

    accepted: Annotated[int, msgspec.Meta(ge=0)]
    duplicates: Annotated[int, msgspec.Meta(ge=0)]
    rejected: list[Rejection]


class Problem(msgspec.Struct):
    """Why a request was refused: the rule and what came, the field if there is one, and what to do."""

    error: str
    field: str | None
    remedy: str


class Features(msgspec.Struct):
    """The present values of one entity, and the log offset that they reflect."""

    view: str
    version: str
    key: str
    offset: int
    features: dict[str, float | list[str] | None]


_KINDS: Mapping[str, Json] = {
    "text": {"type": "string", "maxLength": 512},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "money": {"description": "an amount with at most two decimals", "type": ["number", "string"]},
}
_BASE: Mapping[str, Json] = {
    "time": {
        "description": "when it happened: RFC 3339 with a zone, or unix seconds; now where left out",
        "type": ["string", "number", "null"],
    },
    "id": {"description": "sent twice, it counts once; random where left out", "type": ["string", "null"]},
}
_TOKEN: Sequence[Json] = ({"operator": []},)
_PROBLEMS = {
    400: "Not readable at all",
    401: "Without the operator's token",
    404: "No such name",
    413: "Too large a body",
    422: "Breaks a rule",
    429: "Too many requests at once; Retry-After says when to come again",
    503: "Not now, and nothing was half done; Retry-After says when to come again",
}


def document(described: Mapping[str, Any]) -> Json:
    """The OpenAPI document of one app.

    Args:
        described: `Face.describe`: its streams with their fields, its decisions and views.
    """
    _, components = msgspec.json.schema_components(
        [DecideRequest, Invocation, DialRequest, StaffRequest, Answer, Judged, Ingested, Problem, Features],
        ref_template="#/components/schemas/{name}",
    )
    # Timings travel in the Server-Timing header.
    hidden = {
        "Answer": ("timings", "cause", "cached", "decided", "broken"),
        "Judged": ("timings", "cause", "cached", "decided", "propensity", "broken"),
    }
    for name, inner in hidden.items():
        components[name]["description"] = {"Answer": "A decision that is a list.", "Judged": "A verdict."}[name]
        components[name]["required"].remove("timings")
        for one in inner:
            del components[name]["properties"][one]
    streams: Mapping[str, Sequence[Json]] = described["streams"]
    for name, fields in streams.items():
        components[f"Event_{name}"] = _event(name, fields, alone=len(streams) == 1)
    components["Event"] = {"anyOf": [_ref(f"Event_{name}") for name in streams]} if streams else {"type": "object"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "penstock", "version": "1", "summary": "Events in, decisions out"},
        "paths": _paths(list(described["decisions"]), list(described["verdicts"]), list(described["views"])),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "the text of the file operator-token in the home folder",
                }
            },
        },
    }


def _paths(decisions: list[str], verdicts: list[str], views: list[str]) -> Json:
    release = _parameter("id", "a release's id")
    moved = {"description": "The move as it stands in the history", "type": "object"}
    event = _ref("Event")
    answer = {"anyOf": [_ref("Answer"), _ref("Judged")]} if verdicts else _ref("Answer")
    bodies = {
        "application/json": {"schema": {"anyOf": [event, {"type": "array", "items": event}]}},
        "application/x-ndjson": {"schema": {"description": "one event a line", "type": "string"}},
    }
    return {
        "/": {"get": _operation("A page of links", {200: _answer("The page", {"type": "string"}, "text/html")})},
        "/v1/events": {
            "post": _operation(
                "Take events, durably; the next decision sees them",
                {202: _answer("Sorted into new, duplicate and rejected", _ref("Ingested"))},
                body=bodies,
                refuses=(400, 413, 429, 503),
            )
        },
        "/v1/decide/{decision}": {
            "post": _operation(
                "Decide; an event sent along is durable before the answer and not in its own features",
                {200: _answer("The decision", answer)},
                parameters=[_parameter("decision", "a decision's name", [*decisions, *verdicts])],
                body={"application/json": {"schema": _ref("DecideRequest")}},
                refuses=(400, 404, 413, 422, 429, 503),
            )
        },
        "/invocations": {
            "post": _operation(
                "Decide, as SageMaker's containers are asked",
                {200: _answer("The decision", answer)},
                body={"application/json": {"schema": _ref("Invocation")}},
                refuses=(400, 404, 413, 422, 429, 503),
            )
        },
        "/v1/features/{view}/{key}": {
            "get": _operation(
                "The present features of one entity",
                {200: _answer("Its values", _ref("Features"))},
                parameters=[
                    _parameter("view", "a view's name", views),
                    _parameter("key", "the entity's id; several, each URL-encoded, are joined by commas"),
                ],
                refuses=(404, 422, 429, 503),
            )
        },
        "/v1/reviews/{decision}": {
            "get": _operation(
                "What waits for a person, by falling saving",
                {200: _answer("Reviews", {"type": "object"})},
                parameters=[_parameter("decision", "a verdict's name", verdicts)],
                guarded=True,
                refuses=(404, 429),
            )
        },
        "/v1/reviews/{decision}/staff": {
            "post": _operation(
                "Say how many reviews a day there are people for",
                {200: _answer("As it stands", {"type": "object"})},
                parameters=[_parameter("decision", "a verdict's name", verdicts)],
                body={"application/json": {"schema": _ref("StaffRequest")}},
                guarded=True,
                refuses=(400, 404, 413, 422, 429),
            )
        },
        "/v1/releases": {
            "get": _operation(
                "Every release", {200: _answer("Releases", {"type": "object"})}, guarded=True, refuses=(429,)
            )
        },
        **{
            f"/v1/releases/{{id}}/{move}": {
                "post": _operation(
                    summary,
                    {200: _answer("Moved", moved)},
                    parameters=[release],
                    body=body,
                    guarded=True,
                    refuses=(400, 404, 413, 422, 429),
                )
            }
            for move, summary, body in (
                ("promote", "Put a release in charge", None),
                ("rollback", "Take it out of charge, back to the one before", None),
                ("dial", "Give it a share of the traffic", {"application/json": {"schema": _ref("DialRequest")}}),
            )
        },
        "/healthz": {"get": _operation("Alive", {200: _answer("It is", {"type": "object"})})},
        "/readyz": {
            "get": _operation(
                "Ready for traffic",
                {200: _answer("It is", {"type": "object"}), 503: _answer("Not yet, and why", _ref("Problem"))},
            )
        },
        "/ping": {
            "get": _operation(
                "Ready for traffic, as SageMaker asks",
                {code: _answer(text, {"type": "object"}) for code, text in ((200, "It is"), (503, "Not yet"))},
            )
        },
        "/metrics": {
            "get": _operation("Metrics for Prometheus", {200: _answer("Metrics", {"type": "string"}, "text/plain")})
        },
        "/openapi.json": {"get": _operation("This document", {200: _answer("It", {"type": "object"})})},
    }


def _operation(
    summary: str,
    answers: Mapping[int, Json],
    *,
    parameters: Sequence[Json] = (),
    body: Json | None = None,
    guarded: bool = False,
    refuses: Sequence[int] = (),
) -> Json:
    codes = sorted({*refuses, *((401,) if guarded else ())})
    problems = {code: _answer(_PROBLEMS[code], _ref("Problem")) for code in codes}
    operation: Json = {
        "summary": summary,
        "responses": {str(code): answer for code, answer in sorted({**answers, **problems}.items())},
    }
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if guarded:
        operation["security"] = list(_TOKEN)
    return operation


def _answer(description: str, schema: Json, kind: str = "application/json") -> Json:
    timing = {"description": "milliseconds a stage", "schema": {"type": "string"}}
    return {"description": description, "headers": {"Server-Timing": timing}, "content": {kind: {"schema": schema}}}


def _parameter(name: str, description: str, choices: Sequence[str] = ()) -> Json:
    schema: Json = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _event(name: str, fields: Sequence[Json], *, alone: bool) -> Json:
    own = {field["name"]: _KINDS[field["kind"]] for field in fields}
    own |= {field["name"]: {"anyOf": [own[field["name"]], {"type": "null"}]} for field in fields if field["optional"]}
    required = [field["name"] for field in fields if not field["optional"]]
    return {
        "title": name,
        "type": "object",
        "properties": {"stream": {"const": name}, **_BASE, **own},
        "required": required if alone else ["stream", *required],
        "additionalProperties": False,
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
