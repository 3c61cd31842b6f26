"""What a box keeps: session logs to download, its model's card, and corrections of its labels."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Blueprint, abort, jsonify, send_from_directory
from flask.typing import ResponseReturnValue

from contract.expressions import EXPRESSIONS
from contract.session_names import CORRECTIONS_NAME, SESSION_NAME
from dashboard.bodies import json_object
from dashboard.openapi import NUMBER, JsonSchema, documented, list_of, objects

MOST_LISTED = 500
_TEXT: JsonSchema = {"type": "string"}
_COUNT: JsonSchema = {"type": "integer", "minimum": 0}
_EXPRESSION: JsonSchema = {"enum": list(EXPRESSIONS)}
_SESSIONS = objects(
    written={"type": "boolean"},
    total=_COUNT,
    files=list_of(objects(name=_TEXT, bytes=_COUNT, changed_utc=_TEXT)),
)
_MODEL = objects(
    name=_TEXT,
    sha256=_TEXT,
    artifact=_TEXT,
    precision=_TEXT,
    backend=_TEXT,
    latency_ms=NUMBER,
    provenance={"type": "object"},
    metrics={"type": "object", "additionalProperties": {"type": "object"}},
    card=_TEXT,
)
_CORRECTED = objects(track=_COUNT, shown=_TEXT, expression=_EXPRESSION, seconds=NUMBER)
_CORRECTION: JsonSchema = {
    "type": "object",
    "properties": {
        "track": _COUNT,
        "expression": _EXPRESSION,
        "age_s": {"type": "number", "minimum": 0, "maximum": 60},
    },
    "required": ["track", "expression"],
    "additionalProperties": False,
}

Ask = Callable[[dict[str, Any]], ResponseReturnValue]
"""Passes a request on to the box and answers with what it says."""


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A file that may be downloaded; `changed_utc` is when it was last written to, ISO 8601."""

    name: str
    bytes: int
    changed_utc: str


def session_files(folder: Path | None) -> list[SessionFile]:
    """Session logs and corrections in `folder`, the newest name first; no other file, and no link.

    A folder that is not there yet has none. Raises `OSError` for one that cannot be read.
    """
    if folder is None or not folder.is_dir():
        return []
    found = []
    for file in folder.iterdir():
        ours = SESSION_NAME.fullmatch(file.name) or file.name == CORRECTIONS_NAME
        if not ours or file.is_symlink() or not file.is_file():
            continue
        try:
            status = file.stat()
        except FileNotFoundError:  # the box deleted it by its limits, just now
            continue
        changed = datetime.fromtimestamp(round(status.st_mtime), UTC).isoformat()
        found.append(SessionFile(file.name, status.st_size, changed))
    return sorted(found, key=lambda each: each.name, reverse=True)


def records_blueprint(folder: Path | None, ask: Ask) -> Blueprint:
    """The routes over `folder`, where session logs are (None: none are written), and the box."""
    routes = Blueprint("records", __name__)

    @routes.get("/api/sessions")
    @documented(answer=_SESSIONS)
    def sessions() -> ResponseReturnValue:
        """The files of session logs, newest first, at most 500 of `total`."""
        try:
            found = session_files(folder)
        except OSError as error:
            abort(503, f"the folder of session logs cannot be read: {error.strerror}")
        listed = [asdict(each) for each in found[:MOST_LISTED]]
        return jsonify(written=folder is not None, total=len(found), files=listed)

    @routes.get("/api/sessions/<name>")
    @documented(content="text/csv")
    def session_file(name: str) -> ResponseReturnValue:
        """One of the listed files, as a CSV to keep."""
        try:
            known = folder is not None and name in {each.name for each in session_files(folder)}
        except OSError as error:
            abort(503, f"the folder of session logs cannot be read: {error.strerror}")
        if not known:
            abort(404, "no such session; /api/sessions lists those there are")
        assert folder is not None  # or nothing would be listed
        response = send_from_directory(
            folder.absolute(), name, mimetype="text/csv", as_attachment=True,
            conditional=False, etag=False,
        )  # fmt: skip
        response.headers["Cache-Control"] = "no-store"
        return response

    @routes.get("/api/model")
    @documented(answer=_MODEL)
    def model() -> ResponseReturnValue:
        """The bundle in use: identity, figures, card as Markdown."""
        return ask({"get": "model"})

    @routes.post("/api/corrections")
    @documented(answer=objects(corrected=_CORRECTED), body=_CORRECTION)
    def correct() -> ResponseReturnValue:
        """Say what a label should have been: `{"track": n, "expression": e, "age_s": s}`.

        `age_s` is how long ago the wrong label was seen, at most 60; without it, now.
        """
        body = json_object()
        if body is None:
            return jsonify(error='the body must be {"track": number, "expression": name}'), 400
        return ask({"correct": body})

    return routes
