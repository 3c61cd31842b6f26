"""Greedy viewers, in short: everybody is answered, and nothing of them is left behind.

`benchmarks/dashboard_load.py` is the long version, on the real program, and says how soon.
"""

import asyncio
import json
from pathlib import Path

import psutil

from benchmarks.greedy_clients import press
from contract.telemetry import FeedAddress
from dashboard.streams import MAX_STREAMS
from tests.dashboard.fake_edge import FakeEdge
from tests.dashboard.processes import end, environment, get, start, until, url_printed

STREAMS, RATE, SECONDS = 50, 100, 3.0


def test_fifty_greedy_clients_and_a_rain_of_requests(edge: FakeEdge, folder: Path) -> None:
    assert edge.address == FeedAddress(folder)
    process = start("--feed", str(folder), "--port", "0", env=environment())
    try:
        url = url_printed(process)
        host = url.removeprefix("http://")

        def quiet() -> bool:
            active = json.loads(get(f"{url}/api/state"))["streams"]["active"]
            return active == 0 and not edge.previewing

        def footprint() -> tuple[int, int]:
            page = psutil.Process(process.pid)
            return page.num_fds(), page.num_threads()

        asyncio.run(press(host, streams=STREAMS, rate=RATE, seconds=1.0))
        assert until(quiet, within_s=15)
        first = footprint()
        load = asyncio.run(press(host, streams=STREAMS, rate=RATE, seconds=SECONDS))
        assert sum(load.answers.values()) == RATE * SECONDS
        assert set(load.answers) == {200}, "each of them, while every stream is taken"
        # As many as there may be, and every other one told so: none was left hanging or cut off.
        assert set(load.streams) == {200, 503}
        assert load.streams[200] >= MAX_STREAMS
        assert until(quiet, within_s=15)
        assert until(
            lambda: all(now <= 1 + was for now, was in zip(footprint(), first, strict=True))
        )
    finally:
        end(process)
