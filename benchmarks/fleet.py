"""A hundred boxes on one broker: what it costs, how late events come, and an outage of a minute.

    PYTHONPATH=. python benchmarks/fleet.py --json benchmarks/DATE-fleet.json

Each simulated box is the link that the program itself uses, fed with made-up results: so many
frames a second, one person whose label changes every few seconds, the state every ten seconds. The
broker is a real mosquitto on loopback, started for it. First all boxes connect at once; then events
flow for `--seconds`; then the broker is stopped, stays away for `--outage` seconds while events go
on, and comes back. A listener counts what it hears; the broker keeps its subscription over the
outage, so that it misses nothing that arrives before it is back itself.

`delivery_ms` is from the moment a result is handed to the link to the event in the listener's
hands. `recovered_s` is from the broker's return to the last box having nothing left to send.
"""

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic
from contract.telemetry import FaceResult, FrameResult, KpiSnapshot
from edge.kpi import percentiles
from edge.offline.record import run_record
from edge.sinks.mqtt import MqttLink
from firmware_config.mqtt_config import MqttConfig

SEVEN = (1 / 7,) * 7
GIVE_UP_S = 120.0


class Broker:
    """A mosquitto on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if found is None:
            raise SystemExit("needs mosquitto (apt-get install mosquitto)")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        file = folder / "broker.conf"
        file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._command = [found, "-c", str(file)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.watched = psutil.Process(self._process.pid)
        until_s = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit("mosquitto does not listen")

    def stop(self) -> None:
        """End it; it keeps subscriptions on disk."""
        self._process.terminate()
        self._process.wait()


class Ear:
    """Hears every event: which, and how long after it happened."""

    def __init__(self, port: int) -> None:
        self.heard: Counter[tuple[str, int]] = Counter()
        self.late_ms: list[float] = []
        self.happened_ns: dict[tuple[str, int], int] = {}
        self._ready = threading.Event()
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        self._client = Client(CallbackAPIVersion.VERSION2, "ear", protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self._client.subscribe("fer/+/track/+", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port, clean_start=False, properties=kept)
        self._client.loop_start()
        if not self._ready.wait(GIVE_UP_S):
            raise SystemExit("the broker does not answer")

    def _hear(self, _: Client, __: object, message: Any) -> None:
        now_ns = time.monotonic_ns()
        body = json.loads(message.payload)
        key = (body["box"], body["sequence"])
        self.heard[key] += 1
        self.late_ms.append((now_ns - self.happened_ns.get(key, now_ns)) / 1e6)

    def close(self) -> None:
        """Stop listening."""
        self._client.disconnect()
        self._client.loop_stop()


class Box:
    """A link and the made-up scene that feeds it."""

    def __init__(self, name: str, port: int, seed: int) -> None:
        self.name = name
        self.events = 0
        self._chance = random.Random(seed)
        self._label, self._change_s = EXPRESSIONS[0], 0.0
        self._frames = 0
        self.link = MqttLink(MqttConfig(host="127.0.0.1", port=port), box=name)

    def frame(self, now_s: float, every_s: float, ear: Ear) -> None:
        """One result; its label changes every `every_s` seconds or so."""
        if now_s >= self._change_s:
            self._change_s = now_s + self._chance.uniform(0.5, 1.5) * every_s
            self._label = self._chance.choice([e for e in EXPRESSIONS if e != self._label])
            self.events += 1  # the first is that somebody appears
            ear.happened_ns[self.name, self.events] = time.monotonic_ns()
        face = FaceResult(
            1, (100.0, 100.0, 80.0, 80.0), 0.9, SEVEN, SEVEN, self._label, self._label, 0.8, 1.0
        )
        self._frames += 1
        self.link.write(
            FrameResult(
                self._frames, time.monotonic_ns(), time.time_ns(), 640, 480, (face,), {}, 8.0, True
            )
        )

    def second(self) -> None:
        """What the loop says once a second."""
        self.link.measured(
            KpiSnapshot(
                float(self._frames), self._frames, 5.0, {"p99": 9.0}, {}, 1, 1.0, 2.0, {}, 20.0,
                200.0, "live", "demo", "yunet", "student", "openvino int8",
            )
        )  # fmt: skip


def drive(boxes: list[Box], for_s: float, fps: float, every_s: float, ear: Ear) -> None:
    """All boxes see frames for so long, at a steady rate and not all at the same moment."""
    began_s = time.monotonic()
    due = [(k / len(boxes) / fps, box) for k, box in enumerate(boxes)]
    seconds, turn = 0, 0
    while True:
        for offset_s, box in due:
            wait_s = began_s + turn / fps + offset_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            box.frame(time.monotonic(), every_s, ear)
        turn += 1
        passed_s = time.monotonic() - began_s
        if passed_s >= seconds:
            seconds += 1
            for box in boxes:
                box.second()
        if passed_s >= for_s:
            return


def settle(boxes: list[Box]) -> float:
    """Seconds until every box is connected and has nothing left to send."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < GIVE_UP_S:
        if all(box.link.problem is None and box.link.waiting == 0 for box in boxes):
            return time.monotonic() - began_s
        time.sleep(0.01)
    raise SystemExit("not every box came back: " + str({box.link.problem for box in boxes}))


