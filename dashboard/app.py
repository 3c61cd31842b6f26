"""The Flask app: the page and what it asks for."""

import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    jsonify,
    render_template,
    request,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from contract.expressions import EXPRESSIONS
from dashboard.auth import OPEN_ENDPOINTS, Access, Guard
from dashboard.bodies import json_object
from dashboard.control import Box, BusyError, ControlError, ask
from dashboard.feed import STALE_AFTER_S, Feed
from dashboard.history import HOUR_MINUTES, SPAN_S
from dashboard.login import login_routes
from dashboard.metrics import metrics_page
from dashboard.openapi import (
    CHECK,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT_OR_NULL,
    UPDATE,
    JsonSchema,
    describe,
    documented,
    list_of,
    objects,
)
from dashboard.records import records_blueprint
from dashboard.streams import MJPEG_TYPE, RETRY_AFTER_S, Gone, StreamSlots, events, mjpeg

MAX_REQUEST_BYTES = 64 * 1024
BUSY_RETRY_AFTER_S = 1
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

BOOLEAN: JsonSchema = {"type": "boolean"}
OBJECT: JsonSchema = {"type": "object"}
SETTINGS = objects(schema=OBJECT, values=OBJECT, restart=list_of({"type": "string"}))
POINT = {**objects(age_s=NUMBER), "additionalProperties": NUMBER_OR_NULL}
MINUTE = objects(
    age_min={"type": "integer", "minimum": 0},
    seconds={"type": "object", "additionalProperties": NUMBER},
)

pages = Blueprint("dashboard", __name__)


def create_app(feed: Feed, access: Access, *, session_dir: Path | None = None) -> Flask:
    """The app over a started `feed`, for those whom `access` lets in.

    `session_dir` is the folder of session logs (None: there are none).
    """
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),
        SESSION_COOKIE_NAME=access.cookie,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        PERMANENT_SESSION_LIFETIME=timedelta(seconds=access.login_s),
        SESSION_REFRESH_EACH_REQUEST=False,
        MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_REQUEST_BYTES,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    guard = Guard(access)
    box = Box(lambda message: ask(feed.address, message))
    app.extensions["fer"] = (feed, guard, StreamSlots(), box)
    guard.install(app)
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _explain)
    app.register_blueprint(pages)
    app.register_blueprint(login_routes(guard))
    app.register_blueprint(metrics_page(feed))
    app.register_blueprint(records_blueprint(session_dir, _ask))
    return app


def _feed() -> Feed:
    feed: Feed = current_app.extensions["fer"][0]
    return feed


def _guard() -> Guard:
    guard: Guard = current_app.extensions["fer"][1]
    return guard


def _slots() -> StreamSlots:
    slots: StreamSlots = current_app.extensions["fer"][2]
    return slots


def _box() -> Box:
    box: Box = current_app.extensions["fer"][3]
    return box


def _add_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    # Static files are revalidated by their hash; everything else is of this moment and this person.
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _explain(error: HTTPException) -> ResponseReturnValue:
    """Every error as JSON with one line; a response made on purpose stays as it is."""
    if error.response is not None:
        return error.response
    response = jsonify(error=error.description)
    response.status_code = error.code or 500
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@pages.get("/")
@documented(content="text/html", statuses=(200, 302))
def index() -> ResponseReturnValue:
    """The page; leads to the form for who is not logged in."""
    return render_template("index.html", expressions=" ".join(EXPRESSIONS))


def _silent() -> str | None:
    """Why nothing is known of the box now; None when it speaks."""
    age_s = _feed().age_s()
    if age_s is None:
        if _feed().unreadable:
            return "the box sends telemetry this dashboard does not understand; update both"
        return "no data from the box yet"
    return f"no data from the box for {age_s:.0f} s" if age_s > STALE_AFTER_S else None


def _unready() -> str | None:
    """Why the box does not do its work now; None when it does."""
    silent, reading = _silent(), _feed().telemetry.get()
    return silent if silent or reading is None else reading.update.kpi.unready


@pages.get("/openapi.json")
@documented(answer=OBJECT)
def openapi() -> ResponseReturnValue:
    """This description: OpenAPI 3.1."""
    return jsonify(describe(current_app, OPEN_ENDPOINTS))


@pages.get("/healthz")
@documented(
    answer=objects(alive=BOOLEAN, age_s=NUMBER_OR_NULL, reason=TEXT_OR_NULL), statuses=(200, 503)
)
def healthz() -> ResponseReturnValue:
    """Does the box's loop beat? 503 with the reason when it is silent."""
    reason = _silent()
    body = {"alive": reason is None, "age_s": _feed().age_s(), "reason": reason}
    return jsonify(body), 200 if reason is None else 503


