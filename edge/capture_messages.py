"""What the program and its capture process say to each other: JSON over a socket pair.

The program says `camera` (who makes it, with which arguments), `open`, and `free` (a slot that was
taken); the end of the connection means stop. The process answers `opened`, `memory` (with its file
descriptor), `frame`, `unreadable`, `closed` (with the reason; waits for the next `open`), `ended`,
`mistake` (a `UserError`), and `log`.
"""

import array
import json
import os
import socket
from typing import Any

MAX_BYTES = 65536


def encode(kind: str, **values: Any) -> bytes:
    """A message as bytes."""
    return json.dumps({"kind": kind, **values}).encode()


def send(link: socket.socket, kind: str, fd: int | None = None, **values: Any) -> None:
    """Send a message and, with it, a file descriptor. Raises `OSError`."""
    if fd is None:
        link.send(encode(kind, **values))
    else:
        socket.send_fds(link, [encode(kind, **values)], [fd])


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The next message; None at the end of the connection. A descriptor is under `fd`.

    Raises `BlockingIOError` where the socket does not block and has none, and other `OSError`.
    """
    data, ancillary, _, _ = link.recvmsg(
        MAX_BYTES, socket.CMSG_LEN(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    for _, _, content in ancillary:
        fds = array.array("i")
        fds.frombytes(content)
        message["fd"], *others = fds.tolist()
        for fd in others:
            os.close(fd)
    return message
