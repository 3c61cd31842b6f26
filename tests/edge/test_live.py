"""The loop lives through faults of single frames, and says so."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Image
from contract.telemetry import FrameResult, LiveUpdate
from edge import live
from edge.cameras.base import Frame
from edge.capture import Capture
from edge.feed import LiveFeed
from edge.labels import settings_from
from edge.live import LiveRun, reload_on_hang_up
from edge.live_settings import LiveSettings
from edge.notify import Notifier
from edge.setup import Engine
from edge.sinks.session_csv import SessionLog
from firmware_config.profile import Profile, QualityConfig, SmoothingConfig
from tests.edge.results import SECOND, a_face, a_result
from tests.edge.test_session_csv import read

PROFILE = Profile(name="desk")
IMAGE: Image = np.zeros((48, 64, 3), np.uint8)


class Recorded:
    """A capture of ten frames, then the end."""

    state, reason, drops, events = "live", "", dict[str, int](), dict[str, int]()
    notes = ("cam gave 15 frames a second, not 30",)
    supervised = True

    def __init__(self) -> None:
        self.left = 10

    def get(self, timeout_s: float) -> Frame | None:
        if not self.left:
            self.state = "ended"
            return None
        self.left -= 1
        return Frame(IMAGE, (10 - self.left) * SECOND, 0, 9 - self.left)


class Kept:
    """A feed that keeps what it is given."""

    def __init__(self) -> None:
        self.updates: list[LiveUpdate] = []

    def put(self, update: LiveUpdate, image: Image | None) -> None:
        self.updates.append(update)


class Absent(Recorded):
    """A capture that gives nothing: its camera waits, is lost, and then it ends."""

    def __init__(self) -> None:
        self.states = iter(("waiting", "waiting", "lost", "ended"))
        self.state = "waiting"

    def get(self, timeout_s: float) -> Frame | None:
        self.state = next(self.states)
        self.reason = f"cam is {self.state}"
        return None


class Manager(Notifier):
    """Keeps what a service manager would hear."""

    def __init__(self) -> None:
        super().__init__({"WATCHDOG_USEC": "1"})
        self.heard: list[str] = []

    def _send(self, text: str) -> None:
        self.heard.append(text)


def loop(
    process: Callable[[Frame], FrameResult],
    session: SessionLog | None = None,
    capture: Recorded | None = None,
    notifier: Notifier | None = None,
    settings: LiveSettings | None = None,
    pipeline: Any = None,
) -> tuple[LiveRun, list[LiveUpdate]]:
    """Ten frames, or what `capture` gives, through the loop with a pipeline that does `process`."""
    engine: Any = SimpleNamespace(
        notes=("a note of the engine",),
        pipeline=pipeline or SimpleNamespace(process=process, flips=0),
        detector=SimpleNamespace(name="haar", note=""),
        bundle=SimpleNamespace(info=SimpleNamespace(name="tiny")),
        chosen=SimpleNamespace(notes=()),
        session=SimpleNamespace(
            backend="onnxruntime", artifact=SimpleNamespace(precision="fp32"), notes=()
        ),
    )
    feed = Kept()
    run = LiveRun(
        cast(Engine, engine), cast(Capture, capture or Recorded()), "recorded",
        session, cast(LiveFeed, feed), None, notifier=notifier,
        settings=settings or LiveSettings(PROFILE, lambda: PROFILE),
    )  # fmt: skip
    run.loop(threading.Event())
    return run, feed.updates


def good(frame: Frame) -> FrameResult:
    return a_result(frame.sequence, frame.mono_ns, a_face())


def test_every_result_is_published_and_logged(tmp_path: Path) -> None:
    session = SessionLog(tmp_path / "session.csv", {})
    run, updates = loop(good, session)
    session.close()
    assert [u.frame.sequence for u in updates if u.frame] == list(range(10))
    assert len(read(session.file)[1]) == 10
    assert "10 frames, a face in 100.0% of them" in run.summary()


def test_a_frame_that_cannot_be_processed_is_counted_and_shown(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "KPI_INTERVAL_S", 0.0)

    def moody(frame: Frame) -> FrameResult:
        if frame.sequence in (3, 4):
            raise OverflowError("a box\nwithout end")
        return good(frame)

    _, updates = loop(moody)
    assert [u.frame.sequence for u in updates if u.frame] == [0, 1, 2, 5, 6, 7, 8, 9]
    last = updates[-1].kpi
    assert last.drops == {"failed": 2}
    assert "a note of the engine" in last.notes
    assert "cam gave 15 frames a second, not 30" in last.notes
    assert "a frame could not be processed: a box without end" in last.notes


def test_a_box_that_can_process_no_frame_at_all_still_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "KPI_INTERVAL_S", 0.0)

    def never(frame: Frame) -> FrameResult:
        raise RuntimeError("the runtime is broken")

    run, updates = loop(never)
    assert updates and updates[-1].frame is None
    assert "a frame could not be processed: the runtime is broken" in updates[-1].kpi.notes
    assert run.summary() == "no frame came from recorded"


def test_a_change_of_the_camera_is_published_at_once_though_no_frame_comes() -> None:
    _, updates = loop(good, capture=Absent())
    assert [u.kpi.camera for u in updates] == ["lost"], "and waiting is said after a second"
    assert updates[0].frame is None
    assert updates[0].kpi.unready == "camera lost: cam is lost"


def test_results_make_the_box_ready_and_keep_the_watchdog_quiet() -> None:
    manager = Manager()
    _, updates = loop(good, notifier=manager)
    assert updates[0].kpi.unready is None
    assert [check.name for check in updates[0].kpi.checks] == [
        "camera", "frames", "results", "model", "detector", "profile",
    ]  # fmt: skip
    assert manager.heard[:3] == ["READY=1", "STATUS=ready", "WATCHDOG=1"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_hang_up_ends_a_terminals_program_and_makes_a_service_read_its_profile(
    monkeypatch: Any, terminal: bool
) -> None:
    monkeypatch.setattr("os.isatty", lambda number: terminal and number == 2)
    settings, stop = LiveSettings(PROFILE, lambda: PROFILE), threading.Event()
    before = signal.getsignal(signal.SIGHUP)
    try:
        reload_on_hang_up(settings, stop)
        handle = signal.getsignal(signal.SIGHUP)
        assert callable(handle)
        handle(signal.SIGHUP, None)  # `tests/system/test_reload.py` sends the signal itself
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (stop.is_set(), settings.reload_asked) == (terminal, not terminal)


class Adjusted:
    """A pipeline's settings, and what they were changed to; frame 5 changes them on the page."""

    flips = 0

    def __init__(self, settings: LiveSettings) -> None:
        self.settings, self.seen = settings, list[float]()
        self.smoothing = settings_from(PROFILE.smoothing, 0.4, {})

    def process(self, frame: Frame) -> FrameResult:
        self.seen.append(self.smoothing.tau_s)
        if frame.sequence == 5:
            self.settings.change({"smoothing.tau_s": 2.0})
        return good(frame)

    def change(self, smoothing: SmoothingConfig, quality: QualityConfig) -> None:
        self.smoothing = settings_from(smoothing, 0.4, {})