@pages.get("/readyz")
@documented(
    answer=objects(
        ready=BOOLEAN,
        age_s=NUMBER_OR_NULL,
        reason=TEXT_OR_NULL,
        checks=list_of(CHECK),
    ),
    statuses=(200, 503),
)
def readyz() -> ResponseReturnValue:
    """Does the box do its work? Every check with its reason; 503 when a critical one fails."""
    reason, reading = _unready(), _feed().telemetry.get()
    checks = () if reading is None else reading.update.kpi.checks
    body = {"ready": reason is None, "age_s": _feed().age_s(), "reason": reason, "checks": checks}
    return jsonify(body), 200 if reason is None else 503


@pages.get("/api/state")
@documented(
    answer=objects(
        age_s=NUMBER_OR_NULL,
        unready=TEXT_OR_NULL,
        streams=objects(active=NUMBER, limit=NUMBER),
        unreadable_telemetry=NUMBER,
        update={"oneOf": [UPDATE, {"type": "null"}]},
    )
)
def state() -> ResponseReturnValue:
    """The newest telemetry, how old it is, and how this process is doing."""
    reading = _feed().telemetry.get()
    return jsonify(
        age_s=_feed().age_s(),
        unready=_unready(),
        streams={"active": _slots().active, "limit": _slots().limit},
        unreadable_telemetry=_feed().unreadable,
        update=None if reading is None else current_app.json.loads(reading.text),
    )


@pages.get("/api/history")
@documented(answer=objects(span_s=NUMBER, points=list_of(POINT)))
def history() -> ResponseReturnValue:
    """KPIs of the last five minutes, a point a second, oldest first."""
    return jsonify(span_s=SPAN_S, points=_feed().history.points(_feed().clock()))


@pages.get("/api/hour")
@documented(answer=objects(span_min=NUMBER, minutes=list_of(MINUTE)))
def hour() -> ResponseReturnValue:
    """For how long each label was shown, minute by minute over the last hour, oldest first."""
    return jsonify(span_min=HOUR_MINUTES, minutes=_feed().last_hour.minutes(_feed().clock()))


@pages.get("/api/settings")
@documented(answer=SETTINGS)
def settings() -> ResponseReturnValue:
    """The box's settings: their schema and values."""
    return _ask({"get": "settings"})


@pages.post("/api/settings")
@documented(answer=SETTINGS, body=objects(set={"type": "object", "minProperties": 1}))
def change_settings() -> ResponseReturnValue:
    """Change settings: `{"set": {"key": value}}`. The box decides, and answers with all of them."""
    body = json_object() or {}
    wanted = body.get("set") if len(body) == 1 else None
    if not isinstance(wanted, dict) or not wanted:
        return jsonify(error='the body must be {"set": {"key": value}}'), 400
    return _ask({"set": wanted})


def _ask(message: dict[str, Any]) -> ResponseReturnValue:
    try:
        answer = _box().ask(message)
    except ControlError as error:
        return jsonify(error=str(error)), 504
    except BusyError as error:
        return _try_again(str(error), BUSY_RETRY_AFTER_S)
    return jsonify(answer), 400 if "error" in answer else 200


@pages.post("/api/reload")
@documented(answer=SETTINGS)
def reload() -> ResponseReturnValue:
    """Have the box read its profile again: what may change while it runs changes."""
    return _ask({"reload": True})


def _try_again(reason: str, after_s: int) -> ResponseReturnValue:
    response = jsonify(error=reason)
    response.headers["Retry-After"] = str(after_s)
    return response, 503


@pages.get("/events")
@documented(content="text/event-stream")
def event_stream() -> ResponseReturnValue:
    """Telemetry as server-sent events."""
    return _stream(events, "text/event-stream")


@pages.get("/stream.mjpg")
@documented(content=MJPEG_TYPE.partition(";")[0])
def picture_stream() -> ResponseReturnValue:
    """The live view as MJPEG."""
    return _stream(mjpeg, MJPEG_TYPE)


def _stream(
    source: Callable[[Feed, Gone], Iterator[bytes]], content_type: str
) -> ResponseReturnValue:
    slots = _slots()
    if not slots.take():
        return _try_again(f"all {slots.limit} streams are taken; try again soon", RETRY_AFTER_S)
    left = request.environ.get("waitress.client_disconnected", lambda: False)
    allowed = _guard().still_allowed()
    response = Response(source(_feed(), lambda: left() or not allowed()), content_type=content_type)
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect a stream and pass it on late
    # Not in the generator: it may be dropped before it ever began.
    response.call_on_close(slots.release)
    return response
