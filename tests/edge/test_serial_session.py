"""The box and a device talk, with time in hand: what each knows of the other, and when."""

import logging

import pytest

from contract.expressions import EXPRESSIONS, LOW_QUALITY, UNCERTAIN
from contract.telemetry import FaceResult
from edge.sinks.serial_session import SerialSession, faces_message
from firmware_config.serial_protocol import (
    Acknowledge,
    Brightness,
    Faces,
    FaceSeen,
    Heartbeat,
    Hello,
    Message,
    Query,
    Receiver,
    Result,
    Sender,
    Status,
    parse,
)
from firmware_config.simulated_mcu import SimulatedMcu
from tests.edge.results import a_face

HAPPY = Faces(1, (FaceSeen(1, "happy", 90, 1.5),))
SAD = Faces(1, (FaceSeen(1, "sad", 80, 0.0),))


class Line:
    """A box and a simulated device on one wire; time passes in steps of 10 ms."""

    def __init__(self, session: SerialSession) -> None:
        self.session, self.mcu, self.ms = session, SimulatedMcu(), 0
        self.said: list[tuple[int, Message]] = []
        self._ear = Receiver()
        self.cut = False
        session.opened(0.0)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.ms += 10
            out = self.session.due(self.ms / 1000)
            for frame in self._ear.feed(out):
                message = parse(frame)
                assert message is not None
                self.said.append((self.ms, message))
            self.mcu.receive(b"" if self.cut else out, self.ms)
            back = self.mcu.due(self.ms)
            self.session.receive(b"" if self.cut else back, self.ms / 1000)

    def told(self, kind: type[Message]) -> list[int]:
        """When messages of this kind were said, milliseconds."""
        return [ms for ms, message in self.said if isinstance(message, kind)]


def test_the_largest_faces_are_told_and_all_are_counted() -> None:
    faces = [a_face(k, (0, 0, 10.0 + k, 10)) for k in range(1, 10)]
    told = faces_message(faces)
    assert told.total == 9
    assert [face.track for face in told.faces] == [9, 8, 7, 6, 5, 4, 3]
    assert told.faces[0] == FaceSeen(9, "happy", 90, 1.5)


def test_every_label_a_face_can_show_can_be_told() -> None:
    faces: list[FaceResult] = [
        a_face(k, label=label) for k, label in enumerate((*EXPRESSIONS, UNCERTAIN, LOW_QUALITY))
    ]
    assert len(faces_message(faces[:7]).payload()) == 1 + 7 * 8
    assert len(faces_message(faces[7:]).payload()) == 1 + 2 * 8


def test_they_meet_at_once_and_the_device_knows_what_the_box_sees() -> None:
    line = Line(SerialSession("box", brightness=30))
    line.session.ready, line.session.faces = True, HAPPY
    line.run(0.1)
    assert line.session.connected and line.session.problem is None
    assert line.session.device == "simulated" and line.session.connections == 1
    assert line.mcu.connected and line.mcu.ready
    assert line.mcu.faces == HAPPY and line.mcu.brightness == 30


def test_without_a_brightness_in_the_profile_the_devices_own_stays() -> None:
    line = Line(SerialSession("box"))
    line.run(2)
    assert line.mcu.brightness == 100 and not line.told(Brightness)


def test_both_stay_connected_on_their_heartbeats_alone() -> None:
    line = Line(SerialSession("box"))
    line.run(20)
    assert line.session.connected and line.mcu.connected
    assert len(line.told(Heartbeat)) == pytest.approx(20, abs=1)
    assert len(line.told(Hello)) == 1
    assert isinstance(line.session.status, Status) and line.session.status.uptime_s >= 18
    assert (line.session.receiver.damaged, line.session.receiver.lost) == (0, 0)


def test_a_new_label_is_told_at_once_and_a_flood_is_kept_under_the_limit() -> None:
    line = Line(SerialSession("box", most_per_s=5))
    line.run(3)
    line.session.faces = HAPPY
    line.run(0.01)
    assert line.mcu.faces == HAPPY
    before = len(line.told(Faces))
    for k in range(500):  # a face whose confidence changes with every frame, at 100 per second
        line.session.faces = Faces(1, (FaceSeen(1, "happy", k % 101, 0.0),))
        line.run(0.01)
    assert len(line.told(Faces)) - before == pytest.approx(25, abs=1)
    line.session.faces = SAD
    line.run(0.2)
    assert line.mcu.faces == SAD, "the newest is told in the end, not the oldest"


def test_a_slow_line_is_never_filled_beyond_its_speed() -> None:
    """At 1200 baud seven faces take 67 bytes, or 0.56 s; half the line's time is theirs at most."""
    line = Line(SerialSession("box", most_per_s=100, baud=1200))
    for k in range(2000):
        line.session.faces = Faces(7, tuple(FaceSeen(j, "fear", k % 101, 0.0) for j in range(7)))
        line.run(0.01)
    assert 15 <= len(line.told(Faces)) <= 20


def test_what_is_in_view_is_told_again_every_second() -> None:
    line = Line(SerialSession("box"))
    line.session.faces = HAPPY
    line.run(10)
    assert len(line.told(Faces)) == pytest.approx(10, abs=1)


