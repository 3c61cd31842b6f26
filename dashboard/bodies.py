"""What comes in with a write."""

from typing import Any

from flask import request


def json_object() -> dict[str, Any] | None:
    """The JSON object in the body of the request at hand; None for anything else."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # of brackets within brackets; silence is for other wrong JSON only
        return None
    return body if isinstance(body, dict) else None
