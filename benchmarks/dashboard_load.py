"""What greedy viewers cost the box, and what they make other viewers wait.

    PYTHONPATH=. python benchmarks/dashboard_load.py --json benchmarks/DATE-dashboard-load.json

The real program on the demo camera, with its dashboard. First nobody looks; then fifty clients
want streams (a fifth of them read nothing, all ask again soon when they are refused) while 200
requests a second come in, a twentieth of them writes; then nobody again. `e2e_ms` is from the
return of the camera's read to the finished result, of every frame; `control_ms` from when a request
was due to the end of its answer. The clients run on the same machine and take cores of it, too:
`client_cpu_s`. Open files, threads and memory of both processes are taken before and after.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.greedy_clients import Load, press
from benchmarks.program import Frames, Program, running
from contract.files import write_json_atomic
from edge.kpi import percentiles
from edge.offline.record import run_record

SETTLE_S = 12.0
"""Until a client that reads nothing is dropped, and what was opened for viewers is closed."""


def footprint(process: psutil.Process) -> dict[str, float]:
    """What may pile up in a process."""
    return {
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
        "connections": len(process.net_connections("tcp")),
        "rss_mb": process.memory_info().rss / 2**20,
    }


def measure(program: Program, given: argparse.Namespace) -> dict[str, Any]:
    """Before, during and after the load."""
    frames = Frames(program.feed)
    both = {"edge": program.edge, "dashboard": program.page}
    host = program.host
    # A short one first, so that what is made once for the first viewers counts as no leak.
    asyncio.run(press(host, streams=given.streams, rate=given.rate, seconds=3.0))
    time.sleep(SETTLE_S)
    frames.take()
    first = {name: footprint(each) for name, each in both.items()}
    time.sleep(given.calm_s)
    before = frames.take()
    own = sum(psutil.Process().cpu_times()[:2])
    load: Load = asyncio.run(
        press(host, streams=given.streams, rate=given.rate, seconds=given.load_s)
    )
    own = sum(psutil.Process().cpu_times()[:2]) - own
    during = frames.take()
    time.sleep(SETTLE_S)
    last = {name: footprint(each) for name, each in both.items()}
    frames.take()
    time.sleep(given.calm_s)
    after = frames.take()
    frames.close()
    e2e = {
        name: {**percentiles(values), "frames": len(values)}
        for name, values in (("before", before), ("during", during), ("after", after))
    }
    return {
        "e2e_ms": e2e,
        "p99_rise_ms": e2e["during"]["p99"] - e2e["before"]["p99"],
        "p99_ratio": e2e["during"]["p99"] / e2e["before"]["p99"],
        "control_ms": percentiles([1000 * took for took in load.took_s]),
        "answers": {str(status): n for status, n in sorted(load.answers.items())},
        "streams": {str(status): n for status, n in sorted(load.streams.items())},
        "stream_mb": load.stream_bytes / 2**20,
        "client_cpu_s": own,
        "footprint": {"first": first, "last": last},
    }


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--load-s", type=float, default=60.0)
    parser.add_argument("--calm-s", type=float, default=30.0)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    with running("--camera", "demo", "--no-session") as program:
        figures = measure(program, given)
    print(
        f"e2e p99 {figures['e2e_ms']['before']['p99']:.1f} → "
        f"{figures['e2e_ms']['during']['p99']:.1f} ms, "
        f"control p99 {figures['control_ms']['p99']:.0f} ms, answers {figures['answers']}"
    )
    command = "python benchmarks/dashboard_load.py"
    write_json_atomic(given.json, {**figures, "run": run_record(command, sys.argv[1:], 1)})


if __name__ == "__main__":
    main()