def test_a_device_that_falls_silent_is_disconnected_within_three_seconds() -> None:
    line = Line(SerialSession("box"))
    line.run(1.5)
    line.cut = True
    line.run(1.9)
    assert line.session.connected
    line.run(1.2)
    assert not line.session.connected and not line.mcu.connected
    assert line.session.problem is not None and "no device answers" in line.session.problem
    line.cut = False
    line.run(0.6)
    assert line.session.connected and line.mcu.connected and line.session.connections == 2


def test_the_device_forgets_who_was_in_view_when_the_box_falls_silent() -> None:
    line = Line(SerialSession("box"))
    line.session.ready, line.session.faces = True, HAPPY
    line.run(1)
    line.cut = True
    line.run(4.2)
    assert (line.mcu.faces, line.mcu.ready) == (Faces(0, ()), False)


def test_a_device_that_began_anew_is_told_everything_again() -> None:
    line = Line(SerialSession("box", brightness=30))
    line.session.ready, line.session.faces = True, HAPPY
    line.run(5)
    line.mcu.fault("restart", line.ms)
    line.run(0.1)
    assert line.session.connected and line.session.restarts == 1
    assert (line.mcu.faces, line.mcu.brightness, line.mcu.ready) == (HAPPY, 30, True)
    assert line.session.receiver.lost == 0


def test_a_command_that_got_lost_is_said_again_until_it_is_acknowledged() -> None:
    line = Line(SerialSession("box", brightness=30))
    line.mcu.fault("silent 1.2", line.ms)  # it hears, but its acknowledgements do not arrive
    line.run(0.5)
    assert not line.session.connected
    line.run(1.5)
    line.session.opened(line.ms / 1000)
    line.mcu.fault("drop 3", line.ms)
    line.run(3)
    assert len(line.told(Brightness)) >= 2
    before = len(line.told(Brightness))
    line.run(5)
    assert len(line.told(Brightness)) == before, "said no more once it was acknowledged"


def test_a_command_that_is_refused_is_said_in_the_log_and_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line(SerialSession("box", brightness=30))
    line.mcu.fault("refuse", 0)
    with caplog.at_level(logging.WARNING):
        line.run(5)
    assert len(line.told(Brightness)) == 1
    assert "simulated refuses brightness: BAD_VALUE" in caplog.text


def test_a_query_of_the_device_is_answered_with_who_is_in_view() -> None:
    line = Line(SerialSession("box"))
    line.session.faces = HAPPY
    line.run(0.5)
    before = len(line.told(Faces))
    line.mcu.query()
    line.run(0.05)
    assert len(line.told(Faces)) == before + 1


def test_a_query_of_the_box_is_answered_with_a_status() -> None:
    session = SerialSession("box")
    line = Line(session)
    line.run(0.5)
    session.status = None
    session.command(Query())
    line.run(0.05)
    assert session.status is not None


def test_a_device_of_another_version_is_not_connected_and_both_are_named() -> None:
    line = Line(SerialSession("box"))
    line.mcu.fault("version 2", 0)
    line.run(5)
    assert not line.session.connected and not line.mcu.connected
    assert line.session.problem is not None
    assert "speaks version 2 of the protocol and the box 1" in line.session.problem
    assert not line.session.hopeless(line.ms / 1000), "opening the port anew would not help"


def test_a_line_that_echoes_is_no_device() -> None:
    session = SerialSession("box")
    session.opened(0.0)
    for step in range(300):
        session.receive(session.due(step / 100), step / 100)
    assert not session.connected
    assert session.problem is not None and "echoes" in session.problem


def test_a_port_is_opened_anew_after_ten_silent_seconds_and_not_before() -> None:
    session = SerialSession("box")
    session.opened(100.0)
    assert not session.hopeless(109.9)
    assert session.hopeless(110.1)


def test_a_noisy_line_costs_messages_and_no_truth() -> None:
    line = Line(SerialSession("box"))
    for second in range(120):
        if second % 4 == 0:
            line.mcu.fault(("corrupt 1", "drop 1", "babble 40")[second // 4 % 3], line.ms)
        line.session.faces = (HAPPY, SAD)[second % 2]
        line.run(1)
        assert line.mcu.faces == line.session.faces
    assert line.session.connected
    assert line.session.connections == 1
    assert line.session.receiver.damaged >= 20 and line.session.receiver.lost >= 20


def test_at_the_end_the_device_is_told_that_nobody_is_there() -> None:
    line = Line(SerialSession("box"))
    line.session.ready, line.session.faces = True, HAPPY
    line.run(1)
    line.mcu.receive(line.session.last_words(), line.ms)
    assert (line.mcu.faces, line.mcu.ready) == (Faces(0, ()), False)
    assert SerialSession("box").last_words() == b"", "nobody there to tell"


def test_messages_that_only_the_box_says_mean_nothing_from_a_device() -> None:
    session, device = SerialSession("box"), Sender(from_device=True)
    session.opened(0.0)
    session.receive(device.encode(Heartbeat(True)) + device.encode(HAPPY), 0.0)
    session.receive(device.encode(Acknowledge(9, Result.DONE)), 0.0)
    assert not session.connected
