"""A face that nobody could judge is named so, with the reason; one that is good passes."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.faces import Box, Image
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detect import make_detector
from edge.quality import QualityGate, sharpness, turn
from firmware_config.profile import QualityConfig

GATE = QualityGate(QualityConfig())
BOX = Box(200, 120, 160, 160)


def textured(mean: float = 120, spread: float = 40) -> Image:
    """A picture with detail at all scales that a face has, 640×480."""
    random = np.random.default_rng(3)
    picture = np.zeros((480, 640, 3))
    for cells in (12, 60, 240):
        coarse = random.normal(0, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (640, 480))
    return np.asarray(np.clip(mean + spread * picture / picture.std(), 0, 255), np.uint8)


def test_a_clear_face_passes() -> None:
    assert GATE.judge(textured(), BOX) == ""


@pytest.mark.parametrize(
    ("image", "box", "reason"),
    [
        (textured(), Box(200, 120, 23, 60), "too small"),
        (textured(), Box(700, 500, 160, 160), "too small"),
        (textured(12, 6), BOX, "too dark"),
        (textured(250, 6), BOX, "too bright"),
        (np.asarray(cv2.GaussianBlur(textured(), (0, 0), 16), np.uint8), BOX, "blurred"),
        (np.full((480, 640, 3), 128, np.uint8), BOX, "blurred"),
    ],
)
def test_each_fault_has_its_name(image: Image, box: Box, reason: str) -> None:
    assert GATE.judge(image, box) == reason


def points(nose: float) -> tuple[tuple[float, float], ...]:
    """Eyes 40 px apart and level, the nose `nose` of that off their middle, below them."""
    return ((260, 170), (300, 170), (280 + 40 * nose, 195), (265, 220), (295, 220))


@pytest.mark.parametrize(("nose", "reason"), [(0.0, ""), (0.3, ""), (-0.9, "turned away")])
def test_a_face_whose_nose_is_outside_its_eyes_is_turned_away(nose: float, reason: str) -> None:
    assert GATE.judge(textured(), BOX, points(nose)) == reason


@given(st.floats(-2, 2), st.floats(0, 2 * math.pi), st.floats(0.1, 5))
def test_turn_depends_on_neither_tilt_nor_size(nose: float, angle: float, scale: float) -> None:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    tilted = [(c * x - s * y, s * x + c * y) for x, y in points(nose)]
    assert turn(tilted) == pytest.approx(abs(nose), abs=1e-6)


def test_eyes_in_one_place_are_turned_away() -> None:
    assert turn(((1, 1), (1, 1), (2, 2))) == math.inf


def test_sharpness_does_not_see_light_and_contrast_but_blur() -> None:
    grey = np.asarray(cv2.cvtColor(textured(), cv2.COLOR_BGR2GRAY), np.uint8)[:48, :48]
    dim = np.asarray(grey // 2 + 30, np.uint8)
    assert sharpness(dim) == pytest.approx(sharpness(grey), rel=0.1)
    values = [sharpness(np.asarray(cv2.GaussianBlur(grey, (0, 0), s), np.uint8)) for s in (1, 2, 4)]
    assert sharpness(grey) > values[0] > values[1] > values[2]


def test_switched_off_it_lets_everything_pass() -> None:
    gate = QualityGate(QualityConfig(enabled=False))
    assert gate.judge(np.zeros((480, 640, 3), np.uint8), Box(0, 0, 3, 3), points(5)) == ""


@pytest.mark.parametrize("clip", ["book", "night"])
def test_faces_of_real_clips_pass_and_the_same_in_the_dark_or_blurred_do_not(
    shared: Path, clip: str
) -> None:
    detector = make_detector("yunet", folders=[shared / "models"])
    source = shared / "video" / f"{clip}.mkv"
    if not source.is_file():
        pytest.skip(f"no clip {source}")
    camera = open_camera(str(source), width=640, height=480, fps=30, seed=0, paced=False)
    clear, dark, blurred, seen = 0, 0, 0, 0
    for frame in frames(camera):
        if frame.sequence % 20:
            continue
        for face in detector.detect(frame.image):
            seen += 1
            clear += GATE.judge(frame.image, face.box, face.landmarks) == ""
            black = np.asarray(frame.image // 8, np.uint8)
            dark += GATE.judge(black, face.box, face.landmarks) == "too dark"
            blur = cv2.GaussianBlur(frame.image, (0, 0), 0.06 * face.box.h)
            smeared = np.asarray(blur, np.uint8)
            blurred += GATE.judge(smeared, face.box, face.landmarks) == "blurred"
    assert seen >= 3
    assert clear == seen
    assert dark == seen
    assert blurred >= 0.9 * seen
