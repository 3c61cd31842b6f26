"""Fit the strengths of `degrade` to recordings of real webcams.

Motion and light are measured and taken over. Blur, noise and compression act on each other, so they
are searched for: the strengths at which built frames measure as the recordings do.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError
from contract.faces import Box, Image
from edge.cameras.base import Recording
from edge.detector_files import find_yunet, model_folders
from edge.offline.degrade import Degradation, Lens
from edge.offline.sessions_scene import Pose, face_patch, paste, room

BLOCK_PX = 16
FACE_PX = 48
"""Faces are compared at this side, that of the data sets' images."""
SMOOTHED_S = 0.2
"""Motion faster than this is the detector's jitter, which built sessions get from the detector."""
LEAST_FRAMES = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """What a recording is like; the units are those of `Degradation`.

    `noise` is the standard deviation over time of pixels of the quietest quarter of the picture,
    `sharpness` the median variance of the Laplacian of faces at 48 px, `blocks` how much larger
    steps in brightness are across the borders of JPEG's 8-pixel blocks than elsewhere, in faces.
    """

    shift_speed: float
    scale_speed: float
    rotation_speed: float
    light_speed: float
    side_px: float
    noise: float
    sharpness: float
    blocks: float


def sharpness(grey: Image, box: Box) -> float:
    """Variance of the Laplacian of a face at `FACE_PX`."""
    left, top = max(0, round(box.x)), max(0, round(box.y))
    crop = grey[top : round(box.y + box.h), left : round(box.x + box.w)]
    if min(crop.shape) < 8:
        return 0.0
    face = cv2.resize(crop, (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(face, cv2.CV_64F).var())


def blocks(grey: Image, box: Box) -> float:
    """Mean step across 8-pixel borders ÷ mean step elsewhere, in the rows and columns of a face."""
    left, top = max(0, int(box.x) // 8 * 8), max(0, int(box.y) // 8 * 8)
    face = grey[top : int(box.y + box.h), left : int(box.x + box.w)].astype(np.float64)
    at_border, elsewhere = [], []
    for steps in (np.abs(np.diff(face, axis=1)), np.abs(np.diff(face, axis=0)).T):
        border = np.arange(steps.shape[1]) % 8 == 7
        at_border.append(steps[:, border].mean())
        elsewhere.append(steps[:, ~border].mean())
    return float(sum(at_border) / max(sum(elsewhere), 1e-9))


class _Noise:
    """Temporal noise by blocks, of the frames fed so far."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._squares: NDArray[np.float64] | None = None
        self._means: list[NDArray[np.float32]] = []

    def see(self, grey: Image) -> None:
        image = grey.astype(np.float32)
        size = (grey.shape[1] // BLOCK_PX, grey.shape[0] // BLOCK_PX)
        self._means.append(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)))
        if self._last is not None:
            change = (image - self._last) ** 2
            mean = np.asarray(cv2.resize(change, size, interpolation=cv2.INTER_AREA), np.float64)
            self._squares = mean if self._squares is None else self._squares + mean
        self._last = image

    def quiet(self) -> tuple[float, Floats]:
        """Noise, and the mean brightness frame by frame, of the quarter that changes least."""
        means = np.stack(self._means)
        moving = np.abs(np.diff(means, axis=0)).mean(axis=0)
        calm = moving <= np.quantile(moving, 0.25)
        assert self._squares is not None
        # The difference of two frames has the noise of both.
        noise = float(np.sqrt(np.median(self._squares[calm]) / (len(means) - 1) / 2))
        return noise, means[:, calm].mean(axis=1).astype(np.float64)


def _speed(values: Floats, fps: float) -> float:
    """Root mean square of the change per second of smoothed values; columns count as one."""
    window = max(1, round(SMOOTHED_S * fps))
    if len(values) < window + 2:
        return math.nan
    kernel = np.ones(window) / window
    columns = values.reshape(len(values), -1).T
    smooth = np.stack([np.convolve(column, kernel, mode="valid") for column in columns])
    return float(np.sqrt((np.diff(smooth, axis=1) ** 2).mean()) * fps)


def _face(net: cv2.FaceDetectorYN, image: Image) -> NDArray[np.float32] | None:
    """YuNet's row of the largest face: box, eyes and the rest."""
    net.setInputSize((image.shape[1], image.shape[0]))
    found = net.detect(image)[1]
    if found is None:
        return None
    return np.asarray(found[np.argmax(found[:, 2] * found[:, 3])], np.float32)


def _followed(rows: list[NDArray[np.float32] | None]) -> NDArray[np.float64]:
    """The longest run of frames in which one face was followed: centre, side, tilt in degrees."""
    best: list[list[float]] = []
    run: list[list[float]] = []
    for row in rows:
        if row is not None:
            x, y, w, h, right_x, right_y, left_x, left_y = (float(v) for v in row[:8])
            tilt = math.degrees(math.atan2(left_y - right_y, left_x - right_x))
            new = [x + w / 2, y + h / 2, math.sqrt(w * h), tilt]
            if run and math.dist(new[:2], run[-1][:2]) > new[2] / 2:
                run = []  # another face became the largest
            run.append(new)
        else:
            run = []
        best = max(best, run, key=len)
    return np.array(best).reshape(-1, 4)


def measure(images: Iterable[Image], fps: float, net: cv2.FaceDetectorYN) -> Measures | None:
    """The measures of one recording, or None where it is too short or shows no face for long."""
    noise, rows = _Noise(), list[NDArray[np.float32] | None]()
    sharp: list[float] = []
    blocky: list[float] = []
    for image in images:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        noise.see(grey)
        rows.append(_face(net, image))
        if (row := rows[-1]) is not None:
            box = Box(*(float(v) for v in row[:4]))
            sharp.append(sharpness(grey, box))
            blocky.append(blocks(grey, box))
    path = _followed(rows)
    if len(path) < max(LEAST_FRAMES, 2 * SMOOTHED_S * fps):
        return None
    side = float(np.median(path[:, 2]))
    level, light = noise.quiet()
    return Measures(
        shift_speed=_speed(path[:, :2] / side, fps),
        scale_speed=_speed(np.log(path[:, 2]), fps),
        rotation_speed=_speed(path[:, 3], fps),
        light_speed=_speed(np.log(np.maximum(light, 1)), fps),
        side_px=side,
        noise=level,
        sharpness=float(np.median(sharp)),
        blocks=float(np.median(blocky)),
    )


def _frames(clip: Recording) -> Iterator[Image]:
    clip.open()
    try:
        while (image := clip.read()) is not None:
            yield image
    finally:
        clip.close()


def measure_clips(clips: Sequence[Recording]) -> tuple[Measures, int]:
    """The median of every measure over the clips, and how many clips showed a face long enough.

    Raises `UserError` where YuNet is not to be had, or no clip can be measured.
    """
    model: Path | None = find_yunet(model_folders())
    if model is None:
        raise UserError("a fit needs the YuNet detector; get it with fer-edge fetch-detector")
    net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), 0.7)
    found = []
    for clip in clips:
        images = _frames(clip)
        first = next(images, None)
        if first is None:
            continue
        one = measure(chain([first], images), 1 / clip.interval_s, net)
        if one is not None:
            found.append(one)
    if not found:
        raise UserError("in no clip was a face followed for long enough; name other clips")
    medians = {
        field.name: float(np.median([getattr(one, field.name) for one in found]))
        for field in fields(Measures)
    }
    return Measures(**medians), len(found)


