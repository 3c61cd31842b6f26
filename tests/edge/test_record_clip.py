"""Recording a clip: only with consent, for this user's eyes, in true time, whole or not at all."""

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Clock
from edge.cli import main
from edge.offline.record_clip import CLIP, CONSENT, record

CONSENT_OF_ADA = {"name": "Ada", "recorded_utc": "2026-01-01T00:00:00+00:00"}


class Webcam:
    """A camera of `fps` by a clock of its own; frame k is grey of brightness 2·k.

    `then(k)` may raise before frame k is handed out.
    """

    live, name = True, "webcam"

    def __init__(self, fps: float, then: Callable[[int], object] = lambda number: None) -> None:
        self.number, self.closed = 0, False
        self._fps, self._then = fps, then

    @property
    def clock(self) -> Clock:
        # A frame is stamped after it was read.
        return Clock(mono_ns=lambda: round((self.number - 1) / self._fps * 1e9), utc_ns=lambda: 0)

    def open(self) -> None:
        self.closed = False

    def read(self) -> Image:
        self._then(self.number)
        image = np.full((48, 64, 3), min(2 * self.number, 255), np.uint8)
        self.number += 1
        return image

    def close(self) -> None:
        self.closed = True


def keep(camera: Webcam, folder: Path, **options: Any) -> Any:
    wanted: dict[str, Any] = {"seconds": 2.0, "fps": 10.0, "clock": camera.clock, **options}
    return record(camera, folder, dict(CONSENT_OF_ADA), said=lambda text: None, **wanted)


def brightness(file: Path) -> list[float]:
    video = cv2.VideoCapture(str(file))
    found = []
    while True:
        good, image = video.read()
        if not good:
            return found
        found.append(float(image.mean()))


def raising(error: BaseException, at: int) -> Callable[[int], object]:
    def then(number: int) -> None:
        if number == at:
            raise error

    return then


@pytest.mark.parametrize("fps", [5.0, 10.0, 40.0])
def test_a_place_in_the_clip_is_a_time_whatever_the_cameras_rate(
    tmp_path: Path, fps: float
) -> None:
    camera = Webcam(fps)
    kept = keep(camera, tmp_path / "clip")
    found = brightness(kept.file)
    assert len(found) == kept.frames and camera.closed
    # A slow camera's last frame ends the clip an interval early.
    assert kept.length_s == pytest.approx(2.0, abs=1 / min(fps, 10))
    for place, value in enumerate(found):
        # The camera's frame k, of brightness 2·k (give or take what JPEG makes of it), was seen at
        # k/fps.
        assert abs(value / 2 / fps - place / 10) <= 1 / min(fps, 10) + 0.5 / fps, place


def test_only_this_user_may_look_and_who_agreed_is_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "clip"
    kept = keep(Webcam(10), folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(f.name for f in folder.iterdir()) == [CLIP, CONSENT]
    assert json.loads((folder / CONSENT).read_text()) == {**CONSENT_OF_ADA, "length_s": 2.0}
    assert kept.file == folder / CLIP

    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    keep(Webcam(10), open_to_all)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o700


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CameraError("webcam is gone")])
def test_without_a_frame_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    camera = Webcam(10, raising(error, at=0))
    if isinstance(error, CameraError):
        with pytest.raises(UserError, match="webcam is gone"):
            keep(camera, tmp_path / "clip")
    else:
        assert keep(camera, tmp_path / "clip") is None
    assert list(tmp_path.iterdir()) == [] and camera.closed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CameraError("webcam is gone")])
def test_ended_early_it_keeps_what_there_is(tmp_path: Path, error: BaseException) -> None:
    kept = keep(Webcam(10, raising(error, at=7)), tmp_path / "clip")
    assert kept.frames == 7 == len(brightness(kept.file))
    assert json.loads((tmp_path / "clip" / CONSENT).read_text())["length_s"] == 0.7


def test_sigterm_ends_it_like_ctrl_c(demo_portraits: None, tmp_path: Path) -> None:
    out = tmp_path / "clip"
    command = [sys.executable, "-m", "edge", "record", "--camera", "demo", "--consent", "Ada"]
    with subprocess.Popen(
        [*command, "--seconds", "60", "--out", str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "pixels are being stored" in process.stdout.readline()
        for _ in range(600):  # until some frames are in the file
            if (out / CLIP).exists() and (out / CLIP).stat().st_size > 100_000:
                break
            time.sleep(0.05)
        process.terminate()
        said = process.stdout.read()
    assert process.returncode == 0 and "interrupted" in said
    kept = len(brightness(out / CLIP))
    length_s = json.loads((out / CONSENT).read_text())["length_s"]
    assert kept >= 1 and length_s == pytest.approx(kept / 30, abs=0.001)


def test_the_consent_is_there_before_the_first_pixel(tmp_path: Path) -> None:
    folder = tmp_path / "clip"

    def then(number: int) -> None:
        if number == 1:
            assert json.loads((folder / CONSENT).read_text())["name"] == "Ada"
            assert (folder / CLIP).exists()

    assert keep(Webcam(10, then), folder).frames == 20


def test_a_clip_that_the_disc_did_not_take_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = cv2.VideoWriter

    class Full:
        """Takes three frames and is silent about the rest, as OpenCV's writer is."""

        fourcc = staticmethod(writer.fourcc)

        def __init__(self, *given: Any) -> None:
            self._inner, self._left = writer(*given), 3

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def write(self, image: Image) -> None:
            self._left -= 1
            if self._left >= 0:
                self._inner.write(image)

    monkeypatch.setattr("edge.offline.record_clip.cv2.VideoWriter", Full)
    with pytest.raises(UserError, match="holds 3 of 20 frames: the disc is full"):
        keep(Webcam(10), tmp_path / "clip")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs their consent: add --consent NAME"),
        (["--consent", " "], "needs their consent"),
        (["--consent", "Ada", "--seconds", "121"], "at most 120"),
        (["--consent", "Ada", "--seconds", "0"], "more than 0"),
        (["--consent", "Ada", "--camera", "nosuch.avi"], "no camera file at nosuch.avi"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main(["record", "--camera", "/dev/video97", "--out", "clip", *arguments])
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    mode = tmp_path.stat().st_mode
    with pytest.raises(UserError, match="is not empty"):
        keep(Webcam(10), tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"] and tmp_path.stat().st_mode == mode


def test_the_command_says_that_pixels_are_stored_where_and_how_to_delete_them(
    demo_portraits: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clip"
    arguments = ["--camera", "demo", "--consent", "Ada", "--seconds", "0.4", "--out", str(out)]
    assert main(["record", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"pixels are being stored in {out / CLIP}" in said
    assert f"to delete: rm -r {out}" in said
    about = json.loads((out / CONSENT).read_text())
    assert (about["name"], about["camera"]) == ("Ada", "demo")
    assert about["recorded_utc"].endswith("+00:00") and "deleted" in about["purpose"]
    assert 0 < about["length_s"] <= 0.4 + 0.05

    with pytest.raises(UserError, match="is a recording already; mark it: fer-edge label"):
        main(["record", "--camera", str(out / CLIP), "--consent", "Ada", "--out", str(out / "b")])
