"""The live feed over its real sockets, as the dashboard and any other reader uses it."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from contract.faces import Image
from contract.telemetry import PREVIEW, TELEMETRY, FeedAddress, LiveUpdate, from_json
from edge.feed import LiveFeed
from edge.live_settings import LiveSettings
from firmware_config.profile import DashboardConfig, Profile
from tests.edge.results import SECOND, a_face, a_kpi, a_result

BOX = (250.0, 150.0, 120.0, 150.0)
INSIDE = np.s_[190:260, 265:355]
IMAGE: Image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
RAW_VIEW_S = 300.0


class Time:
    """A monotonic clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def address() -> Iterator[FeedAddress]:
    """A folder for sockets; pytest's own are too long for some."""
    with tempfile.TemporaryDirectory(prefix="fer-") as name:
        yield FeedAddress(Path(name))


def settings(clock: Time, preview_fps: float, raw_view_s: float = 1.0) -> LiveSettings:
    """What may change while it runs, of a profile that is never read again."""
    dashboard = DashboardConfig(preview_fps=preview_fps, raw_view_s=raw_view_s)
    profile = Profile(name="desk", dashboard=dashboard)
    return LiveSettings(profile, lambda: profile, clock)


@pytest.fixture
def feed(address: FeedAddress, clock: Time) -> Iterator[LiveFeed]:
    running = LiveFeed(address, settings=settings(clock, 60.0, RAW_VIEW_S), clock=clock).start()
    yield running
    running.close()


class Reader:
    """Sockets of somebody who reads the feed."""

    def __init__(self, address: FeedAddress) -> None:
        self._address = address
        self._context = zmq.Context()

    def listen(self, topic: bytes) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(self._address.live)
        return socket

    def ask(self, request: Any) -> dict[str, Any]:
        """The answer to a control request; bytes are sent as they are."""
        socket: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        socket.connect(self._address.control)
        socket.send(request if isinstance(request, bytes) else json.dumps(request).encode())
        assert socket.poll(5000), "no answer"
        answer: dict[str, Any] = json.loads(socket.recv())
        socket.close()
        return answer

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def reader(address: FeedAddress, feed: LiveFeed) -> Iterator[Reader]:
    one = Reader(address)
    yield one
    one.close()