def tally(boxes: list[Box], ear: Ear) -> dict[str, int]:
    """Events that happened, were heard, heard twice, lost by the queue, and missing."""
    time.sleep(1.0)  # what is on its way to the listener
    sent = {(box.name, number) for box in boxes for number in range(1, box.events + 1)}
    return {
        "events": len(sent),
        "heard": len(sent & set(ear.heard)),
        "heard_twice": sum(count > 1 for count in ear.heard.values()),
        "lost_by_queue": sum(box.link.lost for box in boxes),
    }


def run(
    count: int, seconds: float, outage_s: float, fps: float, every_s: float, seed: int
) -> dict[str, Any]:
    """All of it; the figures."""
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name))
        ear = Ear(broker.port)
        began_s = time.monotonic()
        boxes = [Box(f"box-{k:03}", broker.port, seed + k) for k in range(count)]
        settle(boxes)
        connected_s = time.monotonic() - began_s
        own = psutil.Process()
        cpu, own_cpu, began_s = broker.watched.cpu_times(), own.cpu_times(), time.monotonic()
        drive(boxes, seconds, fps, every_s, ear)
        wall_s = time.monotonic() - began_s
        cpu_later, own_later = broker.watched.cpu_times(), own.cpu_times()
        memory_mb = broker.watched.memory_info().rss / 2**20
        settle(boxes)
        steady, late_ms = tally(boxes, ear), ear.late_ms.copy()

        broker.stop()
        drive(boxes, outage_s, fps, every_s, ear)
        waiting = sum(box.link.waiting for box in boxes)
        broker.start()
        recovered_s = settle(boxes)
        whole = tally(boxes, ear)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda box: box.link.close(), boxes))
        ear.close()
        broker.stop()
    used_s = cpu_later.user + cpu_later.system - cpu.user - cpu.system
    own_s = own_later.user + own_later.system - own_cpu.user - own_cpu.system
    return {
        "boxes": count,
        "frames_per_s_and_box": fps,
        "seconds": seconds,
        "outage_s": outage_s,
        "connected_s": connected_s,
        "delivery_ms": {**percentiles(late_ms), "max": max(late_ms)},
        "steady": {**steady, "events_per_s": steady["events"] / wall_s},
        "broker": {"cpu_percent": 100 * used_s / wall_s, "rss_mb": memory_mb},
        "links_cpu_percent_per_box": 100 * own_s / wall_s / count,
        "outage": {**whole, "waiting_at_return": waiting, "recovered_s": recovered_s},
    }


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="of steady work")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without the broker")
    parser.add_argument("--fps", type=float, default=5.0, help="frames per second and box")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between label changes")
    parser.add_argument("--seed", type=int, default=1337, help="of when labels change")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    figures = run(given.boxes, given.seconds, given.outage, given.fps, given.every, given.seed)
    for key, value in figures.items():
        print(f"{key}: {value}")
    command = "python benchmarks/fleet.py"
    write_json_atomic(given.json, {**figures, "run": run_record(command, sys.argv[1:], 1)})


if __name__ == "__main__":
    main()