def test_a_setting_that_changes_holds_from_the_next_frame_on_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    settings = LiveSettings(PROFILE, lambda: PROFILE)
    pipeline = Adjusted(settings)
    session = SessionLog(tmp_path / "session.csv", {"smoothing": {"tau_s": 0.25}})
    loop(pipeline.process, session, settings=settings, pipeline=pipeline)
    session.close()
    assert pipeline.seen == [PROFILE.smoothing.tau_s] * 6 + [2.0] * 4
    header, rows = read(tmp_path / "session.part2.csv")
    assert header["smoothing"]["tau_s"] == header["profile"]["smoothing"]["tau_s"] == 2.0
    assert [int(row["sequence"]) for row in rows] == [6, 7, 8, 9]


def test_a_profile_that_is_wrong_when_it_is_read_again_is_seen_and_changes_nothing(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(live, "KPI_INTERVAL_S", 0.0)

    def read_again() -> Profile:
        raise UserError("box.toml: unknown key 'smothing'")

    settings = LiveSettings(PROFILE, read_again)
    settings.reload_asked = True
    pipeline = Adjusted(LiveSettings(PROFILE, lambda: PROFILE))
    _, updates = loop(pipeline.process, settings=settings, pipeline=pipeline)
    assert set(pipeline.seen) == {PROFILE.smoothing.tau_s}
    assert updates[-1].kpi.unready is None, "the box does its work all the same"
    (check,) = (check for check in updates[-1].kpi.checks if check.name == "profile")
    assert not check.ok and "box.toml: unknown key 'smothing'" in check.reason
    assert check.reason in updates[-1].kpi.notes


def test_what_people_must_be_told_goes_to_every_viewer() -> None:
    profile = Profile(name="shop", purpose=("public",))
    _, updates = loop(good, settings=LiveSettings(profile, lambda: profile))
    assert {u.kpi.notice for u in updates} == {profile.notice_text()}


def test_an_absent_camera_does_not_keep_the_box_from_having_started(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "KPI_INTERVAL_S", 0.0)
    manager = Manager()
    loop(good, capture=Absent(), notifier=manager)
    assert manager.heard[:2] == ["READY=1", "STATUS=not ready: camera waiting: cam is waiting"]
    assert "WATCHDOG=1" in manager.heard


def test_frames_without_results_leave_the_watchdog_to_bite(monkeypatch: Any) -> None:
    monkeypatch.setattr("edge.health.ANSWER_LIMIT_S", -1.0)

    def never(frame: Frame) -> FrameResult:
        raise RuntimeError("the runtime is broken")

    manager = Manager()
    loop(never, notifier=manager)
    assert "WATCHDOG=1" not in manager.heard
