"""What the dashboard answers to, as an OpenAPI 3.1 description made from its routes.

Every route of the app is in it, so a route cannot be forgotten; `documented` adds what the route
itself does not say. A view's docstring is its description.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Flask
from werkzeug.routing import Rule

from contract.telemetry import update_schema

JsonSchema = dict[str, Any]
View = TypeVar("View", bound=Callable[..., Any])

OPENAPI_VERSION = "3.1.0"
TITLE = "fer-edge dashboard"
VERSION = "1"
_DOCUMENTED = "documented"
_COMPONENTS = "#/components/schemas/"
_ERROR: JsonSchema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """What a route takes and gives."""

    answer: JsonSchema = field(default_factory=dict)
    content: str = "application/json"
    statuses: Sequence[int] = (200,)
    body: JsonSchema | None = None
    form: Mapping[str, str] = field(default_factory=dict)


def documented(
    *,
    answer: JsonSchema | None = None,
    content: str = "application/json",
    statuses: Sequence[int] = (200,),
    body: JsonSchema | None = None,
    form: Mapping[str, str] | None = None,
) -> Callable[[View], View]:
    """Describe a view: the JSON Schema of its answer, or the answer's media type.

    `statuses` are those that carry the answer; any other is an error with one line. `body` is the
    JSON Schema of what a write takes, `form` its form fields with what they are.
    """

    def note(view: View) -> View:
        operation = _Operation(answer or {}, content, statuses, body, form or {})
        setattr(view, _DOCUMENTED, operation)
        return view

    return note


def objects(**properties: JsonSchema) -> JsonSchema:
    """The JSON Schema of an object that has these, all of them."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(item: JsonSchema) -> JsonSchema:
    """The JSON Schema of a list of such."""
    return {"type": "array", "items": item}


NUMBER: JsonSchema = {"type": "number"}
NUMBER_OR_NULL: JsonSchema = {"type": ["number", "null"]}
TEXT_OR_NULL: JsonSchema = {"type": ["string", "null"]}
UPDATE: JsonSchema = {"$ref": f"{_COMPONENTS}LiveUpdate"}
CHECK: JsonSchema = {"$ref": f"{_COMPONENTS}Check"}


def describe(app: Flask, open_endpoints: frozenset[str]) -> JsonSchema:
    """The description of every route of `app`; all but `open_endpoints` need a login."""
    paths: JsonSchema = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        operation = getattr(view, _DOCUMENTED, None) or _Operation(content="*/*")
        path = paths.setdefault(_path(rule), {})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path[method.lower()] = _describe(rule, method, view.__doc__, operation)
            if rule.endpoint in open_endpoints:
                path[method.lower()]["security"] = []
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "security": [{"token": []}, {"login": []}],
        "components": {
            "schemas": {"Error": _ERROR, **_telemetry()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "login": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": app.config["SESSION_COOKIE_NAME"],
                },
            },
        },
    }


def _telemetry() -> JsonSchema:
    """What a `LiveUpdate` and its parts look like in JSON."""
    schema = update_schema(_COMPONENTS + "{model}")
    parts: JsonSchema = schema.pop("$defs")
    return {"LiveUpdate": schema, **parts}


def _path(rule: Rule) -> str:
    """`/a/<path:b>` as OpenAPI writes it: `/a/{b}`."""
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)


def _describe(rule: Rule, method: str, text: str | None, operation: _Operation) -> JsonSchema:
    summary, _, more = (text or rule.endpoint).strip().partition("\n\n")
    media = {"schema": operation.answer}
    content = {} if operation.statuses == (204,) else {operation.content: media}
    described: JsonSchema = {
        "operationId": f"{method.lower()}_{rule.endpoint.replace('.', '_')}",
        "summary": " ".join(summary.split()),
        "description": " ".join(more.split()),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in sorted(rule.arguments)
        ],
        "responses": {
            **{
                str(status): {
                    "description": "The answer.",
                    **({"content": content} if content else {}),
                }
                for status in operation.statuses
            },
            "default": {
                "description": "Why not, in one line.",
                "content": {"application/json": {"schema": {"$ref": f"{_COMPONENTS}Error"}}},
            },
        },
    }
    if method != "GET":
        described["parameters"] += [
            _header("X-Requested-With", {"const": "fer-dashboard"}),
            _header("Origin", {"type": "string", "description": "That of the dashboard itself."}),
        ]
    body = _body(operation)
    if body:
        described["requestBody"] = {"required": True, "content": body}
    return described


def _header(name: str, schema: JsonSchema) -> JsonSchema:
    return {"name": name, "in": "header", "required": True, "schema": schema}


def _body(operation: _Operation) -> JsonSchema:
    if operation.form:
        fields = {
            name: {"type": "string", "description": text} for name, text in operation.form.items()
        }
        return {"application/x-www-form-urlencoded": {"schema": objects(**fields)}}
    return {"application/json": {"schema": operation.body}} if operation.body else {}
