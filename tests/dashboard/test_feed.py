"""The feed as read over real sockets, and what is kept of it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from contract.telemetry import TELEMETRY, FeedAddress
from dashboard.control import TIMEOUT_S, ControlError, ask
from dashboard.feed import Feed, Latest
from dashboard.history import SPAN_S, History
from dashboard.streams import StreamSlots, events, mjpeg
from tests.dashboard.fake_edge import FakeEdge, fake_edge, make_kpi
from tests.dashboard.processes import until


@pytest.fixture
def feed(edge: FakeEdge) -> Iterator[Feed]:
    feed = Feed(edge.address)
    feed.start()
    yield feed
    feed.close()
    edge.speaking = edge.answering = True


def never() -> bool:
    return False


def test_telemetry_arrives_and_its_age_grows_when_the_box_falls_silent(
    edge: FakeEdge, feed: Feed
) -> None:
    assert feed.age_s() is None
    assert until(lambda: feed.telemetry.get() is not None)
    reading = feed.telemetry.get()
    assert reading is not None
    assert [face.track for face in reading.update.frame.faces] == [1, 4]  # type: ignore[union-attr]
    edge.speaking = False
    assert until(lambda: (feed.age_s() or 0) > 0.4)
    edge.speaking = True
    assert until(lambda: (feed.age_s() or 9) < 0.2)


def test_the_box_encodes_pictures_only_while_somebody_looks(edge: FakeEdge, feed: Feed) -> None:
    assert until(lambda: feed.telemetry.get() is not None)
    assert not edge.previewing
    with feed.viewing(), feed.viewing():
        assert until(lambda: feed.preview.get() is not None)
        jpeg = feed.preview.get()
        assert jpeg is not None
        assert jpeg.startswith(b"\xff\xd8")
    assert until(lambda: not edge.previewing)
    # A raw picture must not wait here for the next viewer.
    assert until(lambda: feed.preview.get() is None)
    with feed.viewing():
        assert until(lambda: feed.preview.get() is not None)


def test_what_is_not_telemetry_is_counted_and_survived(folder: Path) -> None:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
    socket.setsockopt(zmq.LINGER, 0)
    broken = folder / "broken"
    broken.mkdir()
    feed = Feed(FeedAddress(broken))
    socket.bind(feed.address.live)
    feed.start()
    try:
        for payload in (b"", b"{", b"[]", b'{"schema":99}', b'{"schema":1,"frame":[],"kpi":{}}'):
            before = feed.unreadable

            def sent_and_counted(payload: bytes = payload, before: int = before) -> bool:
                socket.send(TELEMETRY + payload)
                return feed.unreadable > before

            assert until(sent_and_counted), payload
        assert feed.telemetry.get() is None
    finally:
        socket.close()
        feed.close()


def test_control_answers_and_passes_a_refusal_on(edge: FakeEdge) -> None:
    assert ask(edge.address, {"get": "settings"})["values"]["raw_view"] is False
    assert ask(edge.address, {"set": {"tau_s": 0.8}})["values"]["tau_s"] == 0.8
    assert "nonsense" in ask(edge.address, {"set": {"nonsense": 1}})["error"]


def test_control_gives_up_on_a_silent_box_and_recovers_with_it(edge: FakeEdge) -> None:
    edge.answering = False
    began = time.monotonic()
    with pytest.raises(ControlError, match="did not answer"):
        ask(edge.address, {"get": "settings"})
    assert time.monotonic() - began < TIMEOUT_S + 0.5
    edge.answering = True
    assert "values" in ask(edge.address, {"get": "settings"})


def test_a_reader_gets_the_newest_value_only() -> None:
    latest: Latest[str] = Latest()
    assert latest.wait(0, 0.01) == (0, None)
    for value in "abc":
        latest.put(value)
    number, value_now = latest.wait(0, 1)
    assert value_now == "c"
    assert latest.wait(number, 0.01) == (number, None)


def test_closing_wakes_a_waiting_reader_at_once() -> None:
    latest: Latest[str] = Latest()
    woken: list[tuple[int, str | None]] = []
    reader = threading.Thread(target=lambda: woken.append(latest.wait(0, 60)))
    reader.start()
    latest.close()
    reader.join(2)
    assert woken == [(0, None)]


def test_history_keeps_a_point_a_second_for_five_minutes() -> None:
    history = History()
    for tick in range(10 * 1000):
        history.add(make_kpi(tick / 10, fps=tick / 10), tick / 10)
    points = history.points(1000.0)
    assert len(points) == SPAN_S
    assert points[-1]["fps"] == 999
    assert points[-1]["age_s"] == 1
    assert points[0]["age_s"] == SPAN_S
    assert len(history.points(1200.0)) == 100


def test_history_has_no_percentile_before_the_box_has_one() -> None:
    history = History()
    history.add(make_kpi(1, e2e_ms={}), 1.0)
    assert history.points(1.0)[0]["e2e_p95_ms"] is None


def test_slots_are_limited_and_reusable() -> None:
    slots = StreamSlots(2)
    assert [slots.take() for _ in range(3)] == [True, True, False]
    slots.release()
    assert slots.take()


def test_events_carry_updates_then_silence(edge: FakeEdge, feed: Feed) -> None:
    stream = events(feed, never)
    assert next(stream) == b"retry: 1000\n\n"
    assert until(lambda: feed.telemetry.get() is not None)
    began = time.monotonic()
    received = [next(stream) for _ in range(6)]
    assert all(event.startswith(b"event: update\ndata: {") for event in received)
    assert time.monotonic() - began > 0.45  # Ten a second, though the box sends twenty.
    edge.speaking = False
    assert until(lambda: next(stream).startswith(b": heartbeat\nevent: silence\n"))


def test_streams_end_when_the_client_is_gone_or_the_feed_stops(feed: Feed) -> None:
    assert list(events(feed, lambda: True)) == [b"retry: 1000\n\n"]
    assert list(mjpeg(feed, lambda: True)) == [b"--frame\r\n"]
    stream = mjpeg(feed, never)
    next(stream)
    assert next(stream).startswith(b"Content-Type: image/jpeg\r\nContent-Length: ")
    feed.stop()
    assert list(stream) == []


def test_a_box_that_comes_later_or_again_is_found(folder: Path) -> None:
    later = folder / "later"
    later.mkdir()
    feed = Feed(FeedAddress(later))
    feed.start()
    try:
        for _ in range(2):
            with fake_edge(later):
                assert until(lambda: (feed.age_s() or 9) < 0.2)
            assert until(lambda: (feed.age_s() or 0) > 0.3)
    finally:
        feed.close()
