"""The live feed: telemetry and previews to whoever listens, settings back.

One thread owns the sockets and the encoding, so a viewer costs the pipeline nothing but the
hand-over of its newest result. The protocol is described in `contract/telemetry.py`.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from contract.errors import UserError
from contract.faces import Image
from contract.telemetry import PREVIEW, TELEMETRY, FeedAddress, FrameResult, LiveUpdate, to_json
from edge.corrections import Corrections
from edge.live_settings import LiveSettings
from edge.preview import Preview

log = logging.getLogger(__name__)


class LiveFeed:
    """Publishes the newest update and, while watched, previews; answers control requests."""

    def __init__(
        self,
        address: FeedAddress,
        *,
        settings: LiveSettings,
        model: dict[str, Any] | None = None,
        corrections: Corrections | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model` is told to who asks for it; without `corrections` none are taken."""
        self._address, self._clock = address, clock
        self._model, self._corrections = model or {}, corrections
        self._settings = settings
        self._preview = Preview()
        self._watched = False
        self._fresh = threading.Event()
        self._newest: tuple[LiveUpdate, Image | None] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> "LiveFeed":
        """Bind the sockets and begin; returns itself."""
        self._live = self._context.socket(zmq.XPUB)
        self._live.setsockopt(zmq.SNDHWM, 4)
        self._live.setsockopt(zmq.LINGER, 0)
        self._live.bind(self._address.live)
        self._control = self._context.socket(zmq.REP)
        self._control.setsockopt(zmq.LINGER, 0)
        self._control.bind(self._address.control)
        self._thread.start()
        return self

    def put(self, update: LiveUpdate, image: Image | None) -> None:
        """Hand over a result and, for previews, its frame (which must not be changed any more)."""
        with self._lock:
            if update.frame is not None:
                self._preview.note(update.frame)  # every frame, also those that are not published
                if self._corrections is not None:
                    self._corrections.note(update.frame)
            self._newest = (update, image)
        self._fresh.set()

    def close(self) -> None:
        """Stop the thread and release the sockets."""
        self._stop.set()
        self._fresh.set()
        self._thread.join(2.0)
        self._context.destroy(linger=0)

    def answer(self, request: bytes) -> dict[str, Any]:
        """The answer to a control request, as the protocol says."""
        try:
            message = json.loads(request)
            if message == {"get": "settings"}:
                return self._state()
            if message == {"get": "model"}:
                return self._model
            if isinstance(message, dict) and set(message) == {"correct"}:
                return self._correct(message["correct"])
            if message == {"reload": True}:
                self._settings.reload()
            elif isinstance(message, dict) and set(message) == {"set"}:
                self._settings.change(dict(message["set"]))
            else:
                return {
                    "error": 'send {"get": "settings"}, {"get": "model"}, {"set": {"key": value}}, '
                    '{"reload": true} or {"correct": {…}}'
                }
        except UserError as error:
            return {"error": str(error)}
        except (ValueError, TypeError, RecursionError):
            return {"error": "the request is not JSON of the expected form"}
        return self._state()

    def _correct(self, wanted: Any) -> dict[str, Any]:
        if self._corrections is None:
            return {"error": "no session log is written, so there is nothing to correct"}
        return self._corrections.answer(wanted)

    def _state(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "schema": settings.schema(),
            "values": settings.values(),
            "restart": list(settings.restart),
        }

    def _serve_control(self) -> None:
        while self._control.poll(0):
            reply = self.answer(self._control.recv())
            self._control.send(json.dumps(reply).encode())

    def _note_subscribers(self) -> None:
        while self._live.poll(0):
            event = self._live.recv()
            if event[1:] == PREVIEW:
                self._watched = event[0] == 1

    def _publish_preview(self, frame: FrameResult, image: Image) -> None:
        jpeg = self._preview.draw(image, frame, raw=self._settings.raw_view)
        self._live.send(PREVIEW + jpeg)

    def _run(self) -> None:
        next_preview = 0.0
        while not self._stop.is_set():
            # Control and subscriptions are looked at twenty times a second even without frames.
            self._fresh.wait(0.05)
            self._fresh.clear()
            self._serve_control()
            self._note_subscribers()
            with self._lock:
                newest, self._newest = self._newest, None
            if newest is None:
                continue
            update, image = newest
            self._live.send(TELEMETRY + to_json(update))
            now = self._clock()
            if self._watched and image is not None and update.frame and now >= next_preview:
                self._publish_preview(update.frame, image)
                next_preview = now + 1 / self._settings.profile.dashboard.preview_fps
