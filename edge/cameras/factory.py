"""A camera from the text a user gives for it."""

import re
from pathlib import Path

from contract.errors import UserError, nearest
from edge.cameras.base import Camera, Recording
from edge.cameras.demo import DemoCamera
from edge.cameras.images import IMAGE_SUFFIXES, Images
from edge.cameras.pace import Paced
from edge.cameras.video import (
    STREAM_SCHEMES,
    StreamCamera,
    V4l2Camera,
    VideoFiles,
    safe_address,
)

VIDEO_SUFFIXES = frozenset(
    (".mkv", ".mp4", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg", ".mjpg")
)
FORMS = "/dev/videoN, a number, rtsp://…, http://…, a video or image file, a folder, or demo"


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorting key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _folder(path: Path, interval_s: float) -> Recording:
    files = sorted((p for p in path.iterdir() if p.is_file()), key=_natural)
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    clips = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if images and clips:
        raise UserError(
            f"camera folder {path} holds both images ({images[0].name}) and clips "
            f"({clips[0].name}); keep one kind in it"
        )
    if clips:
        return VideoFiles(str(path), clips)
    if images:
        return Images(str(path), images, interval_s=interval_s)
    raise UserError(
        f"camera folder {path} holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}) and no clip "
        f"({' '.join(sorted(VIDEO_SUFFIXES))}); name another folder"
    )


def _recording(text: str, interval_s: float) -> Recording:
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return _folder(path, interval_s)
        if not path.exists():
            raise UserError(
                f"no camera file at {text}{nearest(text, ['demo'])}; a camera is one of: {FORMS}"
            )
        if not path.is_file():
            raise UserError(f"camera {text} is neither a file nor a folder; one of: {FORMS}")
    except OSError as error:
        raise UserError(
            f"camera {text} cannot be read ({error.strerror}); mend its permissions"
        ) from None
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Images(str(path), [path], interval_s=interval_s)
    return VideoFiles(str(path), [path])


def open_camera(
    text: str, *, width: int, height: int, fps: float, seed: int, paced: bool = True
) -> Camera:
    """The camera that `text` names; not yet opened.

    `width`, `height` (pixels) and `fps` are what a device or the demo is asked for; images are
    shown at `fps`, clips at their own rate. With `paced` off, recordings and the demo are read as
    fast as the reader asks, every frame. `seed` decides the demo's course.

    Raises `UserError` for a form that is not known, a file or folder that is missing, without
    images or clips, or whose first file cannot be decoded. A device that is absent, or a stream
    that does not answer, is none: it is waited for.
    """
    text = text.strip()
    if not text:
        raise UserError(f"the camera is empty; a camera is one of: {FORMS}")
    if re.fullmatch(r"[0-9]{1,3}", text):
        text = f"/dev/video{int(text)}"
    if text.startswith("/dev/"):
        return V4l2Camera(Path(text), width=width, height=height, fps=fps)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        scheme = text.partition("://")[0].lower()
        if scheme not in STREAM_SCHEMES:
            raise UserError(
                f"camera {safe_address(text)}: unknown scheme '{scheme}'"
                f"{nearest(scheme, STREAM_SCHEMES)}; a camera is one of: {FORMS}"
            )
        if safe_address(text) in (f"{scheme}://", f"{scheme}:///"):
            raise UserError(f"camera {scheme}:// names no host; write {scheme}://HOST/PATH")
        return StreamCamera(text)
    recording: Recording
    if text == "demo":
        recording = DemoCamera(width=width, height=height, fps=fps, seed=seed, live=paced)
    else:
        recording = _recording(text, 1 / fps)
        # The user's mistakes are told now, not from the reader's thread later.
        recording.open()
        try:
            recording.read()
        finally:
            recording.close()
    return Paced(recording) if paced else recording
