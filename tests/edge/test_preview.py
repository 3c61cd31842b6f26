"""A viewer sees who is where and what they show, and not who they are."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.faces import Box, Image
from edge.preview import BLOCKS, Preview, pixelate
from tests.edge.results import SECOND, a_face, a_result

BOX = (250.0, 150.0, 120.0, 150.0)
INSIDE = np.s_[190:260, 265:355]
"""Well within the face of `BOX`, clear of its frame and caption."""
OUTSIDE = np.s_[20:100, 20:150]


@pytest.fixture
def noise() -> Image:
    """A picture in which every pixel differs from its neighbours."""
    return np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def decoded(jpeg: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def detail(image: Image) -> float:
    """The usual difference between pixels side by side."""
    return float(np.median(np.abs(np.diff(image.astype(int), axis=1))))


@settings(deadline=None, max_examples=60)
@given(x=st.floats(-50, 620), y=st.floats(-50, 460), w=st.floats(12, 400), h=st.floats(12, 400))
def test_a_face_is_a_few_cells_wherever_it_is(x: float, y: float, w: float, h: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    pixelate(image, Box(x, y, w, h))
    left, top, right, bottom = (max(0, round(v)) for v in (x, y, x + w, y + h))
    face = image[top:bottom, left:right]
    if face.size:
        assert len(np.unique(face, axis=1)[0]) < BLOCKS + 2
        assert len(np.unique(face, axis=0)) < BLOCKS + 2


def test_pixelating_leaves_the_rest_of_the_picture(noise: Image) -> None:
    image = noise.copy()
    pixelate(image, Box(*BOX))
    assert np.array_equal(image[OUTSIDE], noise[OUTSIDE])
    assert not np.array_equal(image[INSIDE], noise[INSIDE])
    for nowhere in (Box(-500, 0, 100, 100), Box(900, 900, 50, 50), Box(10, 10, 0, 0)):
        image = noise.copy()
        pixelate(image, nowhere)
        assert image.shape == noise.shape


def test_hair_and_chin_are_covered_too(noise: Image) -> None:
    image = noise.copy()
    pixelate(image, Box(*BOX))
    x, y, w, h = BOX
    around = image[round(y - 0.2 * h) : round(y + 1.2 * h), round(x - 0.2 * w) : round(x + 1.2 * w)]
    assert len(np.unique(around, axis=1)[0]) < BLOCKS + 2


def test_the_preview_is_a_jpeg_of_the_frame_with_faces_pixelated(noise: Image) -> None:
    preview, result = Preview(), a_result(0, 0, a_face(1, BOX))
    before = noise.copy()
    preview.note(result)
    jpeg = preview.draw(noise, result, raw=False)
    assert (jpeg[:2], jpeg[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    shown = decoded(jpeg)
    assert shown.shape == noise.shape
    assert detail(shown[INSIDE]) < 5 < 30 < detail(shown[OUTSIDE])
    assert np.array_equal(noise, before), "the pipeline's own frame is not drawn on"


def test_the_raw_view_shows_the_face(noise: Image) -> None:
    preview, result = Preview(), a_result(0, 0, a_face(1, BOX))
    preview.note(result)
    assert detail(decoded(preview.draw(noise, result, raw=True))[INSIDE]) > 30


def test_every_face_is_pixelated(noise: Image) -> None:
    other = (20.0, 300.0, 100.0, 120.0)
    preview = Preview()
    result = a_result(0, 0, a_face(1, BOX), a_face(2, other))
    preview.note(result)
    shown = decoded(preview.draw(noise, result, raw=False))
    assert detail(shown[INSIDE]) < 5
    assert detail(shown[340:400, 35:105]) < 5


@pytest.mark.parametrize(("second", "hidden"), [(0.1, True), (1.9, True), (2.1, False)])
def test_where_a_face_was_lost_stays_pixelated_for_two_seconds(
    noise: Image, second: float, hidden: bool
) -> None:
    preview = Preview()
    preview.note(a_result(0, 0, a_face(1, BOX)))
    lost = a_result(1, round(second * SECOND))
    preview.note(lost)
    assert (detail(decoded(preview.draw(noise, lost, raw=False))[INSIDE]) < 5) is hidden


def test_a_face_that_comes_back_as_another_does_not_uncover_where_it_was(noise: Image) -> None:
    preview = Preview()
    preview.note(a_result(0, 0, a_face(1, BOX)))
    back = a_result(1, SECOND, a_face(2, (20.0, 300.0, 100.0, 120.0)))
    preview.note(back)
    assert detail(decoded(preview.draw(noise, back, raw=False))[INSIDE]) < 5


def test_the_box_and_the_caption_are_drawn_even_at_the_border(noise: Image) -> None:
    black = np.zeros((480, 640, 3), np.uint8)
    preview = Preview()
    for box in ((100.0, 100.0, 80.0, 100.0), (600.0, 0.0, 80.0, 100.0), (-30.0, 430.0, 60.0, 90.0)):
        result = a_result(0, 0, a_face(7, box))
        shown = decoded(preview.draw(black, result, raw=True))
        assert (shown.max(axis=2) > 90).sum() > 1000, "a frame and a filled caption"
    uncertain = a_result(0, 0, a_face(7, label="uncertain"))
    sure = a_result(0, 0, a_face(7))
    assert preview.draw(black, uncertain, raw=True) != preview.draw(black, sure, raw=True)
