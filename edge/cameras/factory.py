"""A camera from the text a user gives for it."""

import re
from collections.abc import Mapping
from pathlib import Path

from contract.errors import UserError, nearest
from contract.faces import Image
from edge.cameras.base import Camera, Recording
from edge.cameras.csi import CsiCamera
from edge.cameras.demo import DemoCamera
from edge.cameras.device import V4l2Camera
from edge.cameras.identity import parse_usb
from edge.cameras.images import IMAGE_SUFFIXES, Images
from edge.cameras.pace import Paced
from edge.cameras.script import find_script, load_script
from edge.cameras.scripted import Looped, Scene, ScriptedCamera
from edge.cameras.video import STREAM_SCHEMES, StreamCamera, VideoFiles, safe_address

VIDEO_SUFFIXES = frozenset(
    (".mkv", ".mp4", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg", ".mjpg")
)
FORMS = (
    "/dev/videoN, a number, /dev/v4l/by-id/…, usb:VID:PID[:SERIAL], csi://N, rtsp://…, http://…, "
    "a video or image file, a folder, demo, or scripted:FILE.toml"
)


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


def _checked(text: str, interval_s: float) -> tuple[Recording, Image | None]:
    """A recording and its first picture, so that mistakes are told now, not when it is read."""
    recording = _recording(text, interval_s)
    recording.open()
    try:
        return recording, recording.read()
    finally:
        recording.close()


def _scripted(
    text: str, *, width: int, height: int, fps: float, seed: int, epoch_s: float | None
) -> ScriptedCamera:
    file = find_script(text.partition(":")[2])
    script = load_script(file)
    rate = script.fps or fps
    across, down = script.width or width, script.height or height
    scene: Scene
    if script.source == "demo":
        scene = DemoCamera(width=across, height=down, fps=rate, seed=seed)
    else:
        try:
            recording, first = _checked(str(file.parent / script.source), 1 / rate)
        except UserError as error:
            raise UserError(f"{file}: source: {error}") from None
        scene = Looped(recording)
        if first is not None:
            across, down = script.width or first.shape[1], script.height or first.shape[0]
    return ScriptedCamera(
        text, script, scene, size=(across, down), fps=rate, asked=(width, height, fps),
        epoch_s=epoch_s,
    )  # fmt: skip


def _stream(text: str) -> StreamCamera:
    scheme = text.partition("://")[0].lower()
    if scheme not in STREAM_SCHEMES:
        raise UserError(
            f"camera {safe_address(text)}: unknown scheme '{scheme}'"
            f"{nearest(scheme, (*STREAM_SCHEMES, 'csi'))}; a camera is one of: {FORMS}"
        )
    if safe_address(text) in (f"{scheme}://", f"{scheme}:///"):
        raise UserError(f"camera {scheme}:// names no host; write {scheme}://HOST/PATH")
    return StreamCamera(text)


def open_camera(
    text: str,
    *,
    width: int,
    height: int,
    fps: float,
    seed: int,
    paced: bool = True,
    controls: Mapping[str, int] | None = None,
    epoch_s: float | None = None,
) -> Camera:
    """The camera that `text` names; not yet opened.

    The arguments are all there is to a camera: another process makes the same one of them.

    `width`, `height` (pixels) and `fps` are what a device or the demo is asked for; images are
    shown at `fps`, clips at their own rate. With `paced` off, recordings and the demo are read as
    fast as the reader asks, every frame. `seed` decides the demo's course. `controls` are set on a
    device by the names of `CameraControls`. `epoch_s` is time zero of a script on the monotonic
    clock; without it, time zero is the camera's first `open`.

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
        return V4l2Camera(Path(text), width=width, height=height, fps=fps, controls=controls)
    if re.match("usb:", text, re.IGNORECASE):
        return V4l2Camera(parse_usb(text), width=width, height=height, fps=fps, controls=controls)
    if re.match("csi://", text, re.IGNORECASE):
        return CsiCamera(text, width=width, height=height, fps=fps)
    if text.startswith("scripted:"):
        return _scripted(text, width=width, height=height, fps=fps, seed=seed, epoch_s=epoch_s)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _stream(text)
    recording: Recording
    if text == "demo":
        recording = DemoCamera(width=width, height=height, fps=fps, seed=seed, live=paced)
    else:
        recording, _ = _checked(text, 1 / fps)
    return Paced(recording) if paced else recording
