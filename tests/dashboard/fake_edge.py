"""A small stand-in for fer-edge on the far side of the live feed: real sockets, made-up people."""

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zmq

from contract.expressions import EXPRESSIONS, UNCERTAIN
from contract.telemetry import (
    PREVIEW,
    TELEMETRY,
    Check,
    FaceResult,
    FeedAddress,
    FrameResult,
    KpiSnapshot,
    LiveUpdate,
    to_json,
)

WIDTH, HEIGHT = 640, 480
FPS = 20
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "raw_view": {"type": "boolean", "default": False, "description": "Show faces as they are."},
        "tau_s": {"type": "number", "minimum": 0, "default": 0.5, "description": "Smoothing."},
        "smoothing.preset": {
            "enum": ["custom", "calm"],
            "type": "string",
            "title": "Preset",
            "description": "Fills what is not set.",
        },
        "smoothing.hold_s": {
            "type": "number",
            "minimum": 0,
            "exclusiveMaximum": 10,
            "title": "Least time of a label",
            "description": "A label stays this long.",
            "unit": "s",
        },
        "smoothing.abstain_threshold": {
            "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}],
            "title": "Threshold for 'uncertain'",
            "description": "In place of the bundle's own.",
        },
        "quality.enabled": {
            "type": "boolean",
            "title": "Judge quality",
            "description": "Of faces, at all.",
        },
    },
}
VALUES: dict[str, Any] = {
    "raw_view": False,
    "tau_s": 0.5,
    "smoothing.preset": "custom",
    "smoothing.hold_s": 0.0,
    "smoothing.abstain_threshold": None,
    "quality.enabled": True,
}
CHECKS = (
    Check("camera", True, "live, 30 frames a second"),
    Check("model", True, "a student, int8 on openvino; its golden check passed"),
    Check("detector", False, "Haar stands in: YuNet's file was not found", critical=False),
)
MODEL = {
    "name": "mobilenetv3_large_100",
    "sha256": "3f9a1c27" * 8,
    "artifact": "student_int8.xml",
    "precision": "int8",
    "backend": "openvino",
    "latency_ms": 3.21,
    "provenance": {"commit": "c0ffee", "phase": "student_kd", "seed": 1337},
    "metrics": {"val": {"protocol": "argmax", "n": 12, "accuracy": 0.75, "macro_f1": 0.5}},
    "card": "# A card\n\nFor *people*: <b>not bold</b>, `code`.\n\n- one\n- two\n\n"
    "| metric | value |\n| --- | ---: |\n| accuracy | 0.7500 |\n",
}
# Moods of the two people: expression indices they go through, seconds each lasts.
MOODS = {1: ((3, 6, 5), 9.0), 4: ((6, 4, 6, 3), 7.0)}


def make_face(track: int, t: float) -> FaceResult:
    """A person at `t` seconds: moving about, and changing their mind every few seconds."""
    order, lasts = MOODS.get(track, ((6, 3), 8.0))
    turn, into = divmod(t + track, lasts)
    top = order[int(turn) % len(order)]
    weights = np.full(7, 0.03) + 0.015 * np.sin(t * 1.3 + np.arange(7) + track)
    certainty = 0.35 + 0.6 * (1 - math.exp(-into / 0.8))
    weights[top] += certainty
    weights[(top + 3) % 7] += 0.25 * (1 - certainty)
    smoothed = weights / weights.sum()
    best = int(smoothed.argmax())
    confidence = float(smoothed[best])
    x = 100 + 250 * (track % 2 == 0) + 40 * math.sin(t / 3 + track)
    y = 130 + 20 * math.cos(t / 2 + track)
    return FaceResult(
        track=track,
        box=(x, y, 130.0, 165.0),
        detector_score=0.93,
        probabilities=tuple(float(p) for p in smoothed),
        smoothed=tuple(float(p) for p in smoothed),
        top=EXPRESSIONS[best],
        label=EXPRESSIONS[best] if confidence > 0.55 else UNCERTAIN,
        confidence=confidence,
        held_s=into,
    )


def make_kpi(t: float, frames: int = 100, **changes: Any) -> KpiSnapshot:
    """KPIs at `t` seconds of uptime; `changes` replace fields."""
    p95 = 13.5 + 2.2 * math.sin(t / 17) + 0.9 * math.sin(t * 1.7)
    values: dict[str, Any] = {
        "uptime_s": t,
        "frames": frames,
        "fps": 29.6 + 0.8 * math.sin(t / 11) + 0.3 * math.sin(t * 2.1),
        "e2e_ms": {"p50": p95 * 0.7, "p95": p95, "p99": p95 * 1.2},
        "stages_ms": {"detect": {"p50": 4.1, "p95": 5.0, "p99": 6.2}},
        "faces": 2,
        "face_rate": 0.99,
        "flips_per_minute": 2.4,
        "drops": {"busy": 3, "unreadable": 0},
        "cpu_percent": 62 + 14 * math.sin(t / 29) + 5 * math.sin(t),
        "rss_mb": 312.4,
        "camera": "live",
        "source": "demo",
        "detector": "yunet",
        "model": "mobilenetv3_large_100 · 3f9a1c27",
        "backend": "openvino int8",
        "temperature_c": 51 + 3 * math.sin(t / 40),
        "checks": CHECKS,
        "notice": "A camera films this place, and an AI system estimates facial expressions.",
    }
    return KpiSnapshot(**{**values, **changes})


