"""What the serial link withstands, and how soon it is back after a replug.

    PYTHONPATH=. python benchmarks/serial_link.py --json benchmarks/DATE-serial-link.json

- `random`: random bytes into the receiver; a frame out of them would be one that nobody sent.
- `bad_line`: frames over a line that flips bits, loses bytes and inserts others; what comes out is
  compared with what was sent.
- `flips`: every single-bit flip of every one of many frames, in C as in Python (which takes a part
  of the frames, as it is slower); `passed` counts flipped frames that were taken for whole.
- `agreement`: random frames encoded and decoded by Python and by the firmware's C code.
- `replug_s`: a simulated device on a pseudo-terminal is unplugged and plugged in again at random
  moments; from the moment its port is there again to the link's being connected.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from contract.files import write_json_atomic
from edge.kpi import percentiles
from edge.offline.record import run_record
from edge.sinks.serial_link import SerialLink
from firmware_config.serial_config import SerialConfig
from firmware_config.serial_protocol import MAX_PAYLOAD, Frame, Receiver, encode
from firmware_config.simulated_mcu import PtyMcu
from tests.firmware_config.mcu_program import McuProgram, build

CHUNK = 4096
FAULT_RATE = 0.001
"""Of each kind, per byte of the bad line."""
LIMIT_S = 30.0


def random_frames(count: int, chance: random.Random) -> list[Frame]:
    """Frames of every length, half of them mostly zeros."""
    frames = []
    for number in range(count):
        payload = bytearray(chance.randbytes(chance.randint(0, MAX_PAYLOAD)))
        if chance.random() < 0.5:
            for place in range(len(payload)):
                payload[place] *= chance.random() < 0.3
        frames.append(Frame(chance.randrange(256), number & 0xFFFF, bytes(payload)))
    return frames


def noise(total: int, chance: random.Random) -> dict[str, Any]:
    """Random bytes; memory of the receiver is watched too."""
    receiver, delivered, fed, most_kept = Receiver(), 0, 0, 0
    while fed < total:
        chunk = chance.randbytes(min(CHUNK, total - fed))
        delivered += len(receiver.feed(chunk))
        fed += len(chunk)
        most_kept = max(most_kept, len(receiver._rest))
    return {
        "bytes": fed, "frames_delivered": delivered, "damaged": receiver.damaged,
        "most_bytes_kept": most_kept,
    }  # fmt: skip


def bad_line(frames: list[Frame], chance: random.Random) -> dict[str, Any]:
    """Flips, losses and insertions, each at `FAULT_RATE`."""
    receiver, found, sent = Receiver(), 0, set(frames)
    faults = wrong = 0
    for frame in frames:
        line = bytearray()
        for byte in encode(frame):
            fate = chance.random() / FAULT_RATE
            faults += fate < 3
            if fate < 1:
                line.append(byte ^ 1 << chance.randrange(8))
            elif fate < 2:
                line += bytes([byte, chance.randrange(256)])
            elif fate >= 3:
                line.append(byte)
        for one in receiver.feed(bytes(line)):
            found += 1
            wrong += one not in sent
    return {
        "frames_sent": len(frames), "faults": faults, "frames_delivered": found,
        "never_sent": wrong, "damaged": receiver.damaged,
    }  # fmt: skip


def flips(
    program: McuProgram, frames: list[Frame], in_python: int, chance: random.Random
) -> dict[str, Any]:
    """Every single-bit flip, of all frames in C and of some in Python."""
    tried, passed = program.flips_passed(map(encode, frames))
    python_tried = python_passed = 0
    for frame in chance.sample(frames, min(in_python, len(frames))):
        encoded = encode(frame)
        for bit in range(8 * len(encoded)):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            python_tried += 1
            python_passed += len(Receiver().feed(bytes(flipped) + b"\0"))
    return {
        "frames": len(frames), "c": {"flips": tried, "passed": passed},
        "python": {"flips": python_tried, "passed": python_passed},
    }  # fmt: skip


def agreement(program: McuProgram, frames: list[Frame]) -> dict[str, Any]:
    """Frames that C and Python do not encode, or decode, alike."""
    mine = [encode(frame) for frame in frames]
    encoded_otherwise = sum(a != b for a, b in zip(program.encode(frames), mine, strict=True))
    theirs, _, _ = program.decode(mine)
    decoded_otherwise = sum(a != b for a, b in zip(theirs, frames, strict=True))
    return {
        "frames": len(frames), "encoded_otherwise": encoded_otherwise,
        "decoded_otherwise": decoded_otherwise,
    }  # fmt: skip


def wait(condition: Callable[[], bool], what: str) -> float:
    """Seconds until it is so; ends the program if that takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > LIMIT_S:
            raise SystemExit(f"{what}: not within {LIMIT_S:g} s")
        time.sleep(0.001)
    return time.monotonic() - began


def replugs(times: int, chance: random.Random, folder: Path) -> dict[str, Any]:
    """Unplug and replug; open files and threads are counted before and after."""
    device = PtyMcu(folder / "mcu")
    link = SerialLink(SerialConfig(port=str(device.link)), "box")
    own, took, noticed = psutil.Process(), [], []
    try:
        wait(lambda: link.problem is None, "the first connection")
        before = {"open_files": own.num_fds(), "threads": own.num_threads()}
        for _ in range(times):
            time.sleep(chance.uniform(0.0, 0.3))
            device.unplug()
            noticed.append(wait(lambda: link.problem is not None, "noticing"))
            time.sleep(chance.uniform(0.0, 0.5))
            device.plug_in()
            took.append(wait(lambda: link.problem is None, "reconnecting"))
        after = {"open_files": own.num_fds(), "threads": own.num_threads()}
    finally:
        link.close()
        device.close()
    return {
        "replugs": times,
        "noticed_s": {**percentiles(noticed), "max": max(noticed)},
        "replug_s": {**percentiles(took), "max": max(took)},
        "footprint": {"before": before, "after": after},
    }


def run(given: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it; a line to `say` after each part."""
    chance, figures = random.Random(given.seed), {}
    with tempfile.TemporaryDirectory() as name:
        program = build(Path(name))
        frames = random_frames(given.frames, chance)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "random": lambda: noise(given.bytes, chance),
            "bad_line": lambda: bad_line(frames, chance),
            "flips": lambda: flips(program, frames, given.frames // 20, chance),
            "agreement": lambda: agreement(program, frames),
            "replug": lambda: replugs(given.replugs, chance, Path(name)),
        }
        for part, measure in parts.items():
            began = time.monotonic()
            figures[part] = measure()
            say(f"{part} ({time.monotonic() - began:.0f} s): {figures[part]}")
    return figures


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=10_000_000, help="random ones")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--replugs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    logging.disable()  # the link would tell of every replug
    figures = run(given, lambda line: print(line, flush=True))
    command = "python benchmarks/serial_link.py"
    write_json_atomic(given.json, {**figures, "run": run_record(command, sys.argv[1:], 1)})


if __name__ == "__main__":
    main()
