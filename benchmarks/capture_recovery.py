"""How soon frames come again after the camera, or the process that reads it, was gone.

    PYTHONPATH=. python benchmarks/capture_recovery.py --json benchmarks/DATE-capture-recovery.json

A scripted camera disappears and reappears on schedule; then the capture process is killed
(SIGKILL) and stopped (SIGSTOP) at random moments. Recovery is from the moment the device is back,
or from the signal, to the first frame read after it in the hands of its taker. For a stopped
process that includes noticing it. Meanwhile open files, threads and memory are watched, of the
program itself and of its capture processes. `hand_over_ms` is what it costs that frames come from
another process, without faults: from the return of the camera's read to the copy in hand. The
schedule alone takes some seven minutes; a busy machine is slower.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from contract.files import write_json_atomic
from edge.cameras.factory import open_camera
from edge.capture_live import LiveCapture
from edge.capture_process import CameraRequest
from edge.kpi import percentiles
from edge.offline.record import run_record

WIDTH, HEIGHT, FPS = 640, 480, 30
FIRST_S, AWAY_S, CYCLE_S = 3.0, 0.4, 1.2
PAUSE_S = (1.0, 3.0)
"""Between two signals, at random; a process that stands by has started by then."""
PICTURES = 12
GIVE_UP_S = 30.0


def lay_out(folder: Path, cycles: int) -> Path:
    """A script of a camera that shows noise and disappears so often, and its pictures."""
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(pictures / f"{number}.bmp"), image)
    faults = "".join(
        f'\n[[fault]]\nkind = "disappear"\nat_s = {FIRST_S + k * CYCLE_S:.3f}\nfor_s = {AWAY_S}\n'
        for k in range(cycles)
    )
    file = folder / "camera.toml"
    file.write_text(f'source = "pictures"\n{faults}')
    return file


def await_frame(capture: LiveCapture, after_ns: int) -> float:
    """Seconds from a moment to a frame in hand that was read after it."""
    while time.monotonic_ns() - after_ns < GIVE_UP_S * 1e9:
        frame = capture.get(0.05)
        if frame is not None and frame.mono_ns > after_ns:
            return (time.monotonic_ns() - after_ns) / 1e9
    raise SystemExit(f"no frame for {GIVE_UP_S:g} s: {capture.state}, {capture.reason}")


def calm(capture: LiveCapture, until_s: float) -> list[float]:
    """Milliseconds from read to hand of every frame until then."""
    ages = []
    while time.monotonic() < until_s:
        frame = capture.get(0.05)
        if frame is not None:
            ages.append((time.monotonic_ns() - frame.mono_ns) / 1e6)
    return ages


def footprint() -> dict[str, float]:
    """What may pile up: open files, threads, processes, and MB of memory."""
    own = psutil.Process()
    children = own.children()
    return {
        "open_files": own.num_fds(),
        "threads": own.num_threads(),
        "processes": len(children),
        "rss_mb": own.memory_info().rss / 2**20,
        "children_rss_mb": sum(child.memory_info().rss for child in children) / 2**20,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Percentiles and the worst."""
    return {**percentiles(values), "max": max(values, default=0.0)}


def signalled(
    capture: LiveCapture, number: signal.Signals, times: int, chance: random.Random
) -> list[float]:
    """Seconds until frames came again after each of so many signals."""
    took = []
    for _ in range(times):
        calm(capture, time.monotonic() + chance.uniform(*PAUSE_S))
        old, began_ns = capture.pid, time.monotonic_ns()
        if old is None:
            raise SystemExit(f"there is no capture process: {capture.reason}")
        os.kill(old, number)
        while capture.pid == old:
            if time.monotonic_ns() - began_ns > GIVE_UP_S * 1e9:
                raise SystemExit(f"{number.name} was not noticed: {capture.state}, {old}")
            time.sleep(0.001)
        await_frame(capture, time.monotonic_ns())
        took.append((time.monotonic_ns() - began_ns) / 1e9)
    return took


def run(
    cycles: int, kills: int, stops: int, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """All of it, in one capture."""
    with tempfile.TemporaryDirectory() as name:
        script = lay_out(Path(name), cycles)
        epoch_s = time.monotonic()
        request = CameraRequest(
            {
                "text": f"scripted:{script}", "width": WIDTH, "height": HEIGHT, "fps": FPS,
                "seed": 0, "epoch_s": epoch_s,
            }
        )  # fmt: skip
        capture = LiveCapture(open_camera(**request.arguments), request).start()
        try:
            await_frame(capture, time.monotonic_ns())
            hand_over = calm(capture, epoch_s + FIRST_S)
            device: list[float] = []
            later = [footprint()]
            for k in range(cycles):
                back_s = epoch_s + FIRST_S + k * CYCLE_S + AWAY_S
                calm(capture, back_s)
                device.append(await_frame(capture, round(back_s * 1e9)))
                later.append(footprint())
            say(f"device back: {spread(device)}")
            chance = random.Random(seed)
            killed = signalled(capture, signal.SIGKILL, kills, chance)
            say(f"killed: {spread(killed)}")
            stopped = signalled(capture, signal.SIGSTOP, stops, chance)
            say(f"stopped: {spread(stopped)}")
            calm(capture, time.monotonic() + 3.0)
            last = footprint()
            seen = {"drops": capture.drops, "events": capture.events, "state": capture.state}
        finally:
            capture.close()
    return {
        "cycles": cycles,
        "kills": kills,
        "stops": stops,
        "device_back_s": spread(device),
        "sigkill_s": spread(killed),
        "sigstop_s": spread(stopped),
        "hand_over_ms": spread(hand_over),
        "footprint": {"first": later[0], "after_cycles": later[-1], "last": last},
        "left_behind": len(psutil.Process().children()),
        **seen,
    }


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1337, help="of the moments of the signals")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()

    def say(text: str) -> None:
        print(text, flush=True)

    figures = run(given.cycles, given.kills, given.stops, given.seed, say)
    command = "python benchmarks/capture_recovery.py"
    write_json_atomic(given.json, {**figures, "run": run_record(command, sys.argv[1:], 1)})


if __name__ == "__main__":
    main()
