"""The services of an installed box: which run, starting them again, and whether they became ready.

All through `systemctl`. `Type=notify` makes a start wait until the program says that it is up.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError

PATTERNS = ("fer-edge.service", "fer-edge@*.service")
READY = "ready"
"""What the program tells systemd when every critical check of `/readyz` passes."""

READY_WITHIN_S = 60.0
STEADY_S = 10.0
"""A service that was not ready before only has to stay up for so long."""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_quietly(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, its output kept."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


@dataclass(frozen=True)
class State:
    """A service as systemd sees it."""

    active: bool
    ready: bool
    restarts: int
    status: str


class Services:
    """The services named `fer-edge…` of this machine."""

    def __init__(
        self,
        run: Run = run_quietly,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._monotonic, self._sleep = run, monotonic, sleep

    def require(self, manager: Path = Path("/run/systemd/system")) -> None:
        """Raises `UserError` where systemd is not what runs this machine (sd_booted(3))."""
        if not manager.is_dir():
            raise UserError(
                "this machine is not run by systemd; make a folder for one that is with --root DIR"
            )

    def reload(self) -> None:
        """Have systemd and udev read their files again."""
        self._do("systemctl", "daemon-reload")
        self._run(["udevadm", "control", "--reload"])
        self._run(["udevadm", "trigger", "--subsystem-match=video4linux", "--subsystem-match=tty"])

    def running(self) -> list[str]:
        """The services that run, or would if they did not fail, in alphabetical order."""
        listed = self._do(
            "systemctl", "list-units", "--plain", "--no-legend", "--all",
            "--state=active,activating,reloading,failed", *PATTERNS,
        )  # fmt: skip
        return sorted(line.split()[0] for line in listed.splitlines() if line.strip())

    def state(self, name: str) -> State:
        """How a service is now."""
        shown = self._do(
            "systemctl", "show", name, "--property=ActiveState,NRestarts,StatusText"
        )  # fmt: skip
        values = dict(line.partition("=")[::2] for line in shown.splitlines())
        status = values.get("StatusText", "")
        active = values.get("ActiveState") == "active"
        restarts = values.get("NRestarts", "0")
        return State(active, active and status == READY, int(restarts or 0), status)

    def restart(self, name: str, *, was_ready: bool) -> str:
        """Start a service anew and wait until it is as good as before; why it is not, or empty.

        One that `was_ready` has to be so again within 60 s; another has to stay up for 10 s.
        """
        self._run(["systemctl", "reset-failed", name])
        done = self._run(["systemctl", "restart", name])
        if done.returncode:
            return f"{name} does not start: {_first_line(done.stderr)}"
        began = self._monotonic()
        while True:
            state, waited_s = self.state(name), self._monotonic() - began
            if not state.active or state.restarts:
                return f"{name} ended after its start; its log: journalctl -u {name}"
            if state.ready or (not was_ready and waited_s >= STEADY_S):
                return ""
            if waited_s >= READY_WITHIN_S:
                return f"{name} is not ready after {READY_WITHIN_S:g} s: {state.status}"
            self._sleep(0.5)

    def end(self) -> None:
        """Stop every service and let none start at boot."""
        for name in sorted({PATTERNS[0], *self.running()}):
            self._run(["systemctl", "disable", "--now", name])
            self._run(["systemctl", "reset-failed", name])

    def _do(self, *command: str) -> str:
        done = self._run(command)
        if done.returncode:
            raise UserError(f"{' '.join(command[:2])}: {_first_line(done.stderr)}")
        return done.stdout


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it says nothing")