def _search(value: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function reaches `target`, by halving; an end of the range if beyond it."""
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) < target else (low, middle)
    return (low + high) / 2


class _Trial:
    """Frames of still faces, spoilt by some strengths, measured like a recording."""

    def __init__(self, faces: Sequence[Image], side_px: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        # No larger than the face needs: hundreds of these are spoilt in a search.
        size = max(10 * BLOCK_PX, math.ceil(1.6 * side_px / BLOCK_PX) * BLOCK_PX)
        self._seed = seed
        pose = Pose(size / 2, size / 2, side_px)
        self._box = Box(pose.x - side_px / 2, pose.y - side_px / 2, side_px, side_px)
        self._room = room(rng, size, size)
        self._scenes = []
        for face in faces:
            scene = self._room.copy()
            paste(scene, face_patch(face), pose)
            self._scenes.append(scene)

    def _grey(self, image: Image, lens: Lens, number: int) -> Image:
        return np.asarray(cv2.cvtColor(lens.apply(image, number), cv2.COLOR_BGR2GRAY), np.uint8)

    def noise(self, strengths: Degradation) -> float:
        lens, seen = Lens(strengths, self._seed), _Noise()
        for number in range(8):
            seen.see(self._grey(self._room, lens, number))
        return seen.quiet()[0]

    def faces(self, strengths: Degradation) -> tuple[float, float]:
        """Median sharpness and blocks."""
        lens = Lens(strengths, self._seed)
        greys = [self._grey(scene, lens, i) for i, scene in enumerate(self._scenes)]
        sharp = [sharpness(grey, self._box) for grey in greys]
        return float(np.median(sharp)), float(np.median([blocks(g, self._box) for g in greys]))


def fit(measured: Measures, faces: Sequence[Image], seed: int = 0) -> Degradation:
    """The strengths at which still `faces` measure as the recordings do.

    Compression, blur and noise are searched for in turn, three times over.
    """
    trial = _Trial(faces, measured.side_px, seed)
    found = Degradation(
        shift_speed=round(measured.shift_speed, 4),
        scale_speed=round(measured.scale_speed, 4),
        rotation_speed=round(measured.rotation_speed, 3),
        light_speed=round(measured.light_speed, 5),
        blur_sigma=1.0,
        noise_std=1.0,
        jpeg_quality=80,
    )

    def trying(**changes: float) -> Degradation:
        return found.model_copy(update=changes)

    for _ in range(3):
        worst = _search(
            lambda q: trial.faces(trying(jpeg_quality=round(100 - q)))[1], measured.blocks, 2, 80
        )
        found = trying(jpeg_quality=round(100 - worst))
        sharp = _search(
            lambda s: -trial.faces(trying(blur_sigma=s))[0], -measured.sharpness, 0.0, 5.0
        )
        found = trying(blur_sigma=round(sharp, 2))
        noise = _search(lambda s: trial.noise(trying(noise_std=s)), measured.noise, 0.0, 8.0)
        found = trying(noise_std=round(noise, 2))
    return found


def as_toml(found: Degradation, measured: Measures, clips: int, command: str) -> str:
    """The content of `degradation.toml`, with what was measured and the command that did it."""
    lines = [
        "# How strongly built sessions are spoilt. Made by",
        f"#     {command}",
        f"# from {clips} clips in which a face was followed; fixed before anything is tuned on it.",
    ]
    lines += [f"{key} = {value}" for key, value in found.model_dump().items()]
    lines += ["", "# Medians over the clips; edge/offline/degrade_fit.py says what they are.", ""]
    lines += ["[measured]"]
    lines += [f"{key} = {value:.5g}" for key, value in asdict(measured).items()]
    return "\n".join(lines) + "\n"
