"""The built-in camera: two people before a webcam, the same for the same seed.

Frame k depends on the seed and on k only, so a run can be repeated and a test can look at any
frame. Everything costly is done in `open`; a frame is two small warps and some additions.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from contract.faces import Image
from edge.cameras.base import CameraError
from edge.cameras.demo_scene import COLLINS, HOPPER, Figure, cut_out, draw_noise, draw_room, locate

# How far noise is shifted from frame to frame: two fields and 64×64 places for each.
NOISE_FIELDS = 2
NOISE_SHIFT = 64
LIGHT_STEPS = 48


class _Wander:
    """A slow, smooth, bounded course: two sines with periods and phases from a generator."""

    def __init__(self, rng: np.random.Generator, reach: float, period_s: float) -> None:
        self._waves = [
            (reach * share, 2 * math.pi / (period_s * stretch * rng.uniform(0.85, 1.2)), phase)
            for share, stretch, phase in zip(
                (0.7, 0.3), (1.0, 0.37), rng.uniform(0, 2 * math.pi, 2).tolist(), strict=True
            )
        ]

    def at(self, t_s: float) -> float:
        """The value at a time, within ±reach."""
        return sum(reach * math.sin(rate * t_s + phase) for reach, rate, phase in self._waves)


class _Person:
    """A figure, where it sits, and how it moves."""

    def __init__(
        self, figure: Figure, seat: tuple[float, float], view: float, rng: np.random.Generator
    ) -> None:
        self._figure = figure
        self._seat = seat
        self._right = _Wander(rng, 13 * view, 7.0)
        self._down = _Wander(rng, 6 * view, 5.0)
        self._tilt = _Wander(rng, 3.5, 6.0)
        self._size = _Wander(rng, 0.045, 11.0)
        self._light = _Wander(rng, 0.5, 13.0)
        self._lit: tuple[int, Image] = (-1, figure.lit_left)

    def _lit_at(self, t_s: float) -> Image:
        # Light changes slowly: in steps too small to see, a picture serves for many frames.
        step = round((0.5 + self._light.at(t_s)) * LIGHT_STEPS)
        if step != self._lit[0]:
            share = step / LIGHT_STEPS
            mixed = cv2.addWeighted(
                self._figure.lit_left, share, self._figure.lit_right, 1 - share, 0
            )
            self._lit = (step, np.asarray(mixed, np.uint8))
        return self._lit[1]

    def paint(self, canvas: Image, t_s: float) -> None:
        """Draw the person as at `t_s` over `canvas`, in place."""
        figure = self._figure
        lit = self._lit_at(t_s)
        matrix = cv2.getRotationMatrix2D(figure.face, self._tilt.at(t_s), 1 + self._size.at(t_s))
        matrix[0, 2] += self._seat[0] + self._right.at(t_s) - figure.face[0]
        matrix[1, 2] += self._seat[1] + self._down.at(t_s) - figure.face[1]
        height, width = lit.shape[:2]
        corners = (
            np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
        )
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        x1 = min(math.ceil(corners[:, 0].max()), canvas.shape[1])
        y1 = min(math.ceil(corners[:, 1].max()), canvas.shape[0])
        matrix[:, 2] -= (x0, y0)
        warped = cv2.warpAffine(lit, matrix, (int(x1 - x0), int(y1 - y0)))
        behind = canvas[y0:y1, x0:x1]
        hidden = cv2.cvtColor(cv2.bitwise_not(warped[..., 3]), cv2.COLOR_GRAY2BGR)
        shown = cv2.multiply(behind, hidden, scale=1 / 255)
        cv2.add(shown, cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), dst=behind)


@dataclass(frozen=True)
class _Scene:
    room: Image
    people: tuple[_Person, _Person]
    exposure: _Wander
    noise: tuple[tuple[Image, Image], ...]


class DemoCamera:
    """Two people side by side in a room, endlessly.

    `live` says whether frames are taken as from a webcam (the newest counts) or as from a file.
    Raises `UserError` where the portraits are not installed.
    """

    name = "demo"

    def __init__(
        self, *, width: int = 640, height: int = 480, fps: float = 30, seed: int = 0,
        live: bool = True,
    ) -> None:  # fmt: skip
        for portrait in (COLLINS, HOPPER):
            locate(portrait)
        self.live = live
        self.interval_s = 1 / fps
        self._width, self._height, self._seed = width, height, seed
        self._scene: _Scene | None = None
        self._next = 0

    def open(self) -> None:
        """Draw what does not change, the first time."""
        self._next = 0
        if self._scene is not None:
            return
        rng = np.random.default_rng(self._seed)
        # The view covers the frame, so no edge of a portrait is ever in it.
        view = max(self._width / 640, self._height / 480)
        middle = self._width / 2, self._height / 2

        people = []
        for portrait in (COLLINS, HOPPER):
            figure = cut_out(portrait, portrait.scale * view)
            seat = (
                middle[0] + (portrait.seat[0] - 320) * view,
                middle[1] + (portrait.seat[1] - 240) * view,
            )
            people.append(_Person(figure, seat, view, rng))
        room = draw_room(self._width, self._height, rng)
        noise_size = self._width + NOISE_SHIFT, self._height + NOISE_SHIFT
        self._scene = _Scene(
            room=room,
            people=(people[0], people[1]),
            exposure=_Wander(rng, 0.1, 9.0),
            noise=tuple(draw_noise(*noise_size, rng) for _ in range(NOISE_FIELDS)),
        )

    def frame(self, index: int) -> Image:
        """Frame `index` of the scene, uint8 `H×W×3` BGR; the camera must be open."""
        if self._scene is None:
            raise CameraError("demo is not open", gone=True)
        scene = self._scene
        t_s = index * self.interval_s
        canvas = scene.room.copy()
        for person in scene.people:
            person.paint(canvas, t_s)
        cv2.convertScaleAbs(canvas, dst=canvas, alpha=1 + scene.exposure.at(t_s))
        rng = np.random.default_rng((self._seed, index))
        field, right, down = rng.integers((NOISE_FIELDS, NOISE_SHIFT, NOISE_SHIFT)).tolist()
        part = np.s_[down : down + self._height, right : right + self._width]
        more, less = scene.noise[field]
        cv2.add(canvas, more[part], dst=canvas)
        cv2.subtract(canvas, less[part], dst=canvas)
        return canvas

    def read(self) -> Image:
        """The next frame; there is always one."""
        image = self.frame(self._next)
        self._next += 1
        return image

    def close(self) -> None:
        """What was drawn is kept for the next `open`."""
