"""The real `python -m dashboard`, and headless Chromium to look at it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without dashboard settings, plus `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FER_")}
    return {**kept, **variables}


def start(
    *arguments: str, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """`python -m dashboard` with `arguments`, its output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "dashboard", *arguments],
        cwd=ROOT,
        env=env or environment(),
        pass_fds=pass_fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_printed(process: subprocess.Popen[str]) -> str:
    """The URL in the first line a dashboard prints, without the final slash."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(f"the dashboard did not start: {process.stderr.read()}")
    return line.split()[-1].rstrip("/")


def end(process: subprocess.Popen[str]) -> float:
    """SIGTERM, then the seconds until it ended; killed after 10."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return time.monotonic() - began


@contextmanager
def dashboard(folder: Path, port: int = 0, **variables: str) -> Iterator[str]:
    """A running dashboard on the feed in `folder`; gives its URL."""
    process = start("--feed", str(folder), "--port", str(port), env=environment(**variables))
    try:
        yield url_printed(process)
    finally:
        end(process)


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Does `condition` come true in time?"""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def get(url: str, timeout_s: float = 5.0) -> bytes:
    """The body at `url`."""
    with urllib.request.urlopen(url, timeout=timeout_s) as response:
        body: bytes = response.read()
        return body
