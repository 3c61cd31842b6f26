"""Asking the box: one request and its answer over the feed's control socket."""

import json
from typing import Any

import zmq

from contract.telemetry import FeedAddress

TIMEOUT_S = 1.0


class ControlError(Exception):
    """The box did not answer in time, or not in the agreed form."""


def ask(address: FeedAddress, message: dict[str, Any]) -> dict[str, Any]:
    """Send `message` and give the answer. Raises `ControlError` after `TIMEOUT_S`.

    Each call has a socket of its own: a REQ socket whose answer never came cannot be used again,
    and one caller must not wait for another's.
    """
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address.control)
        socket.send(json.dumps(message).encode())
        if not socket.poll(round(TIMEOUT_S * 1000)):
            raise ControlError(f"the box did not answer within {TIMEOUT_S:g} s")
        answer = json.loads(socket.recv())
    except (ValueError, zmq.ZMQError) as error:
        raise ControlError(f"the box answered nothing usable: {error}") from None
    finally:
        socket.close()
    if not isinstance(answer, dict):
        raise ControlError("the box answered nothing usable: not a JSON object")
    return answer
