"""The session log: whole rows, within its limits, off while the disk is full, then on again."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from contract.errors import UserError
from contract.expressions import LOW_QUALITY
from contract.telemetry import FrameResult
from edge.labels import FaceEvidence, Labels
from edge.offline.session_log import read_parts, read_session
from edge.sinks.session_csv import (
    COLUMNS,
    HEADER,
    RETRY_S,
    VERSION,
    Limits,
    SessionLog,
    session_file,
)
from edge.smooth import SmoothingSettings
from tests.edge.results import SECOND, a_face, a_result

SETTINGS = SmoothingSettings(0.25, 0.1, (0.4, 0.4, 0.45, 0.4, 0.4, 0.4, 0.35))
ROOMY = Limits(10**9, 10**10, 1e9, 5.0)


def read(file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The header and the rows of a session."""
    first, *rest = file.read_text().splitlines()
    assert first.startswith(HEADER)
    header: dict[str, Any] = json.loads(first.removeprefix(HEADER))
    return header, list(csv.DictReader(rest))


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def scene(
    frames: int = 400, seed: int = 3, settings: SmoothingSettings = SETTINGS,
    changes: Mapping[int, SmoothingSettings] = MappingProxyType({}),
) -> list[FrameResult]:  # fmt: skip
    """What a pipeline makes of two people; one comes later, goes for a while, is dark at times.

    `changes` are settings that take over at a frame.
    """
    rng = np.random.default_rng(seed)
    labels = Labels(settings)
    mono_ns, results = 12_345_678_901, []
    for sequence in range(frames):
        if sequence in changes:
            labels.change(changes[sequence])
        mono_ns += int(rng.integers(20, 60)) * 1_000_037
        here = [1] if sequence < 50 or 200 < sequence < 210 else [1, 2]
        evidence = []
        for track in here if sequence % 67 else []:
            logits = rng.normal(0, 1.5, 7) + 3 * (np.arange(7) == sequence // 40 % 7)
            dark = track == 2 and 100 < sequence < 130
            p = np.exp(logits) / np.exp(logits).sum()
            evidence.append(FaceEvidence(track, None if dark else p, "too dark" if dark else ""))
        shown = labels.update(evidence, {1, 2}, mono_ns)
        faces = [
            a_face(
                seen.track, tuple(rng.uniform(0, 400, 4).tolist()), now.label,
                detector_score=float(rng.uniform()), quality=seen.quality, smoothed=now.smoothed,
                probabilities=() if seen.probabilities is None else tuple(seen.probabilities),
                top=now.top, confidence=now.confidence, held_s=now.held_s,
            )
            for seen, now in zip(evidence, shown, strict=True)
        ]  # fmt: skip
        results.append(a_result(sequence, mono_ns, *faces, e2e_ms=float(rng.uniform(5, 15))))
    return results


def write(file: Path, results: list[FrameResult], **header: Any) -> SessionLog:
    log = SessionLog(file, header)
    for result in results:
        log.write(result)
    log.close()
    return log


def sequences(file: Path) -> list[int]:
    return [frame.sequence for frame in read_session(file).frames]


def test_there_is_a_row_for_every_face_and_one_for_a_frame_without(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "session.csv"
    dark = a_face(2, label=LOW_QUALITY, quality="too\ndark", probabilities=())
    two = a_result(7, SECOND, a_face(1), dark)
    none = a_result(8, 2 * SECOND, detected=False, stages_ms={"classify": 0.0, "smooth": 0.1})
    assert write(file, [two, none], camera="demo").problem is None
    header, rows = read(file)
    assert header == {"version": VERSION, "part": 1, "camera": "demo"}
    assert [list(row) for row in rows] == [list(COLUMNS)] * 3
    assert [(row["sequence"], row["track"]) for row in rows] == [("7", "1"), ("7", "2"), ("8", "")]
    first, second, empty = rows
    assert (first["label"], second["label"], second["top"]) == ("happy", LOW_QUALITY, "happy")
    assert (first["quality"], second["quality"], second["p_happy"]) == ("", "too dark", "")
    assert tuple(float(first[k]) for k in "xywh") == a_face().box
    assert (first["width"], first["height"], first["detected"]) == ("640", "480", "1")
    assert (first["whole"], int(first["utc_ns"])) == ("1", two.utc_ns)
    assert (first["detect_ms"], first["e2e_ms"]) == ("4.0", "10.0")
    of_a_face = COLUMNS[COLUMNS.index("track") : COLUMNS.index("whole") + 1]
    assert {empty[k] for k in of_a_face} == {""}
    assert (empty["detected"], empty["detect_ms"], empty["smooth_ms"]) == ("0", "", "0.1")


def test_rows_are_with_the_system_at_once(tmp_path: Path) -> None:
    file = tmp_path / "session.csv"
    log = SessionLog(file, {})
    log.write(a_result(1, 0, a_face()))
    assert len(read(file)[1]) == 1, "a program that is killed loses nothing it wrote"
    log.close()


def test_rows_are_on_the_disk_itself_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    clock, real = Clock(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(clock.now), real(fd)))
    log = SessionLog(tmp_path / "session.csv", {}, ROOMY, monotonic=clock)
    for k in range(300):
        log.write(a_result(k, k, a_face()))
        log.upkeep()
        clock.now += 0.1
    assert len(synced) == 5
    assert all(b - a == pytest.approx(5, abs=0.11) for a, b in pairwise(synced))
    clock.now += 100
    log.upkeep()
    log.upkeep()
    assert len(synced) == 6, "nothing new, nothing to do"
    log.close()
    assert len(synced) == 7


def test_a_place_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for file in (tmp_path / "file" / "session.csv", tmp_path):
        with pytest.raises(UserError, match="--session-dir") as error:
            SessionLog(file, {})
        assert str(file) in str(error.value)


def test_a_disk_that_is_full_at_the_start_is_waited_for() -> None:
    log = SessionLog(Path("/dev/full"), {})
    assert log.problem == "session log stopped: No space left on device (/dev/full)"
    log.write(a_result(0, 0, a_face()))
    log.close()
    assert log.lost == 1


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file may grow beyond so many bytes: what a full disk is like, without one."""
    limit, before = 20_000, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_turns_the_log_off_and_it_comes_back(
    tmp_path: Path, small_disk: int
) -> None:
    file, clock = tmp_path / "session.csv", Clock()
    log = SessionLog(file, {}, monotonic=clock)
    results = scene(1000)
    waiting = iter(results)
    while log.problem is None:
        log.write(next(waiting))  # must not raise
    assert log.problem == f"session log stopped: File too large ({file})"
    kept = sequences(file)
    assert len(kept) > 10 and file.read_bytes().endswith(b"\n"), "whole rows, and no half one"

    log.write(next(waiting))
    clock.now += RETRY_S + 0.1
    log.write(next(waiting))  # tried again, in vain
    assert log.problem and log.lost == 3
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    log.write(next(waiting))
    assert log.problem and log.lost == 4, "not before it is time"
    clock.now += RETRY_S
    rest = list(waiting)
    for result in rest:
        log.write(result)
    log.close()
    assert log.problem is None and log.lost == 4
    frames = read_session(file).frames
    assert [f.sequence for f in frames] == kept + [r.sequence for r in rest]
    faces = [face for f in frames[len(kept) :] for face in f.faces]
    assert {f.track for f in faces} == {1, 2}
    of_before = max(face.track for r in results[: len(kept) + 4] for face in r.faces)
    assert all(face.whole == (face.track > of_before) for face in faces)


def test_settings_that_change_on_a_full_disk_are_in_the_next_header_it_takes(
    tmp_path: Path, small_disk: int
) -> None:
    file, clock = tmp_path / "session.csv", Clock()
    log = SessionLog(file, {"smoothing": 1}, monotonic=clock)
    waiting = iter(scene(1000))
    while log.problem is None:
        log.write(next(waiting))
    log.change({"smoothing": 2})  # must not raise
    log.write(next(waiting))
    clock.now += RETRY_S + 0.1
    log.write(next(waiting))
    assert log.problem is None, "the next part has room"
    log.change({"smoothing": 3})
    log.change({"smoothing": 4})
    log.write(next(waiting))
    log.close()
    found = [read(part) for part in sorted(tmp_path.iterdir(), key=lambda f: (len(f.name), f.name))]
    assert [header["smoothing"] for header, _ in found] == [1, 2, 3, 4]
    assert [header["part"] for header, _ in found] == [1, 2, 3, 4]
    assert [bool(rows) for _, rows in found] == [True, True, False, True]


def test_settings_that_change_before_there_is_room_for_a_row_need_no_other_part() -> None:
    log = SessionLog(Path("/dev/full"), {"smoothing": 1})
    log.change({"smoothing": 2})
    assert log.file == Path("/dev/full")


FULL = """
import os, sys
from pathlib import Path
from edge.sinks.session_csv import SessionLog
from tests.edge.results import a_face, a_result
folder, now = Path(sys.argv[1]), [0.0]
ballast = folder / "ballast"
ballast.write_bytes(bytes(40_000))
log = SessionLog(folder / "session.csv", {"camera": "demo"}, monotonic=lambda: now[0])
k = 0
while log.problem is None:
    log.write(a_result(k, k, a_face()))
    k += 1
print(log.problem)
before = (folder / "session.csv").read_bytes()
assert before.endswith(b"\\n") and before.count(b"\\n") == k + 1, (before[-80:], k)
ballast.unlink()
now[0] += 60
for _ in range(20):
    log.write(a_result(k, k, a_face()))
    k += 1
log.close()
after = (folder / "session.csv").read_bytes()
assert after.startswith(before) and log.problem is None and log.lost == 1
assert after.count(b"\\n") == 2 + k - 1, (after.count(b"\\n"), k)
print("came back")
"""


def test_a_real_disk_that_is_full_and_then_is_not(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    project = Path(__file__).resolve().parents[2]
    try:
        may = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs unshare (util-linux) for a small disk of its own")
    if may.returncode:
        pytest.skip(f"needs a user namespace for a small disk: {may.stderr.decode().strip()}")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", tmp_path, sys.executable, FULL],
        cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout and "came back" in done.stdout


def test_a_log_that_somebody_deletes_is_begun_anew(tmp_path: Path) -> None:
    file, clock = tmp_path / "session.csv", Clock()
    log = SessionLog(file, {"camera": "demo"}, ROOMY, monotonic=clock)
    for k in range(3):
        log.write(a_result(k, k, a_face()))
    file.unlink()
    clock.now += 6
    log.upkeep()
    assert log.problem and "No such file" in log.problem
    clock.now += 6
    log.write(a_result(9, 9, a_face(1), a_face(2)))
    log.close()
    session = read_session(file)
    assert session.header["camera"] == "demo"
    assert [(f.track, f.whole) for f in session.frames[0].faces] == [(1, False), (2, True)]


def test_a_long_session_goes_on_in_parts_that_read_as_one(tmp_path: Path) -> None:
    results, file = scene(300), tmp_path / "session.csv"
    log = SessionLog(file, {"camera": "demo"}, Limits(40_000, 10**9, 1e9, 5.0))
    for result in results:
        log.write(result)
    log.close()
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 3 and all(part.stat().st_size <= 40_000 for part in parts)
    assert log.file.name == f"session.part{len(parts)}.csv"
    assert all(read(part)[0]["camera"] == "demo" for part in parts)
    for named in (file, log.file):
        session = read_parts(named)
        assert [f.sequence for f in session.frames] == [r.sequence for r in results]
        assert all(face.whole for frame in session.frames for face in frame.faces)
    file.unlink()
    cut = read_parts(log.file)
    earlier = cut.header["earlier_tracks"]
    assert cut.header["part"] == 2 and earlier >= 1
    assert all(face.whole == (face.track > earlier) for f in cut.frames for face in f.faces)


def test_the_oldest_sessions_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    now, hour = 1_800_000_000.0, 3600
    kept = ["labels.csv", "20250101T000000_000000Z.txt", "mine 20250101T000000_000000Z.csv"]
    for name in kept:
        (tmp_path / name).write_bytes(bytes(10_000))
        os.utime(tmp_path / name, (0, 0))
    for age in range(10):
        own = session_file(tmp_path, round((now - age * hour) * 1e9))
        own.write_bytes(bytes(10_000))
        os.utime(own, (now - age * hour, now - age * hour))
    file = session_file(tmp_path, round(now * 1e9) + 1000)
    limits = Limits(20_000, 60_000, 100 * hour, 5.0)
    SessionLog(file, {}, limits, wall=lambda: now).close()
    names = {path.name for path in tmp_path.iterdir()}
    own_kept = {session_file(tmp_path, round((now - age * hour) * 1e9)).name for age in range(4)}
    assert names == {*kept, *own_kept, file.name}, "40 kB and the 20 kB this file may take"

    young = Limits(20_000, 10**9, 1.5 * hour, 5.0)
    SessionLog(file, {}, young, wall=lambda: now).close()
    names = {path.name for path in tmp_path.iterdir()}
    own_kept = {session_file(tmp_path, round((now - age * hour) * 1e9)).name for age in range(2)}
    assert names == {*kept, *own_kept, file.name}


def test_the_total_is_never_exceeded_while_a_session_goes_on(tmp_path: Path) -> None:
    file, clock = session_file(tmp_path, SECOND), Clock()
    log = SessionLog(file, {}, Limits(10_000, 40_000, 1e9, 5.0), monotonic=clock, wall=clock)
    totals = []
    for k in range(1000):
        log.write(a_result(k, k, a_face()))
        totals.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
        for path in tmp_path.iterdir():
            if path != log.file:
                os.utime(path, (clock.now - 100 + k / 1e3, clock.now - 100 + k / 1e3))
    log.close()
    assert 30_000 < max(totals) <= 40_000
    assert not file.exists() and log.file.exists()
