"""`fer-edge record`: keep a short clip of the user's own camera, on purpose and with consent.

The only command that stores pixels. It writes into a folder of its own that nobody else may read:
`clip.avi`, and `consent.json` that says who agreed to what, when, and how long the clip is.
"""

import argparse
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from contract.command import Parser
from contract.errors import UserError
from contract.faces import Image
from contract.files import write_json_atomic
from edge.cameras.base import Camera, CameraError, Clock
from edge.cameras.factory import open_camera
from firmware_config.profile import DEFAULT, load_profile

CLIP, CONSENT = "clip.avi", "consent.json"
LONGEST_S, USUAL_S = 120.0, 10.0
PURPOSE = (
    "To mark expressions on this clip (fer-edge label), and to score, tune and promote on it, on "
    "this machine. It is sent nowhere. Whoever is in it may have it deleted at any time."
)


@dataclass(frozen=True)
class Recorded:
    """A clip that was kept: its file, frames and length in seconds."""

    file: Path
    frames: int
    length_s: float


class _ClipWriter:
    """Frames at a constant rate, so that a place in the clip is a time after its start.

    A camera that is slower than the clip has frames repeated, one that is faster has some left out.
    """

    def __init__(self, file: Path, image: Image, fps: float) -> None:
        self._size = (image.shape[1], image.shape[0])
        self._fps = fps
        self.frames = 0
        # An absolute path, so that a % or a colon in it is nothing but a letter.
        self._writer = cv2.VideoWriter(
            str(file.absolute()), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps,
            self._size,
        )  # fmt: skip
        if not self._writer.isOpened():
            raise UserError(f"{file} cannot be written as a clip; name another folder with --out")

    def put(self, image: Image, at_s: float) -> None:
        """The frame seen at a time after the first."""
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(image.dtype)
        while self.frames < int(at_s * self._fps) + 1:
            self._writer.write(image)
            self.frames += 1

    def close(self) -> None:
        self._writer.release()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends a recording as Ctrl-C does: what is there is finished, not torn."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def own_folder(folder: Path) -> None:
    """Make `folder` for this user alone. Raises `UserError` where something is in it already."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--out {folder} is not empty; name a new folder for each clip")
        folder.chmod(0o700)  # one that was there may have been open to all
    except OSError as error:
        raise UserError(f"--out {folder} cannot be used: {error.strerror}; name another") from None


def record(
    camera: Camera, folder: Path, consent: dict[str, Any], *, seconds: float, fps: float,
    clock: Clock | None = None, said: Callable[[str], object] = print,
) -> Recorded | None:  # fmt: skip
    """Keep what the camera shows for `seconds` in `folder/clip.avi`, with `consent.json`.

    The clip has `fps` frames per second whatever the camera's rate. Ended early by Ctrl-C it keeps
    what there is; without a frame the folder is removed, and None returned. Raises `UserError` for
    a camera that fails, or a disc that took less than was written.
    """
    clock = clock or Clock()
    file, about = folder / CLIP, folder / CONSENT
    own_folder(folder)
    writer: _ClipWriter | None = None
    try:
        with _ended_by_signals():
            camera.open()
            image = camera.read()
            start = clock.mono_ns()
            while image is not None:
                at_s = (clock.mono_ns() - start) / 1e9
                if at_s >= seconds:
                    break
                if writer is None:
                    # First who agreed, then the first pixel.
                    write_json_atomic(about, {**consent, "length_s": None})
                    said(f"pixels are being stored in {file} for at most {seconds:g} s")
                    writer = _ClipWriter(file, image, fps)
                writer.put(image, at_s)
                image = camera.read()
    except KeyboardInterrupt:
        said("interrupted")
    except CameraError as error:
        if writer is None:
            raise UserError(str(error)) from None
        said(f"{error}; what came before is kept")
    finally:
        camera.close()
        if writer is not None:
            writer.close()
        if writer is None or writer.frames == 0:
            _remove(folder)
    if writer is None or writer.frames == 0:
        return None
    _check_whole(file, writer.frames)
    length_s = writer.frames / fps
    write_json_atomic(about, {**consent, "length_s": round(length_s, 3)})
    return Recorded(file, writer.frames, length_s)


def _remove(folder: Path) -> None:
    for name in (CLIP, CONSENT):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _check_whole(file: Path, frames: int) -> None:
    """OpenCV's writer says nothing of a full disc; the file does."""
    clip = cv2.VideoCapture(str(file.absolute()), cv2.CAP_FFMPEG)
    found = round(clip.get(cv2.CAP_PROP_FRAME_COUNT)) if clip.isOpened() else 0
    clip.release()
    if found < frames:
        raise UserError(
            f"{file} holds {found} of {frames} frames: the disc is full or failing; "
            f"free some space, delete {file.parent} and record again"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge record",
        description="Keep a short clip of your own camera to mark expressions on. It stores "
        "pixels, so it needs the name of the person in it, who agrees.",
    )
    add = parser.add_argument
    add("--camera", metavar="X", help="as for fer-edge --camera (default: the profile's)")
    add("--consent", metavar="NAME", help="who is in the clip and agrees to it being kept")
    add(
        "--seconds", type=float, default=USUAL_S, metavar="N",
        help=f"length (default {USUAL_S:g}, at most {LONGEST_S:g})",
    )  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder for the clip")
    add("--profile", default=DEFAULT, metavar="NAME", help="device profile")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    if not (given.consent or "").strip():
        raise UserError(
            "record stores pixels of a person and needs their consent: add --consent NAME with "
            "the name of who is in the clip and agrees"
        )
    if not 0 < given.seconds <= LONGEST_S:
        raise UserError(f"--seconds {given.seconds:g}: give more than 0 and at most {LONGEST_S:g}")
    overrides = {"camera.source": given.camera} if given.camera else {}
    wanted = load_profile(given.profile, overrides).camera
    camera = open_camera(
        wanted.source, width=wanted.width, height=wanted.height, fps=wanted.fps, seed=0
    )
    if not camera.live:
        raise UserError(f"--camera {camera.name} is a recording already; mark it: fer-edge label")
    consent = {
        "name": given.consent.strip(),
        "recorded_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "purpose": PURPOSE,
        "camera": camera.name,
    }
    kept = record(camera, given.out, consent, seconds=given.seconds, fps=wanted.fps)
    if kept is None:
        print("nothing was stored")
        return 0
    print(
        f"stored: {kept.file} ({kept.length_s:.1f} s, {kept.frames} frames), and {CONSENT} beside "
        f"it; only this user may read them\n"
        f"to delete: rm -r {given.out}\nto mark expressions: fer-edge label {kept.file}"
    )
    return 0
