"""The local page of `fer-edge label`: frames out, labelled stretches in.

Every address starts with a random token, and only this machine is answered: a page elsewhere
cannot guess the one, and cannot reach the other under a name of its own (DNS rebinding).
"""

import hmac
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_from_directory
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS
from edge.offline.label_clip import Clip
from edge.offline.score_labels import LABELS_FILE, Segment, read_labels, write_labels

PAGE = Path(__file__).parent / "label_page"
ASSETS = ("label.js", "label.css", "icon.svg")
MOST_REQUEST_BYTES = 1024 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Frames show a person: a browser keeps none of them.
    "Cache-Control": "no-store",
}


def labels_file(clip: Path) -> Path:
    """Where the labels of a clip are: beside it."""
    return clip.parent / LABELS_FILE


def _time(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name} must be a time in seconds, got {value!r:.40}")
    return round(float(value), 3)


def checked(given: Any, length_s: float) -> tuple[Segment, ...]:
    """What a page sent as segments, in order of time.

    Raises `UserError` for anything but `[{"start_s", "end_s", "label"}]`, an unknown label, a
    stretch that is empty or reaches beyond the clip, and two that overlap.
    """
    if not isinstance(given, list):
        raise UserError("segments must be a list")
    found: list[Segment] = []
    for each in given:
        if not isinstance(each, dict) or set(each) != {"start_s", "end_s", "label"}:
            raise UserError("a segment has start_s, end_s and label, and nothing else")
        start, end = _time(each["start_s"], "start_s"), _time(each["end_s"], "end_s")
        label = each["label"]
        if label not in EXPRESSIONS:
            raise UserError(
                f"unknown label {label!r:.40}{nearest(str(label), EXPRESSIONS)} "
                f"(one of {' '.join(EXPRESSIONS)})"
            )
        if end <= start:
            raise UserError(f"{label} from {start:.2f} s must end after it starts: go on first")
        # Times come rounded to a millisecond.
        if start < 0 or end > length_s + 0.001:
            raise UserError(f"{label} until {end:.2f} s reaches beyond the clip ({length_s:.2f} s)")
        found.append(Segment(start, end, label))
    found.sort(key=lambda one: one.start_s)
    for one, after in pairwise(found):
        if after.start_s < one.end_s:
            raise UserError(
                f"{after.label} from {after.start_s:.2f} s overlaps {one.label}, which ends at "
                f"{one.end_s:.2f} s; remove one of them first"
            )
    return tuple(found)


def known_labels(clip: Clip) -> tuple[Segment, ...]:
    """The labels saved beside a clip before; none where there is no file.

    Raises `UserError` for a file that is damaged, or does not belong to this clip.
    """
    file = labels_file(clip.file)
    if not file.exists():
        return ()
    segments = read_labels(file)
    if segments[-1].end_s > clip.length_s + 0.001:
        raise UserError(
            f"{file} goes on to {segments[-1].end_s:g} s and {clip.file.name} ends at "
            f"{clip.length_s:.2f} s; they do not belong together, move one of them"
        )
    return segments


def _json(segments: tuple[Segment, ...]) -> list[dict[str, Any]]:
    return [{"start_s": s.start_s, "end_s": s.end_s, "label": s.label} for s in segments]


def create_app(clip: Clip, token: str, port: int) -> Flask:
    """The app for one clip, served on `port` of this machine under `/TOKEN/`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_REQUEST_BYTES
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
    file = labels_file(clip.file)

    @app.before_request
    def check() -> None:
        if request.host not in hosts:
            abort(403, "this page answers to this machine only")
        given = str((request.view_args or {}).pop("token", ""))
        if not hmac.compare_digest(given.encode(), token.encode()):
            abort(404, "open the address that fer-edge label printed")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> ResponseReturnValue:
        return jsonify(error=error.description), error.code or 500

    @app.get("/<token>/")
    def index() -> ResponseReturnValue:
        return send_from_directory(PAGE, "index.html")

    @app.get("/<token>/<any(" + ",".join(f"'{name}'" for name in ASSETS) + "):name>")
    def asset(name: str) -> ResponseReturnValue:
        return send_from_directory(PAGE, name)

    @app.get("/<token>/clip")
    def about() -> ResponseReturnValue:
        return jsonify(
            name=clip.file.name, frames=clip.frames, fps=clip.fps, length_s=clip.length_s,
            expressions=EXPRESSIONS, segments=_json(known_labels(clip)),
        )  # fmt: skip

    @app.get("/<token>/frame/<int:number>.jpg")
    def frame(number: int) -> ResponseReturnValue:
        data = clip.jpeg(number)
        if data is None:
            abort(404, f"the clip has no frame {number}")
        return Response(data, content_type="image/jpeg")

    @app.put("/<token>/labels")
    def save() -> ResponseReturnValue:
        body = request.get_json(silent=True)
        try:
            segments = checked(
                body.get("segments") if isinstance(body, dict) else None, clip.length_s
            )
            if segments:
                write_labels(file, segments)
            else:
                file.unlink(missing_ok=True)
        except UserError as error:
            return jsonify(error=str(error)), 400
        except OSError as error:
            return jsonify(error=f"{file} cannot be written: {error.strerror}"), 500
        return jsonify(segments=_json(segments))

    return app