def update(sequence: int = 0) -> LiveUpdate:
    return LiveUpdate(a_result(sequence, sequence * SECOND // 30, a_face(1, BOX)), a_kpi())


def received(
    feed: LiveFeed, socket: "zmq.Socket[bytes]", topic: bytes, clock: Time
) -> tuple[list[bytes], bytes]:
    """Updates are put until a message of `topic` comes: what came before it, and its payload."""
    others: list[bytes] = []
    for sequence in range(500):
        clock.now += 0.01
        feed.put(update(sequence), IMAGE)
        while socket.poll(10):
            message = socket.recv()
            if message[:1] == topic:
                return others, message[1:]
            others.append(message)
    raise AssertionError(f"no message of topic {topic!r} in 5 s")


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and not condition():
        time.sleep(0.01)
    return condition()


def test_telemetry_comes_out_as_it_went_in(feed: LiveFeed, reader: Reader, clock: Time) -> None:
    _, payload = received(feed, reader.listen(TELEMETRY), TELEMETRY, clock)
    got = from_json(payload)
    assert got.frame is not None
    assert got == update(got.frame.sequence)


def test_a_box_without_a_frame_still_says_how_it_is(
    feed: LiveFeed, reader: Reader, clock: Time
) -> None:
    socket = reader.listen(TELEMETRY)
    received(feed, socket, TELEMETRY, clock)
    said = LiveUpdate(None, a_kpi(camera="waiting", notes=("/dev/video0 is not there",)))
    feed.put(said, None)
    while True:
        assert socket.poll(5000)
        got = from_json(socket.recv()[1:])
        if got.frame is None:
            break
    assert got == said


def test_no_picture_is_made_unless_somebody_watches(
    feed: LiveFeed, reader: Reader, clock: Time
) -> None:
    everything = reader.listen(b"")  # gets previews too, if there are any, without asking for them
    others, _ = received(feed, everything, TELEMETRY, clock)
    for _ in range(10):
        before, _ = received(feed, everything, TELEMETRY, clock)
        others += before
    assert others == []

    watching = reader.listen(PREVIEW)
    before, jpeg = received(feed, everything, PREVIEW, clock)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == IMAGE.shape

    watching.close()

    def stopped() -> bool:
        return not any(m[:1] == PREVIEW for m in received(feed, everything, TELEMETRY, clock)[0])

    assert until(lambda: all(stopped() for _ in range(3)))


def shown_detail(feed: LiveFeed, socket: "zmq.Socket[bytes]", clock: Time) -> float:
    """The usual difference of neighbours in the face of a preview that is not an old one."""
    for _ in range(2):
        while socket.poll(0):
            socket.recv()
        _, jpeg = received(feed, socket, PREVIEW, clock)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return float(np.median(np.abs(np.diff(image[INSIDE].astype(int), axis=1))))


def test_the_raw_view_is_switched_on_and_turns_itself_off(
    feed: LiveFeed, reader: Reader, clock: Time
) -> None:
    watching = reader.listen(PREVIEW)
    assert shown_detail(feed, watching, clock) < 5
    answer = reader.ask({"set": {"raw_view": True}})
    assert answer["values"]["raw_view"] is True
    assert shown_detail(feed, watching, clock) > 30

    clock.now += RAW_VIEW_S - 30
    assert reader.ask({"get": "settings"})["values"]["raw_view"] is True
    clock.now += 31
    assert reader.ask({"get": "settings"})["values"]["raw_view"] is False
    assert shown_detail(feed, watching, clock) < 5

    # Asking for nothing in particular does not switch it on again; asking for it does.
    assert reader.ask({"set": {}})["values"]["raw_view"] is False
    assert reader.ask({"set": {"raw_view": True}})["values"]["raw_view"] is True
    assert reader.ask({"set": {"raw_view": False}})["values"]["raw_view"] is False
    assert shown_detail(feed, watching, clock) < 5


def test_settings_come_with_their_schema(reader: Reader) -> None:
    answer = reader.ask({"get": "settings"})
    assert answer["values"]["raw_view"] is False
    assert set(answer["values"]) == set(answer["schema"]["properties"])
    described = answer["schema"]["properties"]["raw_view"]
    assert described["type"] == "boolean" and described["title"] and described["description"]
    assert answer["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"set": {"raw_vieww": True}}, "did you mean 'raw_view'"),
        ({"set": {"raw_view": "yes"}}, "raw_view"),
        ({"set": {"raw_view": None}}, "raw_view"),
        ({"set": 5}, "form"),
        ({"set": ["raw_view"]}, "form"),
        ({"set": {}, "get": "settings"}, "send"),
        ({"get": "everything"}, "send"),
        ({}, "send"),
        ([], "send"),
        (None, "send"),
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_a_bad_request_is_answered_with_an_error_and_changes_nothing(
    reader: Reader, request_: Any, says: str
) -> None:
    answer = reader.ask(request_)
    assert list(answer) == ["error"]
    assert says in answer["error"] and "\n" not in answer["error"]
    assert reader.ask({"get": "settings"})["values"]["raw_view"] is False


def test_the_preview_is_not_faster_than_asked(address: FeedAddress, clock: Time) -> None:
    feed = LiveFeed(address, settings=settings(clock, 10.0), clock=clock).start()
    reader = Reader(address)
    try:
        everything = reader.listen(b"")
        watching = reader.listen(PREVIEW)
        received(feed, everything, PREVIEW, clock)
        pictures = frames = 0
        end = clock.now + 1.0
        while clock.now < end:  # 100 updates in the second the clock says passes
            pictures += sum(
                m[:1] == PREVIEW for m in received(feed, everything, TELEMETRY, clock)[0]
            )
            frames += 1
    finally:
        reader.close()
        feed.close()
    assert watching and 8 <= pictures <= 11 < frames


def test_closing_frees_the_sockets_at_once(address: FeedAddress, clock: Time) -> None:
    for _ in range(2):
        feed = LiveFeed(address, settings=settings(clock, 10.0), clock=clock).start()
        began = time.monotonic()
        feed.close()
        assert time.monotonic() - began < 1.0
