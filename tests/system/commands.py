"""The installed commands, run as a user runs them: real processes with an environment of their own.

Nothing of the caller's settings reaches them, and nothing is kept in the user's own folders.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.conftest import shared_folder

LIMIT_S = 60.0
"""For anything a busy machine may be slow at; a machine at rest needs some 3 s."""


def program(name: str) -> str:
    """The path of an installed command of this project."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"{name} is not installed: pip install -e '.[dev]'"
    return found


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """The caller's, less what configures this project, with caches under `cache`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FER_")}
    own = {
        "XDG_CACHE_HOME": str(cache),
        "XDG_DATA_HOME": str(cache / "data"),
        "FER_STORE": str(cache / "store"),
    }
    models = shared_folder() / "models"
    if models.is_dir():
        own["FER_MODELS"] = str(models.resolve())
    return {**kept, **own, **variables}


def fer_edge(
    *arguments: object, cache: Path, cwd: Path | None = None, command: str = "fer-edge",
    **variables: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command to its end."""
    return subprocess.run(
        [program(command), *map(str, arguments)],
        cwd=cwd or cache.parent,
        env=environment(cache, **variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


class Running:
    """A `fer-edge` that runs: what it logged so far, its page, its children, its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        """What it said on stderr so far."""
        return "\n".join(self._lines)

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log matches; fails if the program ends before."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            ended = self.process.poll() is not None
            if ended:
                self._reader.join(5)
            found.extend(m for line in list(self._lines) if (m := re.search(pattern, line)))
            return bool(found) or ended

        assert until(look) and found, f"'{pattern}' was not said:\n{self.log}"
        return found[0]

    @property
    def url(self) -> str:
        """The address of its page, as it says."""
        return self.said(r"dashboard: (http://\S+)/")[1]

    def children(self) -> list[psutil.Process]:
        """Its running child processes."""
        every = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in every if child.status() != psutil.STATUS_ZOMBIE]

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; the seconds until it ended. Killed after `LIMIT_S`, which fails."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(LIMIT_S)
        took = time.monotonic() - began
        self._reader.join(5)
        return took


@contextmanager
def running(*arguments: object, cache: Path, cwd: Path, **variables: str) -> Iterator[Running]:
    """A `fer-edge` that is ended, with its children, at the end."""
    process = subprocess.Popen(
        [program("fer-edge"), *map(str, arguments)],
        cwd=cwd,
        env=environment(cache, **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    one = Running(process)
    try:
        yield one
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        one._reader.join(5)
        assert process.stderr is not None
        process.stderr.close()


def until(condition: Callable[[], bool], within_s: float = LIMIT_S) -> bool:
    """Does `condition` come true in time?"""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
