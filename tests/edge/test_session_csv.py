"""The session log holds everything a replay needs, and a full disk ends it, not the program."""

import csv
import json
import resource
import signal
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.telemetry import FrameResult
from edge.sinks.session_csv import COLUMNS, HEADER, VERSION, SessionLog
from edge.smooth import Smoother, SmoothingSettings
from tests.edge.results import SECOND, a_face, a_result

SETTINGS = SmoothingSettings(0.25, 0.1, (0.4, 0.4, 0.45, 0.4, 0.4, 0.4, 0.35))


def read(file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The header and the rows of a session."""
    first, *rest = file.read_text().splitlines()
    assert first.startswith(HEADER)
    header: dict[str, Any] = json.loads(first.removeprefix(HEADER))
    return header, list(csv.DictReader(rest))


def scene(frames: int = 400, seed: int = 3) -> list[FrameResult]:
    """What a pipeline makes of two people, one of whom comes later and leaves for a while."""
    rng = np.random.default_rng(seed)
    smoothers: dict[int, Smoother] = {}
    mono_ns, results = 12_345_678_901, []
    for sequence in range(frames):
        mono_ns += int(rng.integers(20, 60)) * 1_000_037
        here = [1] if sequence < 50 or 200 < sequence < 210 else [1, 2]
        faces = []
        for track in here if sequence % 67 else []:
            logits = rng.normal(0, 1.5, 7) + 3 * (np.arange(7) == sequence // 40 % 7)
            p = np.exp(logits) / np.exp(logits).sum()
            shown = smoothers.setdefault(track, Smoother(SETTINGS)).update(p, mono_ns)
            x, y, w, h = (float(v) for v in rng.uniform(0, 400, 4))
            faces.append(
                a_face(
                    track, (x, y, w, h), shown.label, detector_score=float(rng.uniform()),
                    probabilities=tuple(float(v) for v in p), smoothed=shown.smoothed,
                    top=shown.top, confidence=shown.confidence, held_s=shown.held_s,
                )
            )  # fmt: skip
        results.append(a_result(sequence, mono_ns, *faces, e2e_ms=float(rng.uniform(5, 15))))
    return results


def write(file: Path, results: list[FrameResult], **header: Any) -> SessionLog:
    log = SessionLog(file, header)
    for result in results:
        log.write(result)
    log.close()
    return log


def test_there_is_a_row_for_every_face_and_one_for_a_frame_without(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "session.csv"
    two = a_result(7, SECOND, a_face(1), a_face(2, label="uncertain"))
    none = a_result(8, 2 * SECOND, detected=False, stages_ms={"classify": 0.0, "smooth": 0.1})
    assert write(file, [two, none], camera="demo").problem is None
    header, rows = read(file)
    assert header == {"version": VERSION, "camera": "demo"}
    assert [list(row) for row in rows] == [list(COLUMNS)] * 3
    assert [(row["sequence"], row["track"]) for row in rows] == [("7", "1"), ("7", "2"), ("8", "")]
    first, second, empty = rows
    assert (first["label"], second["label"], second["top"]) == ("happy", "uncertain", "happy")
    assert tuple(float(first[k]) for k in "xywh") == a_face().box
    assert (first["width"], first["height"], first["detected"]) == ("640", "480", "1")
    assert int(first["utc_ns"]) == two.utc_ns
    assert (first["detect_ms"], first["e2e_ms"]) == ("4.0", "10.0")
    assert {empty[k] for k in COLUMNS[6:23]} == {""}
    assert (empty["detected"], empty["detect_ms"], empty["smooth_ms"]) == ("0", "", "0.1")


def test_a_replay_of_the_log_gives_the_same_labels_bit_for_bit(tmp_path: Path) -> None:
    results = scene()
    file = tmp_path / "session.csv"
    write(file, results, smoothing=dict(zip(("tau_s", "hysteresis", "thresholds"),
                                            astuple(SETTINGS), strict=True)))  # fmt: skip
    header, rows = read(file)
    smoothing = header["smoothing"]
    settings = SmoothingSettings(
        smoothing["tau_s"], smoothing["hysteresis"], tuple(smoothing["thresholds"])
    )
    assert settings == SETTINGS
    smoothers: dict[str, Smoother] = {}
    faces = [face for result in results for face in result.faces]
    of_faces = [row for row in rows if row["track"]]
    labels = set()
    for row, face in zip(of_faces, faces, strict=True):
        p = np.array([float(row[f"p_{name}"]) for name in EXPRESSIONS])
        smoother = smoothers.setdefault(row["track"], Smoother(settings))
        shown = smoother.update(p, int(row["mono_ns"]))
        assert shown.smoothed == face.smoothed
        assert (shown.label, shown.top) == (row["label"], row["top"])
        assert (shown.confidence, shown.held_s) == (float(row["confidence"]), float(row["held_s"]))
        labels.add(shown.label)
    assert len(labels) > 4, "the scene must have something to replay"
    assert len({row["sequence"] for row in rows}) == len(results)


def test_a_place_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for file in (tmp_path / "file" / "session.csv", tmp_path, Path("/dev/full")):
        with pytest.raises(UserError, match="--session-dir") as error:
            SessionLog(file, {})
        assert str(file) in str(error.value)


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file may grow beyond so many bytes: what a full disk is like, without one."""
    limit, before = 20_000, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_ends_the_log_with_a_reason(tmp_path: Path, small_disk: int) -> None:
    file = tmp_path / "session.csv"
    log = SessionLog(file, {})
    for result in scene(1000):
        log.write(result)  # must not raise
        if log.problem:
            break
    assert log.problem == f"session log stopped: File too large ({file})"
    size = file.stat().st_size
    log.write(a_result(0, 0, a_face()))
    log.close()
    assert file.stat().st_size == size <= small_disk
    assert len(read(file)[1]) > 20, "what was written before is kept"


def test_a_disk_that_fills_up_at_the_very_end_is_reported_too(
    tmp_path: Path, small_disk: int
) -> None:
    file = tmp_path / "session.csv"
    log = SessionLog(file, {"padding": "x" * (small_disk - 1500)})
    log._flushed = float("inf")  # nothing reaches the disk before the end
    for sequence in range(10):
        log.write(a_result(sequence, sequence, a_face()))
    assert log.problem is None
    log.close()
    assert log.problem is not None and "File too large" in log.problem


def test_rows_reach_the_disk_within_a_second_or_so(tmp_path: Path) -> None:
    file = tmp_path / "session.csv"
    log = SessionLog(file, {})
    log.write(a_result(1, 0, a_face()))
    assert len(read(file)[1]) == 1, "the first at once: a box may lose power at any time"
    log.close()
