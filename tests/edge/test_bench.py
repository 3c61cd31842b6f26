"""`fer-edge bench`: what it says was measured, over a scene short enough for a test."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from contract.bundle import Bundle
from contract.errors import UserError
from edge.cli import main
from tests.system.commands import fer_edge

pytestmark = pytest.mark.usefixtures("demo_portraits", "own_cache")


@pytest.fixture
def arguments(tiny: Bundle, tmp_path: Path) -> list[str]:
    out = ["--json", str(tmp_path / "bench.json"), "--model", str(tiny.folder)]
    return ["bench", *out, "--camera", "demo", "--detector", "haar"]


def bench(arguments: list[str], tmp_path: Path, *more: str) -> dict[str, Any]:
    assert main([*arguments, *more]) == 0
    result: dict[str, Any] = json.loads((tmp_path / "bench.json").read_text())
    return result


def test_the_result_holds_everything_a_claim_rests_on(arguments: list[str], tmp_path: Path) -> None:
    done = fer_edge(*arguments, "--frames", 25, "--threads", 1, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["frames"] == found["detections_run"] == 25
    e2e = found["e2e_ms"]
    assert 0 < e2e["p50"] <= e2e["p95"] <= e2e["p99"] < 10_000
    assert set(found["stages_ms"]) == {"detect", "track", "quality", "classify", "smooth"}
    assert all(set(stage) == {"p50", "p95", "p99"} for stage in found["stages_ms"].values())
    assert sum(stage["p50"] for stage in found["stages_ms"].values()) <= e2e["p99"]
    assert found["fps"] > 0 and math.isfinite(found["fps"])
    # Whole seconds of CPU can come only from whole cores at work.
    cores = os.cpu_count() or 1
    assert 0 < found["cpu_s_per_1000_frames"] <= 1000 / found["fps"] * cores * 1.2
    assert 30 < found["peak_rss_mb"] < 4000 and 30 < found["pss_mb"] < 4000
    assert found["cpu_percent"] > 0
    assert 0 < found["first_result_s"] < 100
    assert found["face_rate"] >= 0.9 and found["faces_per_frame"] > 1.5
    assert (found["camera"], found["detector"], found["precision"]) == ("demo", "haar", "fp32")
    assert found["bundle"]["name"] == "tiny" and found["paced_fps"] is None
    assert found["run"]["threads"] == 1 and found["run"]["cpu"] and found["run"]["commit"]
    assert "25 frames" in done.stdout


def test_paced_frames_come_at_their_rate(arguments: list[str], tmp_path: Path) -> None:
    found = bench(arguments, tmp_path, "--frames", "8", "--fps", "10")
    # 7 intervals of 0.1 s between 8 frames: 8 / 0.7 s, and never faster.
    assert found["fps"] <= 8 / 0.7 * 1.01
    assert found["paced_fps"] == 10


def test_a_detection_interval_of_the_profile_shows_in_the_count(
    arguments: list[str], tmp_path: Path
) -> None:
    profile = tmp_path / "box.toml"
    profile.write_text('[detector]\nschedule = "adaptive"\ninterval_s = 5.0\n')
    found = bench(arguments, tmp_path, "--frames", "10", "--profile", str(profile))
    assert 1 <= found["detections_run"] < found["frames"] == 10


def test_a_recording_that_is_too_short_is_cycled(
    arguments: list[str], tmp_path: Path, face_image: Path
) -> None:
    given = [str(face_image) if word == "demo" else word for word in arguments]
    found = bench(given, tmp_path, "--frames", "5")
    assert (found["frames"], found["camera"]) == (5, str(face_image))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--frames", "0"], "--frames 0"),
        (["--fps", "0"], "--fps 0"),
        (["--fps", "nan"], "--fps nan"),
        (["--fps", "1000"], "--fps 1000"),
        (["--camera", "/dev/video0"], "a bench needs a recording"),
        (["--camera", "rtsp://user:secret@host/path"], "a bench needs a recording"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], tmp_path: Path, more: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says) as error:
        main([*arguments, *more])
    assert "secret" not in str(error.value)
    assert not (tmp_path / "bench.json").exists()
