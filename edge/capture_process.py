"""The capture process as its program sees it: started, spoken to, watched, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from edge.capture_messages import receive, send

GRACE_S = 0.3
KILL_S = 1.0
_LOOK_AGAIN_S = 0.005


@dataclass(frozen=True)
class CameraRequest:
    """How another process makes the camera: a function, as `module:name`, and its arguments.

    The arguments must have a JSON form. They cross over a socket, never on a command line, as an
    address may hold a password.
    """

    arguments: dict[str, Any]
    maker: str = "edge.cameras.factory:open_camera"


class CaptureProcess:
    """One capture process. It may be killed at any time, and ends with the thread that made it."""

    def __init__(self, request: CameraRequest) -> None:
        """Start it; it makes the camera, but opens it only when told so."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        with theirs:
            number = theirs.fileno()
            command = [
                sys.executable, "-P", "-m", "edge.capture_child", str(number), str(os.getpid())
            ]  # fmt: skip
            # In a session of its own, so that Ctrl-C reaches the program alone, which then ends it.
            self._child = subprocess.Popen(
                command, pass_fds=[number], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self.send("camera", maker=request.maker, arguments=request.arguments)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def fileno(self) -> int:
        """Of the socket, to wait for messages; -1 after `end`."""
        return self._link.fileno()

    def send(self, kind: str, **values: Any) -> None:
        """Say something. One that does not listen any more is noticed by `fate`, not here."""
        try:
            send(self._link, kind, **values)
        except OSError:
            return

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last call. Those that hold `fd` hand it to the caller."""
        found: list[dict[str, Any]] = []
        try:
            while (message := receive(self._link)) is not None:
                found.append(message)
        except OSError:  # nothing more now, or the end in the middle of something
            pass
        return found

    def fate(self) -> str | None:
        """What has become of it, if it does not run any more: `was killed by SIGKILL`."""
        try:
            # Only looked at (WNOWAIT): whoever reaps it gets to know the same.
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "is gone"
        if seen is None:
            return None
        if seen.si_code == os.CLD_EXITED:
            return f"ended with code {seen.si_status}"
        what = "stopped" if seen.si_code == os.CLD_STOPPED else "killed"
        return f"was {what} by {signal.Signals(seen.si_status).name}"

    def reaped(self) -> bool:
        """Has it ended? Leaves no zombie then."""
        return self._child.poll() is not None

    def end(self, grace_s: float = 0.0) -> bool:
        """Let go of it, kill it after `grace_s`, and say whether it ended.

        One that hangs in the kernel does not even when killed: False after `KILL_S`.
        """
        self._link.close()
        if self._ended_within(grace_s):
            return True
        self._child.kill()
        return self._ended_within(KILL_S)

    def _ended_within(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not self.reaped():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_AGAIN_S)
        return True
