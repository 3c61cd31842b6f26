"""Real recordings through the whole program: every frame is logged, and a face is in nearly all."""

from pathlib import Path

import pytest

from contract.bundle import Bundle
from contract.expressions import EXPRESSIONS, LOW_QUALITY, UNCERTAIN
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detector_files import YUNET_FILE
from tests.edge.test_session_csv import read
from tests.system.commands import fer_edge

LEAST_FACE_RATE = 0.95


@pytest.mark.parametrize("name", ["eat", "want", "milk"])
def test_a_clip_is_seen_from_its_first_frame_to_its_last(
    name: str, shared: Path, tmp_path: Path, cache: Path, tiny: Bundle
) -> None:
    clip, model = shared / "video" / f"{name}.mkv", shared / "models" / YUNET_FILE
    if not clip.is_file() or not model.is_file():
        pytest.skip(f"needs {clip.name} and {YUNET_FILE} in the shared data")
    camera = open_camera(str(clip), width=640, height=480, fps=30, seed=0, paced=False)
    count = sum(1 for _ in frames(camera))

    done = fer_edge(
        "--camera", clip, "--no-dashboard", "--model", tiny.folder, "--detector", "yunet",
        cache=cache, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "first result" in done.stderr and f"{count} frames" in done.stderr
    (session,) = (tmp_path / "sessions").glob("*.csv")
    header, rows = read(session)
    assert (header["detector"], header["camera"]) == ("yunet", str(clip))
    assert sorted({int(row["sequence"]) for row in rows}) == list(range(count))
    with_face = {row["sequence"] for row in rows if row["track"]}
    assert len(with_face) / count >= LEAST_FACE_RATE
    times = [int(row["mono_ns"]) for row in rows]
    assert times == sorted(times)
    for row in rows:
        if row["track"]:
            if not row["quality"]:
                assert sum(float(row[f"p_{name}"]) for name in EXPRESSIONS) == pytest.approx(1)
            assert row["label"] in (*EXPRESSIONS, UNCERTAIN, LOW_QUALITY)
            assert float(row["e2e_ms"]) > 0
