"""A live camera in a real process that is killed, stopped and stuck, and always comes back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from contract.errors import UserError
from edge.capture_live import LiveCapture
from edge.capture_states import Limits
from tests.conftest import PROJECT
from tests.faulty_camera import make, request

LIMIT_S = 20.0
"""For anything a busy machine may be slow at."""

Start = Callable[..., LiveCapture]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the camera's faults; it is plugged in."""
    (tmp_path / "device").touch()
    return tmp_path


@pytest.fixture
def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Captures of the camera, closed afterwards; no process may be left behind."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    made: list[LiveCapture] = []

    def begin(mistake: str = "", **options: object) -> LiveCapture:
        asked = request(folder, mistake)
        made.append(LiveCapture(make(str(folder)), asked, **options))  # type: ignore[arg-type]
        return made[-1].start()

    before = set(psutil.Process().children())
    yield begin
    for capture in made:
        capture.close()
    assert set(psutil.Process().children()) <= before, "zombies count"


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> float:
    """Seconds until `condition`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it did not happen"
        time.sleep(0.002)
    return time.monotonic() - began


def await_frame(capture: LiveCapture, after_ns: int = 0) -> None:
    """Until a frame that was read after a time came."""

    def came() -> bool:
        frame = capture.get(0.1)
        return frame is not None and frame.mono_ns > after_ns

    until(came)


def spare_of(capture: LiveCapture) -> list[int]:
    """The processes that stand by: children of this one that are not the reader."""
    children = psutil.Process().children()
    return [c.pid for c in children if "edge.capture_child" in c.cmdline() and c.pid != capture.pid]


def test_the_newest_frame_counts_and_what_it_overtakes_is_dropped(
    folder: Path, start: Start
) -> None:
    capture = start()
    await_frame(capture)
    first = capture.get(1.0)
    assert first is not None
    time.sleep(0.5)
    newest = capture.get(1.0)
    assert newest is not None and newest.sequence > first.sequence + 2
    assert time.monotonic_ns() - newest.mono_ns < 0.5e9
    # The frame's own pixel says which one it is: none was mixed up on the way.
    moved = newest.sequence - first.sequence
    assert (int(newest.image[0, 0, 0]) - int(first.image[0, 0, 0])) % 256 == moved % 256
    assert capture.drops["overtaken"] >= moved - 1
    kept = newest.image.copy()
    await_frame(capture, time.monotonic_ns() + 200_000_000)
    assert np.array_equal(kept, newest.image), "a frame that was taken never changes"


def test_size_changes_and_damaged_frames_are_survived_and_counted(
    folder: Path, start: Start
) -> None:
    capture = start(limits=Limits(stall_s=LIMIT_S))
    await_frame(capture)
    for height in (480, 48, 600):
        (folder / "size").write_text(str(height))
        until(lambda: (frame := capture.get(0.1)) and frame.image.shape == (height, 64, 3))  # noqa: B023
    assert capture.events["resized"] == 3
    (folder / "damaged").touch()
    until(lambda: capture.drops.get("unreadable"))
    await_frame(capture, time.monotonic_ns())
    assert capture.state == "live" and capture.reconnects == 0


def test_a_killed_and_a_stopped_process_is_replaced(start: Start) -> None:
    capture = start()
    await_frame(capture)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        until(lambda: spare_of(capture))
        time.sleep(1.0)  # until the spare has started
        pid, began_ns = capture.pid, time.monotonic_ns()
        assert pid is not None
        os.kill(pid, number)
        until(lambda: capture.pid not in (pid, None))  # noqa: B023
        await_frame(capture, began_ns)
        await_frame(capture, time.monotonic_ns())
        assert not psutil.pid_exists(pid), "it is reaped"
    assert capture.state == "live"
    assert capture.events == {"restarted": 2, "reopened": 2}


def test_a_stuck_read_is_ended_and_reading_goes_on(folder: Path, start: Start) -> None:
    capture = start(limits=Limits(stall_s=0.3))
    await_frame(capture)
    stuck = capture.pid
    (folder / "stuck").touch()
    assert until(lambda: capture.state == "stalled") < 2
    assert "gave no frame for 0.3 s" in capture.reason
    (folder / "stuck").unlink()
    await_frame(capture, time.monotonic_ns())
    assert capture.state == "live" and capture.pid != stuck


def test_it_comes_back_every_time_its_device_does_and_nothing_piles_up(
    folder: Path, start: Start
) -> None:
    device = folder / "device"
    device.unlink()
    capture = start()
    until(lambda: "not there" in capture.reason)
    assert capture.state == "waiting", "an absent camera at boot is no fault"
    device.touch()
    await_frame(capture)
    until(lambda: spare_of(capture))
    own = psutil.Process()
    before, took = (own.num_fds(), own.num_threads()), []
    for _ in range(20):
        device.unlink()
        until(lambda: capture.state == "lost")
        assert "faulty is" in capture.reason
        back_ns = time.monotonic_ns()
        device.touch()
        await_frame(capture, back_ns)
        took.append((time.monotonic_ns() - back_ns) / 1e9)
    assert sorted(took)[18] < 1.0, "p95"
    assert capture.reconnects == 20
    # Fewer is fine: what the first opening held may be closed by now.
    assert own.num_fds() <= before[0] and own.num_threads() <= before[1]


def test_a_mistake_reaches_whoever_waits_for_frames(start: Start) -> None:
    capture = start(mistake="the portraits are not installed")
    with pytest.raises(UserError, match="the portraits are not installed"):
        until(lambda: capture.get(0.5))
    assert capture.state == "ended"


def test_close_does_not_wait_for_a_stuck_camera(folder: Path, start: Start) -> None:
    capture = start()
    await_frame(capture)
    (folder / "stuck").touch()
    time.sleep(0.1)
    began = time.monotonic()
    capture.close()
    assert time.monotonic() - began < 1.5
    assert capture.state == "ended" and not capture.supervised


def test_a_program_that_is_killed_takes_its_capture_process_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from edge.capture_live import LiveCapture\n"
        "from tests.faulty_camera import make, request\n"
        "capture = LiveCapture(make(sys.argv[1]), request(Path(sys.argv[1]))).start()\n"
        "while capture.get(1.0) is None: pass\n"
        "print(capture.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        (folder / "stuck").touch()
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
