"""An hour at a camera's pace: does memory grow, are frames lost, does it become slower?

    PYTHONPATH=. python benchmarks/soak.py --clips DIR --json benchmarks/DATE-soak-clips.json

The real program with its dashboard and its session log, as a user starts it, on a live camera that
plays the clips over and over at 30 frames a second. A viewer of the live feed notes every frame's
`e2e_ms`, from the return of the camera's read to the finished result. `first` and `last` are the
first and the last sixth of the time after `--warm-up-s`; `slope_mb_h` are least squares lines
through the resident memory of the whole time after it, of the pipeline's process and of all
together. `lost` are frames the camera was to give that have no result, over all that it was to
give: what capture dropped is in it, and what the source itself skipped. `minutes` has everything
minute by minute, with the CPU time that the machine's host took for others.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.program import Frames, Program, running
from contract.files import write_json_atomic
from edge.kpi import percentiles
from edge.offline.record import run_record

FPS = 30
MINUTE_S = 60.0


def rss_mb(process: psutil.Process) -> float:
    """Resident memory."""
    return float(process.memory_info().rss / 2**20)


def tree(program: Program) -> list[psutil.Process]:
    """The program and all it started."""
    return [program.edge, *program.edge.children(recursive=True)]


def stolen_s() -> float:
    """CPU seconds the host gave to others, over all cores since boot."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def minute_of(
    program: Program, frames: Frames, until_s: float
) -> tuple[list[float], dict[str, Any]]:
    """Wait until then; the frames' milliseconds, and what the processes were like."""
    before_s, cpu_before = stolen_s(), sum(sum(p.cpu_times()[:2]) for p in tree(program))
    began_s = time.monotonic()
    time.sleep(max(0.0, until_s - began_s))
    e2e, processes = frames.take(), tree(program)
    seconds = time.monotonic() - began_s
    cpu_s = sum(sum(process.cpu_times()[:2]) for process in processes) - cpu_before
    kpi = frames.kpi
    assert kpi is not None
    return e2e, {
        "frames": len(e2e),
        "seconds": seconds,
        "e2e_ms": percentiles(e2e),
        "edge_rss_mb": rss_mb(program.edge),
        "tree_rss_mb": sum(map(rss_mb, processes)),
        "tree_pss_mb": sum(p.memory_full_info().pss for p in processes) / 2**20,
        "open_files": program.edge.num_fds(),
        "threads": program.edge.num_threads(),
        "cpu_percent": 100 * cpu_s / seconds,
        "stolen_s": stolen_s() - before_s,
        "drops": kpi.drops,
        "camera_events": kpi.camera_events,
        "notes": list(kpi.notes),
    }


def slope_mb_h(minutes: list[dict[str, Any]], what: str) -> float:
    """How fast it grows, MB an hour."""
    hours = np.cumsum([minute["seconds"] for minute in minutes]) / 3600
    return float(np.polyfit(hours, [minute[what] for minute in minutes], 1)[0])


def measure(program: Program, given: argparse.Namespace) -> dict[str, Any]:
    """All minutes, and what they come to."""
    frames = Frames(program.feed)
    time.sleep(given.warm_up_s)
    frames.take()
    began_s, e2e, minutes = time.monotonic(), [], []
    for number in range(given.minutes):
        values, minute = minute_of(program, frames, began_s + (number + 1) * MINUTE_S)
        e2e.append(values)
        minutes.append(minute)
    frames.close()
    part = max(1, given.minutes // 6)
    first = percentiles(value for values in e2e[:part] for value in values)
    last = percentiles(value for values in e2e[-part:] for value in values)
    given_frames = FPS * sum(minute["seconds"] for minute in minutes)
    seen = sum(map(len, e2e))
    return {
        "frames": seen,
        "lost": max(0.0, 1 - seen / given_frames),
        "drops": minutes[-1]["drops"],
        "e2e_ms": percentiles(value for values in e2e for value in values),
        "e2e_max_ms": max(max(values) for values in e2e if values),
        "first_e2e_ms": first,
        "last_e2e_ms": last,
        "last_over_first": {name: last[name] / first[name] for name in first},
        "p99_change_ms": last["p99"] - first["p99"],
        "slope_mb_h": {
            "edge": slope_mb_h(minutes, "edge_rss_mb"),
            "tree": slope_mb_h(minutes, "tree_rss_mb"),
        },
        "tree_pss_mb": statistics.median(minute["tree_pss_mb"] for minute in minutes),
        "cpu_percent": statistics.median(minute["cpu_percent"] for minute in minutes),
        "stolen_s": sum(minute["stolen_s"] for minute in minutes),
        "minutes": minutes,
    }


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--warm-up-s", type=float, default=120.0)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "clips.toml"
        script.write_text(f'source = "{given.clips.resolve()}"\nfps = {FPS}\n')
        arguments = ["--camera", f"scripted:{script}", "--session-dir", name]
        with running(*arguments) as program:
            figures = measure(program, given)
    print(
        f"e2e p50 {figures['first_e2e_ms']['p50']:.2f} → {figures['last_e2e_ms']['p50']:.2f}  "
        f"p99 {figures['first_e2e_ms']['p99']:.2f} → {figures['last_e2e_ms']['p99']:.2f} ms  "
        f"lost {100 * figures['lost']:.4f} %  {figures['slope_mb_h']['edge']:+.2f} MB/h  "
        f"stolen {figures['stolen_s']:.1f} s"
    )
    command = "python benchmarks/soak.py"
    write_json_atomic(given.json, {**figures, "run": run_record(command, sys.argv[1:], 1)})


if __name__ == "__main__":
    main()
