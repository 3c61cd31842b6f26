"""Detectors find faces where they are, in the image's own pixels, and say why one stands in."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Box, Image
from edge.cameras.demo import DemoCamera
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detect import Detection, Detector, Haar, make_detector
from edge.detector_files import YUNET_FILE
from edge.track import iou

SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / ".." / "shared"))
MODELS = SHARED / "models"
needs_yunet = pytest.mark.skipif(
    not (MODELS / YUNET_FILE).is_file(), reason="no YuNet file in ../shared/models"
)
CLIPS = sorted((SHARED / "video").glob("*.mkv"))


def yunet(detect_size: int = 320) -> Detector:
    return make_detector("yunet", folders=[MODELS], detect_size=detect_size)


@pytest.fixture(scope="module")
def demo() -> DemoCamera:
    camera = DemoCamera(seed=3)
    camera.open()
    return camera


def two_faces(found: list[Detection]) -> bool:
    """One face in each half of a 640×480 picture, of a plausible size."""
    left = [d for d in found if d.box.x + d.box.w / 2 < 320]
    sizes = all(70 < d.box.w < 220 and 70 < d.box.h < 260 for d in found)
    return len(found) == 2 and len(left) == 1 and sizes and iou(found[0].box, found[1].box) == 0


@needs_yunet
def test_yunet_finds_both_people_of_the_demo(demo: DemoCamera) -> None:
    detector = yunet()
    good = [two_faces(detector.detect(demo.frame(k))) for k in range(0, 1800, 30)]
    assert np.mean(good) >= 0.95


def test_haar_finds_both_people_of_the_demo(demo: DemoCamera) -> None:
    detector = make_detector("haar")
    good = [two_faces(detector.detect(demo.frame(k))) for k in range(0, 1800, 45)]
    assert np.mean(good) >= 0.95


@needs_yunet
@pytest.mark.skipif(not CLIPS, reason="no clips in ../shared/video")
@pytest.mark.parametrize("clip", CLIPS, ids=lambda p: p.stem)
def test_yunet_finds_a_face_in_95_of_100_frames(clip: Path) -> None:
    detector = yunet()
    camera = open_camera(str(clip), width=640, height=480, fps=30, seed=0, paced=False)
    # Every third frame: the clips are slow against 30 fps, and the suite should be quick.
    seen = [bool(detector.detect(f.image)) for f in frames(camera) if f.sequence % 3 == 0]
    assert len(seen) > 10
    assert np.mean(seen) >= 0.95


def detectors() -> list[Detector]:
    have = (MODELS / YUNET_FILE).is_file()
    return [make_detector("haar"), *([yunet()] if have else [])]


@pytest.mark.parametrize("detector", detectors(), ids=lambda d: d.name)
def test_boxes_are_in_the_pixels_of_the_image_whatever_its_size(
    detector: Detector, demo: DemoCamera
) -> None:
    image = demo.frame(0)
    small = detector.detect(image)
    large = detector.detect(np.asarray(cv2.resize(image, (1280, 960)), np.uint8))
    again = detector.detect(image)
    assert again == small, "a change of size in between left something behind"
    for one in small:
        b = one.box
        doubled = Box(2 * b.x, 2 * b.y, 2 * b.w, 2 * b.h)
        assert max(iou(doubled, other.box) for other in large) > 0.7


@pytest.mark.parametrize("detector", detectors(), ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (1, 1000), (60, 800), (1000, 1), (48, 48)])
def test_an_image_without_a_face_gives_none(detector: Detector, shape: tuple[int, int]) -> None:
    image: Image = np.full((*shape, 3), 127, np.uint8)
    assert detector.detect(image) == []


@needs_yunet
def test_yunet_finds_a_face_of_twenty_pixels(demo: DemoCamera) -> None:
    frame = demo.frame(0)
    scale = 20 / max(d.box.w for d in yunet().detect(frame))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = np.full((480, 640, 3), 150, np.uint8)
    image[100 : 100 + small.shape[0], 200 : 200 + small.shape[1]] = small
    found = yunet().detect(image)
    assert found and 15 < found[0].box.w < 27


def test_auto_falls_back_to_haar_and_says_why(tmp_path: Path) -> None:
    detector = make_detector("auto", folders=[tmp_path])
    assert isinstance(detector, Haar)
    assert str(tmp_path) in detector.note and "\n" not in detector.note
    (tmp_path / YUNET_FILE).write_bytes(b"not the model")
    detector = make_detector("auto", folders=[tmp_path])
    assert detector.name == "haar"
    assert str(tmp_path / YUNET_FILE) in detector.note and "sha256" in detector.note


def test_demanding_yunet_without_its_file_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="detector yunet: no face_detection_yunet"):
        make_detector("yunet", folders=[tmp_path])


@needs_yunet
def test_auto_is_yunet_where_the_file_is_right() -> None:
    detector = make_detector("auto", folders=[MODELS])
    assert detector.name == "yunet" and detector.note == ""
