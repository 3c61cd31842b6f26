"""YuNet in OpenVINO answers as OpenCV's own does, for any size of frame; what fails is replaced."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.faces import Image
from edge import detect_openvino, yunet_graph
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detect import make_detector
from edge.detect_base import resize
from edge.detect_opencv import YuNet
from edge.detect_openvino import SIZES_KEPT, OpenVinoYuNet, decode
from edge.detect_reference import Answer, opencv_answer
from edge.detector_files import YUNET_FILE


@pytest.fixture(scope="module")
def model(shared: Path) -> Path:
    file = shared / "models" / YUNET_FILE
    if not file.is_file():
        pytest.skip(f"needs YuNet, and there is no {file}")
    return file


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Image]:
    """Frames of real clips, one and two people."""
    found = []
    for name in ("sister.mkv", "two-people.mp4"):
        camera = open_camera(
            str(shared / "video" / name), width=640, height=480, fps=30, seed=0, paced=False
        )
        found += [frame.image for frame in frames(camera) if frame.sequence % 30 == 0]
    return found


def assert_alike(ours: OpenVinoYuNet, theirs: YuNet, image: Image) -> int:
    one, other = ours.detect(image), theirs.detect(image)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-3)
        box, wanted = (np.array([d.box.x, d.box.y, d.box.w, d.box.h]) for d in (a, b))
        np.testing.assert_allclose(box, wanted, atol=0.1)
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.1)
    return len(one)


def test_it_agrees_with_opencv_on_real_frames(model: Path, pictures: list[Image]) -> None:
    ours, theirs = OpenVinoYuNet(model, detect_size=320), YuNet(model, detect_size=320)
    seen = [assert_alike(ours, theirs, image) for image in pictures]
    assert min(seen) >= 1 and max(seen) >= 2


def test_every_size_of_frame_is_served_and_few_are_kept(model: Path, pictures: list[Image]) -> None:
    ours, theirs = OpenVinoYuNet(model, detect_size=320), YuNet(model, detect_size=320)
    image = pictures[0]
    sizes = [(640, 360), (480, 640), (333, 333), (200, 50), (640, 300), (640, 480)]
    for size in sizes:
        scaled = np.asarray(cv2.resize(image, size), np.uint8)
        assert_alike(ours, theirs, scaled)
    assert len(ours._networks) <= SIZES_KEPT


def test_a_smaller_frame_sees_nothing_of_the_one_before(model: Path, pictures: list[Image]) -> None:
    """Two sizes of frame that share one compiled network, and its input buffer."""
    detector = OpenVinoYuNet(model, detect_size=320)
    detector.detect(pictures[0])
    low = np.full((400, 640, 3), 127, np.uint8)
    assert detector._network(320, 200) is not detector._network(320, 240)
    wide = np.full((450, 640, 3), 127, np.uint8)
    assert detector._network(320, 225) is detector._network(320, 240)
    assert detector.detect(low) == detector.detect(wide) == []


def test_cells_are_decoded_as_the_model_documents_it() -> None:
    """Worked out by hand: stride 16, column 3, row 2; one cell sure, its neighbour not."""
    grid = np.array([[3, 2, 16], [4, 2, 16], [0, 0, 8]], np.float32)
    answer = np.zeros((3, 16), np.float32)
    answer[0, :2] = 0.64, 1.0
    answer[1, :2] = 0.5, 0.5
    answer[2, :2] = 1.2, 0.9  # over 1 counts as 1
    answer[0, 2:6] = 0.5, -0.25, np.log(4), np.log(5)
    answer[0, 6:8] = 0.25, 1.0
    boxes, points, scores = decode(answer, grid, 0.6)
    np.testing.assert_allclose(scores, [0.9**0.5, 0.8], rtol=1e-6)
    # centre (56, 28), sides 64 × 80
    np.testing.assert_allclose(boxes[1], [24, -12, 64, 80], rtol=1e-5)
    np.testing.assert_allclose(points[1, 0], [52, 48])


def test_what_differs_from_opencv_is_not_used(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = detect_openvino._Network.run
    monkeypatch.setattr(detect_openvino._Network, "run", lambda self, image: right(self, image) + 1)
    detector = make_detector("auto", folders=[model.parent])
    assert isinstance(detector, YuNet)
    assert "away from OpenCV's" in detector.note and "\n" not in detector.note


def test_a_file_that_is_built_otherwise_runs_in_opencv(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yunet_graph, "STRIDES", (8, 16, 64))
    detector = make_detector("auto", folders=[model.parent])
    assert isinstance(detector, YuNet)
    assert detector.note and "\n" not in detector.note


def test_without_openvino_yunet_runs_in_opencv(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "edge.detect_openvino", None)
    detector = make_detector("auto", folders=[model.parent])
    assert isinstance(detector, YuNet) and detector.name == "yunet"
    assert "OpenVINO is not installed" in detector.note


def test_a_runtime_that_fails_is_replaced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(detect_openvino._Network, "__init__", fail)
    detector = make_detector("auto", folders=[model.parent])
    assert isinstance(detector, YuNet) and "no such instruction" in detector.note


def test_a_cache_that_cannot_be_written_costs_only_time(
    model: Path, pictures: list[Image], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    detector = make_detector("auto", folders=[model.parent], cache=tmp_path / "file" / "cache")
    assert isinstance(detector, OpenVinoYuNet)
    assert detector.detect(pictures[0])


def test_opencv_is_asked_once_and_openvino_at_every_start(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def count(file: Path, picture: Image) -> Answer:
        asked.append(file)
        return opencv_answer(file, picture)

    def start() -> str:
        return make_detector("auto", folders=[model.parent], cache=tmp_path).note

    monkeypatch.setattr(detect_openvino, "opencv_answer", count)
    assert (start(), start(), len(asked)) == ("", "", 1)
    (kept,) = tmp_path.glob("yunet-opencv-*.npy")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])
    assert (start(), len(asked)) == ("", 2) and kept.read_bytes() == whole
    np.save(kept, np.load(kept) + 1)
    assert (start(), len(asked)) == ("", 3), "a wrong answer that was kept is no fault of OpenVINO"
    right = detect_openvino._Network.run
    monkeypatch.setattr(detect_openvino._Network, "run", lambda self, image: right(self, image) + 1)
    assert "away from OpenCV's" in start(), "what was kept never stands in for the check"


def test_halving_first_changes_a_picture_little(pictures: list[Image]) -> None:
    large = np.asarray(cv2.resize(pictures[0], (1280, 720)), np.uint8)
    wanted = cv2.resize(large, (320, 180), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(large, (320, 180)).astype(int) - wanted.astype(int)).max() <= 2
