"""The Flask app: the page and what it asks for."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from contract.expressions import EXPRESSIONS
from dashboard.auth import Guard
from dashboard.control import ControlError, ask
from dashboard.feed import STALE_AFTER_S, Feed
from dashboard.history import SPAN_S
from dashboard.streams import MJPEG_TYPE, RETRY_AFTER_S, Gone, StreamSlots, events, mjpeg

MAX_REQUEST_BYTES = 64 * 1024
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

pages = Blueprint("dashboard", __name__)


def create_app(feed: Feed, *, token: str | None, loopback: bool) -> Flask:
    """The app over a started `feed`.

    `token` is what viewers must know (None: nobody must); `loopback` says that it is served on a
    loopback address only, which no token is safe for only together with the check of Host.
    """
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),
        SESSION_COOKIE_NAME="fer-dashboard",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_REQUEST_BYTES,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    guard = Guard(token, loopback)
    app.extensions["fer"] = (feed, guard, StreamSlots())
    guard.install(app)
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _explain)
    app.register_blueprint(pages)
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
def index() -> ResponseReturnValue:
    """The page."""
    return render_template("index.html", expressions=" ".join(EXPRESSIONS))


@pages.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """The login form, and what it posts: the form field `token`."""
    if not _guard().needs_token:
        return redirect(url_for("dashboard.index"))
    if request.method == "POST":
        _guard().try_token(request.form.get("token", ""))
        session["logged_in"] = True
        return "", 204
    return render_template("login.html")


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


@pages.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Does the box's loop beat? 503 with the reason when it is silent."""
    reason = _silent()
    body = {"alive": reason is None, "age_s": _feed().age_s(), "reason": reason}
    return jsonify(body), 200 if reason is None else 503


@pages.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Does the box do its work? Every check with its reason; 503 when a critical one fails."""
    reason, reading = _unready(), _feed().telemetry.get()
    checks = () if reading is None else reading.update.kpi.checks
    body = {"ready": reason is None, "age_s": _feed().age_s(), "reason": reason, "checks": checks}
    return jsonify(body), 200 if reason is None else 503


@pages.get("/api/state")
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
def history() -> ResponseReturnValue:
    """KPIs of the last five minutes, a point a second, oldest first."""
    return jsonify(span_s=SPAN_S, points=_feed().history.points(_feed().clock()))


@pages.get("/api/settings")
def settings() -> ResponseReturnValue:
    """The box's settings: their schema and values."""
    return _ask({"get": "settings"})


@pages.post("/api/settings")
def change_settings() -> ResponseReturnValue:
    """Change settings: `{"set": {"key": value}}`. The box decides, and answers with all of them."""
    body = request.get_json(silent=True)
    wanted = body.get("set") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(wanted, dict) or not wanted:
        return jsonify(error='the body must be {"set": {"key": value}}'), 400
    return _ask({"set": wanted})


def _ask(message: dict[str, Any]) -> ResponseReturnValue:
    try:
        answer = ask(_feed().address, message)
    except ControlError as error:
        return jsonify(error=str(error)), 504
    return jsonify(answer), 400 if "error" in answer else 200


@pages.get("/events")
def event_stream() -> ResponseReturnValue:
    """Telemetry as server-sent events."""
    return _stream(events, "text/event-stream")


@pages.get("/stream.mjpg")
def picture_stream() -> ResponseReturnValue:
    """The live view as MJPEG."""
    return _stream(mjpeg, MJPEG_TYPE)


def _stream(
    source: Callable[[Feed, Gone], Iterator[bytes]], content_type: str
) -> ResponseReturnValue:
    slots = _slots()
    if not slots.take():
        response = jsonify(error=f"all {slots.limit} streams are taken; try again soon")
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response, 503
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    response = Response(source(_feed(), gone), content_type=content_type)
    # Not in the generator: it may be dropped before it ever began.
    response.call_on_close(slots.release)
    return response