def _fits(value: Any, now: Any) -> bool:
    if isinstance(now, bool) or isinstance(value, bool) or isinstance(now, str):
        return type(value) is type(now)
    return value is None or (isinstance(value, int | float) and value >= 0)


class FakeEdge:
    """Publishes telemetry for two people, previews on demand, and answers control requests.

    Attributes may be set while it runs: `people` (track ids in view), `kpi_changes` (fields of the
    KPIs to replace), `speaking` (False: no telemetry), `answering` (False: control requests are
    left without an answer).
    """

    def __init__(self, folder: Path) -> None:
        self.address = FeedAddress(folder)
        self.people = [1, 4]
        self.kpi_changes: dict[str, Any] = {}
        self.speaking = True
        self.answering = True
        self.previewing = False
        self.previews_sent = 0
        self.values: dict[str, Any] = dict(VALUES)
        self.corrections: list[dict[str, Any]] = []
        self.restart: list[str] = []
        self.started_s = time.monotonic() - 400
        self.frames = 12_000
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._publish, daemon=True),
            threading.Thread(target=self._control, daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def update(self, t: float) -> LiveUpdate:
        """What is published at `t` seconds of uptime."""
        self.frames += 1
        faces = tuple(make_face(track, t) for track in self.people)
        frame = FrameResult(
            sequence=self.frames,
            mono_ns=time.monotonic_ns(),
            utc_ns=time.time_ns(),
            width=WIDTH,
            height=HEIGHT,
            faces=faces,
            stages_ms={"detect": 4.2, "track": 0.1, "classify": 5.1, "smooth": 0.1},
            e2e_ms=10.4,
            detected=True,
        )
        return LiveUpdate(
            frame, make_kpi(t, self.frames, **{"faces": len(faces), **self.kpi_changes})
        )

    def _publish(self) -> None:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(self.address.live)
        while not self._stop.wait(1 / FPS):
            while socket.poll(0):
                message = socket.recv()
                if message[1:] == PREVIEW:
                    self.previewing = message[:1] == b"\x01"
            if not self.speaking:
                continue
            update = self.update(time.monotonic() - self.started_s)
            socket.send(TELEMETRY + to_json(update))
            if self.previewing:
                socket.send(PREVIEW + self.picture(update))
                self.previews_sent += 1
        socket.close()

    def picture(self, update: LiveUpdate) -> bytes:
        """A JPEG of a room with people in it, boxes drawn, faces pixelated unless raw."""
        assert update.frame is not None
        across = np.linspace(70, 150, WIDTH)[None, :] + np.linspace(20, -40, HEIGHT)[:, None]
        image = np.stack([across + 10, across, across - 12], axis=2).clip(0, 255).astype(np.uint8)
        for face in update.frame.faces:
            x, y, w, h = (round(v) for v in face.box)
            centre = (x + w // 2, y + h // 2)
            cv2.ellipse(image, (centre[0], y + h + 130), (115, 140), 0, 0, 360, (96, 84, 66), -1)
            cv2.ellipse(image, centre, (w // 2 - 8, h // 2 - 4), 0, 0, 360, (150, 175, 215), -1)
            for side in (-1, 1):
                cv2.circle(image, (centre[0] + side * 26, centre[1] - 18), 7, (40, 45, 60), -1)
            cv2.ellipse(image, (centre[0], centre[1] + 34), (26, 13), 0, 0, 180, (60, 60, 150), 4)
            if not self.values["raw_view"]:
                small = cv2.resize(image[y : y + h, x : x + w], (9, 11), None, 0, 0, cv2.INTER_AREA)
                image[y : y + h, x : x + w] = cv2.resize(
                    small, (w, h), None, 0, 0, cv2.INTER_NEAREST
                )
            cv2.rectangle(image, (x, y), (x + w, y + h), (193, 209, 79), 2)
            text = f"{face.track}: {face.label} {face.confidence:.0%}"
            cv2.putText(
                image, text, (x, y - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (240, 245, 240), 1,
                cv2.LINE_AA,
            )  # fmt: skip
        return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a control request, as `contract/telemetry.py` says."""
        if request == {"get": "model"}:
            return MODEL
        if "correct" in request:
            if request["correct"]["track"] not in self.people:
                return {"error": "that person was not in view then; correct it sooner"}
            self.corrections.append(request["correct"])
            track, expression = request["correct"]["track"], request["correct"]["expression"]
            said = {"track": track, "shown": "neutral", "expression": expression, "seconds": 1.5}
            return {"corrected": said}
        for key, value in request.get("set", {}).items():
            if key not in self.values:
                return {"error": f"unknown setting '{key}'"}
            if not _fits(value, self.values[key]):
                return {"error": f"{key}: {value!r} is not of the right type"}
            self.values[key] = value
        return {"schema": SCHEMA, "values": self.values, "restart": self.restart}

    def _control(self) -> None:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(self.address.control)
        while not self._stop.is_set():
            if socket.poll(50):
                *route, request = socket.recv_multipart()
                if self.answering:
                    reply = json.dumps(self.answer(json.loads(request))).encode()
                    socket.send_multipart([*route, reply])
        socket.close()


@contextmanager
def fake_edge(folder: Path) -> Iterator[FakeEdge]:
    """A running fake edge with its sockets in `folder`."""
    edge = FakeEdge(folder)
    edge.start()
    try:
        yield edge
    finally:
        edge.close()
