"""The log off the frame path: a stuck disk delays nothing, and what it costs is counted."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from contract.telemetry import FrameResult
from edge.offline.session_log import read_session
from edge.sinks import session_thread
from edge.sinks.session_csv import SessionLog
from edge.sinks.session_thread import BackgroundLog
from tests.edge.results import a_face, a_result


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_thread, "PAUSE_S", 0.01)


class Stuck(SessionLog):
    """A log on a disk that takes nothing until it is let go."""

    def __init__(self, file: Path, header: dict[str, Any]) -> None:
        super().__init__(file, header)
        self.begun, self.free = threading.Event(), threading.Event()

    def write(self, result: FrameResult) -> None:
        self.begun.set()
        self.free.wait(30)
        super().write(result)


def test_a_change_of_the_settings_stands_between_the_results_it_came_between(
    tmp_path: Path,
) -> None:
    session = Stuck(tmp_path / "session.csv", {"smoothing": 1})
    log = BackgroundLog(session)
    for k in range(3):
        log.write(a_result(k, k, a_face()))
    log.change({"smoothing": 2})
    for k in range(3, 5):
        log.write(a_result(k, k, a_face()))
    session.free.set()
    log.close()
    for name, smoothing, expected in (
        ("session.csv", 1, [0, 1, 2]), ("session.part2.csv", 2, [3, 4]),
    ):  # fmt: skip
        part = read_session(tmp_path / name)
        assert part.header["smoothing"] == smoothing
        assert [frame.sequence for frame in part.frames] == expected


def test_every_result_is_in_the_file_after_the_end(tmp_path: Path) -> None:
    log = BackgroundLog(SessionLog(tmp_path / "session.csv", {}))
    for k in range(300):
        log.write(a_result(k, k, a_face()))
    log.close()
    assert log.problem is None and log.lost == 0
    frames = read_session(tmp_path / "session.csv").frames
    assert [frame.sequence for frame in frames] == list(range(300))


def test_a_stuck_disk_loses_what_does_not_fit_and_says_so(tmp_path: Path) -> None:
    disk = Stuck(tmp_path / "session.csv", {})
    log = BackgroundLog(disk, most_waiting=5)
    log.write(a_result(0, 0, a_face(1)))
    assert disk.begun.wait(10)
    began = time.monotonic()
    for k in range(1, 20):
        log.write(a_result(k, k, a_face(1 if k < 10 else 2)))
    assert time.monotonic() - began < 5, "writing did not wait for the disk"
    assert log.problem == "session log: the disk is too slow, 14 frames not logged"
    assert log.lost == 14
    disk.free.set()
    deadline = time.monotonic() + 10
    while log.problem and time.monotonic() < deadline:
        time.sleep(0.01)
    log.write(a_result(20, 20, a_face(1), a_face(2), a_face(3)))
    log.close()
    assert log.problem is None and log.lost == 14
    frames = read_session(tmp_path / "session.csv").frames
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4, 5, 20]
    assert [face.whole for frame in frames[:-1] for face in frame.faces] == [True] * 6
    # Two faces were there while frames were lost; the third came later.
    assert [face.whole for face in frames[-1].faces] == [False, False, True]


def test_a_disk_that_is_stuck_for_good_does_not_hold_the_end_up(tmp_path: Path) -> None:
    disk = Stuck(tmp_path / "session.csv", {})
    log = BackgroundLog(disk, close_s=0.05)
    log.write(a_result(0, 0, a_face()))
    assert disk.begun.wait(10)
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < 5
    disk.free.set()
