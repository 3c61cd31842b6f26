"""The real program, started for a measurement, and what it tells of its frames meanwhile."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import zmq

from contract.telemetry import TELEMETRY, FeedAddress, KpiSnapshot, from_json


class Frames:
    """End-to-end milliseconds of frames as the box tells them, while it is listened to."""

    def __init__(self, folder: Path) -> None:
        self._address = FeedAddress(folder)
        self._seen: dict[int, float] = {}
        self.kpi: KpiSnapshot | None = None
        """The newest state of the box."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as reader:
            reader.setsockopt(zmq.SUBSCRIBE, TELEMETRY)
            reader.setsockopt(zmq.LINGER, 0)
            reader.connect(self._address.live)
            while not self._stop.is_set():
                if reader.poll(100):
                    update = from_json(reader.recv()[len(TELEMETRY) :])
                    self.kpi = update.kpi
                    if update.frame is not None:
                        self._seen[update.frame.sequence] = update.frame.e2e_ms

    def take(self) -> list[float]:
        """Those since the last call."""
        seen, self._seen = self._seen, {}
        return list(seen.values())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True)
class Program:
    """The pipeline's process, its dashboard's, the page's host and port, the live feed's folder."""

    edge: psutil.Process
    page: psutil.Process
    host: str
    feed: Path

    def capture(self) -> psutil.Process:
        """The process that reads the camera now."""
        others = [child for child in self.edge.children() if child.pid != self.page.pid]
        return max(others, key=lambda child: sum(child.cpu_times()[:2]))


@contextmanager
def running(*arguments: str) -> Iterator[Program]:
    """`fer-edge` with these arguments and its dashboard, in an empty folder; ended afterwards."""
    with tempfile.TemporaryDirectory() as name:
        command: Sequence[str] = [sys.executable, "-m", "edge", *arguments, "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        # By default SIGTERM ends Python without the `finally` that ends the program.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        process = subprocess.Popen(
            command, cwd=name, env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            host = next(m[1] for line in lines if (m := re.search(r"http://(\S+)/", line)))
            threading.Thread(target=lambda: list(lines), daemon=True).start()
            edge = psutil.Process(process.pid)
            page = next(child for child in edge.children() if "dashboard" in child.cmdline())
            words = page.cmdline()
            yield Program(edge, page, host, Path(words[words.index("--feed") + 1]))
        finally:
            process.terminate()
            process.wait(20)
            signal.signal(signal.SIGTERM, before)
