"""`fer-edge score` on built sessions, recordings and logs."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import UserError
from contract.manifest import read_manifest
from edge.cli import main
from edge.offline.score_labels import read_labels
from edge.offline.sessions import SessionCamera, read_plan
from tests.models import make_images

pytestmark = pytest.mark.usefixtures("own_cache", "always_a_face")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("built")
    manifest = make_images(folder, per_class=2, split="calib")
    given = [
        "--manifest",
        str(manifest),
        "--split",
        "calib",
        "--seconds",
        "6",
        "--fps",
        "10",
        "--any-face",
    ]
    assert main(["sessions", "build", *given, "--out", str(folder), "--count", "2"]) == 0
    return [folder / "calib-1", folder / "calib-2"]


def run_score(tiny: Bundle, out: Path, *arguments: object) -> dict[str, Any]:
    given = [str(argument) for argument in arguments]
    assert main(["score", *given, "--model", str(tiny.folder), "--json", str(out)]) == 0
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def test_a_session_is_scored_the_same_alone_after_another_and_from_its_log(
    sessions: list[Path], tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = run_score(tiny, tmp_path / "a.json", *sessions)
    alone = run_score(tiny, tmp_path / "b.json", sessions[1])
    logged = run_score(tiny, tmp_path / "c.json", sessions[1] / "session.csv")
    assert both["sessions"] == 2 and both["frames"] == 120 and both["faces"] == 120
    second = {key: value for key, value in both["each"][1].items() if key != "session"}
    for other in (alone, logged):
        one = {key: value for key, value in other["each"][0].items() if key != "session"}
        assert one == second
    # The tiny model knows its gratings: held frames are mostly right, switches are seen.
    assert second["raw"]["accuracy"] > 0.6 and second["smoothed"]["switches"] >= 1
    told = capsys.readouterr().out
    assert "of sessions" in told and "switch lag, median" in told and "F1 " in told


def test_a_recording_with_labels_beside_it_is_a_session(
    sessions: list[Path], tiny: Bundle, tmp_path: Path
) -> None:
    plan = read_plan(sessions[0])
    camera = SessionCamera("again", plan)
    camera.open()
    clip = tmp_path / "mine" / "clip.avi"
    clip.parent.mkdir()
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), plan.fps, (640, 480))
    while (image := camera.read()) is not None:
        writer.write(image)
    writer.release()
    without = run_score(tiny, tmp_path / "a.json", clip)
    assert without["coverage"] is None and without["faces"] == 60
    (clip.parent / "labels.csv").write_text((sessions[0] / "labels.csv").read_text())
    recorded = run_score(tiny, tmp_path / "b.json", clip.parent)
    assert recorded["smoothed"]["switches"] == len(read_labels(clip.parent / "labels.csv")) - 1
    named = run_score(tiny, tmp_path / "c.json", clip, "--labels", sessions[0] / "labels.csv")
    assert named["raw"] == recorded["raw"]


def test_what_cannot_be_scored_is_named(sessions: list[Path], tmp_path: Path) -> None:
    for arguments, says in (
        ([tmp_path / "none"], "no session at"),
        ([sessions[0], sessions[0] / "labels.csv"], "do not mix"),
        ([sessions[0] / "labels.csv"], "no session log"),
        ([*sessions, "--labels", sessions[0] / "labels.csv"], "--labels belongs to one session"),
        ([sessions[0], "--labels", tmp_path / "no.csv"], "no labels at"),
    ):
        with pytest.raises(UserError, match=says):
            main(["score", *map(str, arguments)])


def test_images_of_a_session_stay_where_they_are(sessions: list[Path]) -> None:
    pixels = {".png", ".jpg", ".avi", ".npy"}
    assert not [path for path in sessions[0].iterdir() if path.suffix in pixels]
    assert len(read_manifest(Path(read_plan(sessions[0]).manifest)).rows) == 14
    assert np.isfinite(read_plan(sessions[0]).side_px)
