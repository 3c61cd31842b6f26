"""The box → training frame mapping is recovered from a detector whose habit is known."""

import json
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Box, CropGeometry, Image, read_image, square_crop
from contract.manifest import Row, read_manifest, write_manifest
from edge.cli import main
from edge.detect import Detection, make_detector
from edge.detector_files import YUNET_FILE
from edge.offline.fit_crop import FACE_PX, FRAME_H, FRAME_W, LEAST_FACES, evenly, fit

MIDDLE = (FRAME_W / 2, FRAME_H / 2)


class Habit:
    """A detector whose box is always so large and so far beside the training frame's middle.

    It takes no notice of the picture, except that a black one has no face.
    """

    name: Literal["yunet", "haar"] = "haar"
    note = ""

    def __init__(self, w: float, h: float, right: float = 0.0, down: float = 0.0) -> None:
        self.box = Box(MIDDLE[0] + right - w / 2, MIDDLE[1] + down - h / 2, w, h)

    def detect(self, image: Image) -> list[Detection]:
        if not image.any():
            return []
        chin = Box(self.box.x, self.box.y, self.box.w / 4, self.box.h / 4)
        return [Detection(chin, 0.99), Detection(self.box, 0.7)]


def images(count: int, value: int = 120) -> list[Image]:
    return [np.full((48, 48), value, np.uint8) for _ in range(count)]


def test_a_known_mapping_is_recovered() -> None:
    found = fit(images(30), Habit(w=100, h=128, right=8, down=-12))
    assert (found["images"], found["found"]) == (30, 30)
    assert found["scale"] == pytest.approx(FACE_PX / 128, abs=1e-3)
    assert found["shift_x"] == pytest.approx(-8 / 100, abs=1e-3)
    assert found["shift_y"] == pytest.approx(12 / 128, abs=1e-3)
    assert found["quartiles"]["scale"] == [found["scale"]] * 3


def test_the_mapping_turns_the_box_back_into_the_training_frame() -> None:
    detector = Habit(w=100, h=128, right=8, down=-12)
    found = fit(images(LEAST_FACES), detector)
    geometry = CropGeometry(**{key: found[key] for key in ("scale", "shift_x", "shift_y")})
    scene = np.zeros((FRAME_H, FRAME_W), np.uint8)
    left, top = (FRAME_W - FACE_PX) // 2, (FRAME_H - FACE_PX) // 2
    scene[top : top + FACE_PX, left : left + FACE_PX] = 255
    crop = square_crop(scene, detector.box, geometry)
    assert crop.shape == (FACE_PX, FACE_PX)
    assert crop.min() == 255


def test_too_few_faces_are_no_fit() -> None:
    few = [*images(LEAST_FACES - 1), *images(40, value=0)]
    with pytest.raises(UserError, match=f"a face in {LEAST_FACES - 1} of 59 images"):
        fit(few, Habit(100, 100))
    assert fit([*few, *images(1)], Habit(100, 100))["found"] == LEAST_FACES


@pytest.mark.parametrize(("have", "want", "get"), [(999, 500, 500), (7, 500, 7), (10, 3, 3)])
def test_as_many_images_are_taken_as_asked_for(have: int, want: int, get: int) -> None:
    rows = [Row(str(k), "happy", "train", "x") for k in range(have)]
    taken = [int(row.path) for row in evenly(rows, want)]
    assert len(set(taken)) == get
    gaps = np.diff(taken)
    assert taken[0] == 0 and gaps.max() - gaps.min() <= 1
    assert have - taken[-1] <= gaps.max() + 1


def test_no_images_are_no_fit(tmp_path: Path) -> None:
    assert evenly([], 10) == []
    with pytest.raises(UserError, match="0 of 0"):
        fit([], Habit(100, 100))


def test_the_command_measures_both_detectors(
    shared: Path, face_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if not (shared / "models" / YUNET_FILE).is_file():
        pytest.skip(f"needs {YUNET_FILE} in ../shared/models")
    monkeypatch.setenv("FER_MODELS", str(shared / "models"))
    portrait = read_image(face_image)
    assert portrait is not None
    haar = max(make_detector("haar").detect(portrait), key=lambda d: d.box.w).box
    rows = []
    for number in range(LEAST_FACES):  # faces that fill their frame, a little closer each time
        geometry = CropGeometry(scale=1.15 - number / 200)
        cv2.imwrite(str(tmp_path / f"{number}.png"), square_crop(portrait, haar, geometry))
        rows.append(Row(f"{number}.png", "happy", "train", "portrait"))
    rows.append(Row("0.png", "happy", "val", "portrait"))
    write_manifest(tmp_path / "train.csv", rows)
    out = tmp_path / "crop.json"
    assert main(["fit-crop", "--manifest", str(tmp_path / "train.csv"), "--json", str(out)]) == 0
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert found["manifest_sha256"] == read_manifest(tmp_path / "train.csv").sha256
    assert found["haar"]["scale"] == pytest.approx(1.1, abs=0.15)
    for kind in ("yunet", "haar"):
        assert found[kind]["images"] == LEAST_FACES, "only the training split"
        assert f"[input.crop.{kind}]" in printed
