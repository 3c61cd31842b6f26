"""A frame goes through the stages in their order; with made-up faces and a clock by hand."""

import weakref
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.bundle import Bundle
from contract.expressions import EXPRESSIONS, INDEX
from contract.faces import Box, CropGeometry, Image, prepare_detection
from contract.metrics import softmax
from contract.telemetry import FrameResult
from edge import labels as labels_module
from edge.cameras.base import Frame
from edge.detect import Detection
from edge.pipeline import Pipeline, smoothing_settings
from edge.schedule import DetectorSchedule
from edge.smooth import Smoother, SmoothingSettings
from firmware_config.profile import QualityConfig, SmoothingConfig
from runtime.session import Backend
from tests.edge.results import SECOND

IMAGE: Image = np.random.default_rng(2).integers(0, 256, (480, 640, 3), dtype=np.uint8)
LEFT, RIGHT = Box(80, 100, 120, 150), Box(400, 120, 110, 140)
CROPS = {
    "yunet": CropGeometry(scale=1.2, shift_y=-0.05),
    "haar": CropGeometry(scale=0.9, shift_x=0.1),
}
MS = SECOND // 1000


class Faces:
    """A detector that finds what it is told."""

    note = ""

    def __init__(self, *boxes: Box, name: Literal["yunet", "haar"] = "yunet") -> None:
        self.name = name
        self.boxes = list(boxes)
        self.calls = 0

    def detect(self, image: Image) -> list[Detection]:
        self.calls += 1
        return [Detection(box, 0.9) for box in self.boxes]


class Mood:
    """A session that sees the same expression in every face."""

    backend: Backend = "onnxruntime"
    device = "CPU"

    def __init__(self, name: str = "happy") -> None:
        self.name = name
        self.batches: list[NDArray[np.uint8]] = []

    def run(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(faces)
        logits = np.zeros((len(faces), len(EXPRESSIONS)), np.float32)
        logits[:, INDEX[self.name]] = 2.0
        return logits

    def prepare(self, count: int) -> None:
        """Ready for any."""

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def bundle(tiny: Bundle) -> Bundle:
    face = tiny.info.input.model_copy(update={"crop": CROPS})
    return Bundle(tiny.folder, tiny.info.model_copy(update={"input": face}), tiny.sha256)


def make(bundle: Bundle, detector: Faces, session: Mood | None = None, **more: Any) -> Pipeline:
    more.setdefault("smoothing", SmoothingSettings(0.25, 0.1, (0.4,) * 7))
    return Pipeline(bundle=bundle, session=session or Mood(), detector=detector, **more)


def frame(sequence: int, mono_ns: int, image: Image = IMAGE) -> Frame:
    return Frame(image, mono_ns, mono_ns + 7, sequence)


def run(pipeline: Pipeline, count: int, fps: int = 30, start_ns: int = 0) -> list[FrameResult]:
    return [pipeline.process(frame(k, start_ns + k * SECOND // fps)) for k in range(count)]


def test_the_result_is_that_of_the_frame_and_its_faces(bundle: Bundle) -> None:
    result = make(bundle, Faces(LEFT, RIGHT)).process(frame(41, SECOND))
    assert (result.sequence, result.mono_ns, result.utc_ns) == (41, SECOND, SECOND + 7)
    assert (result.width, result.height, result.detected) == (640, 480, True)
    assert [face.track for face in result.faces] == [1, 2]
    assert result.faces[0].box == (80, 100, 120, 150)
    logits = np.zeros(7)
    logits[INDEX["happy"]] = 2.0
    for face in result.faces:
        assert face.probabilities == tuple(softmax(logits, bundle.info.temperature))
        assert (face.label, face.top, face.detector_score) == ("happy", "happy", 0.9)


def test_the_stages_run_in_order_and_each_is_timed(bundle: Bundle) -> None:
    clock = iter(range(3 * MS, SECOND, MS))
    pipeline = make(bundle, Faces(LEFT), now_ns=lambda: next(clock))
    result = pipeline.process(frame(0, 1 * MS))
    assert list(result.stages_ms.items()) == [
        ("detect", 1.0), ("track", 1.0), ("quality", 1.0), ("classify", 1.0), ("smooth", 1.0),
    ]  # fmt: skip
    # The frame was read at 1 ms, waited until 3 ms, and was done at 8 ms.
    assert result.e2e_ms == 7.0


def test_all_faces_of_a_frame_go_through_the_model_in_one_batch(bundle: Bundle) -> None:
    session = Mood()
    make(bundle, Faces(LEFT, RIGHT), session).process(frame(0, 0))
    assert [batch.shape for batch in session.batches] == [(2, 48, 48, 1)]


def test_a_frame_without_a_face_does_not_trouble_the_model(bundle: Bundle) -> None:
    session = Mood()
    result = make(bundle, Faces(), session).process(frame(0, 0))
    assert (result.faces, session.batches) == ((), [])
    assert set(result.stages_ms) == {"detect", "track", "quality", "classify", "smooth"}


@pytest.mark.parametrize("name", ["yunet", "haar"])
def test_a_face_is_cropped_as_was_measured_for_its_detector(
    bundle: Bundle, name: Literal["yunet", "haar"]
) -> None:
    session = Mood()
    make(bundle, Faces(RIGHT, LEFT, name=name), session).process(frame(0, 0))
    for prepared, box in zip(session.batches[0], (LEFT, RIGHT), strict=True):
        wanted = prepare_detection(IMAGE, box, bundle.info.input, name)
        assert np.array_equal(prepared, wanted)
    other = "haar" if name == "yunet" else "yunet"
    assert not np.array_equal(
        session.batches[0][0], prepare_detection(IMAGE, LEFT, bundle.info.input, other)
    )


def test_a_detector_without_a_crop_is_refused(tiny: Bundle) -> None:
    face = tiny.info.input.model_copy(update={"crop": {"haar": CROPS["haar"]}})
    info = tiny.info.model_copy(update={"input": face})
    with pytest.raises(ValueError, match="yunet"):
        make(Bundle(tiny.folder, info, tiny.sha256), Faces())


def test_by_default_every_frame_is_searched(bundle: Bundle) -> None:
    detector = Faces(LEFT)
    assert all(result.detected for result in run(make(bundle, detector), 20))
    assert detector.calls == 20


@pytest.mark.parametrize(("fps", "every"), [(30, 3), (10, 1), (60, 6)])
def test_detections_are_so_many_seconds_apart_whatever_the_frame_rate(
    bundle: Bundle, fps: int, every: int
) -> None:
    detector, session = Faces(LEFT), Mood()
    schedule = DetectorSchedule("adaptive", 0.1)
    results = run(make(bundle, detector, session, schedule=schedule), 31, fps)
    assert [r.sequence for r in results if r.detected] == list(range(0, 31, every))
    assert all(len(r.faces) == 1 for r in results), "a face is shown between detections too"
    assert len(session.batches) == 31, "and classified anew"
    skipped = [r for r in results if not r.detected]
    assert all(set(r.stages_ms) == {"track", "quality", "classify", "smooth"} for r in skipped)


def test_without_a_face_in_view_every_frame_is_searched(bundle: Bundle) -> None:
    detector = Faces()
    pipeline = make(bundle, detector, schedule=DetectorSchedule("adaptive", 1.0))
    run(pipeline, 5)
    assert detector.calls == 5
    detector.boxes = [LEFT]
    assert [r.detected for r in run(pipeline, 5, start_ns=SECOND)] == [True, *[False] * 4]


def test_settings_that_change_hold_for_the_faces_in_view_without_losing_them(
    bundle: Bundle,
) -> None:
    session = Mood("happy")
    pipeline = make(bundle, Faces(LEFT), session)
    before = run(pipeline, 30)[-1].faces[0]
    session.name = "sad"
    at_once = SmoothingConfig(tau_s=0.0, hysteresis=0.0, evidence_s=0.0)
    pipeline.change(at_once, QualityConfig(enabled=False))
    (now,) = pipeline.process(frame(30, SECOND)).faces
    assert (now.track, before.label, now.label) == (before.track, "happy", "sad")
    assert now.smoothed == pytest.approx(now.probabilities), "by the new time constant"
    too_small = QualityConfig(least_side=1000.0)
    pipeline.change(SmoothingConfig(quality_grace_s=0.0), too_small)
    (poor,) = pipeline.process(frame(31, 31 * SECOND // 30)).faces
    assert (poor.track, poor.label, poor.quality) == (before.track, "low_quality", "too small")
    assert poor.smoothed == pytest.approx(now.smoothed), "what was known of it is kept"


def test_what_is_remembered_of_a_face_ends_with_its_track(bundle: Bundle) -> None:
    detector, session = Faces(LEFT), Mood("happy")
    pipeline = make(bundle, detector, session)
    before = run(pipeline, 60)[-1].faces[0]
    assert (before.track, before.label) == (1, "happy") and before.held_s > 1.9
    detector.boxes = []
    assert run(pipeline, 60, start_ns=2 * SECOND)[-1].faces == ()
    detector.boxes, session.name = [LEFT], "sad"
    after = run(pipeline, 1, start_ns=4 * SECOND)[0].faces[0]
    assert (after.track, after.label, after.held_s) == (2, "sad", 0.0)
    assert after.smoothed == after.probabilities


def test_people_who_pass_by_leave_nothing_behind(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: weakref.WeakSet[Smoother] = weakref.WeakSet()

    def remembered(settings: SmoothingSettings) -> Smoother:
        one = Smoother(settings)
        kept.add(one)
        return one

    monkeypatch.setattr(labels_module, "Smoother", remembered)
    detector = Faces()
    pipeline = make(bundle, detector)
    for k in range(50):
        detector.boxes = [LEFT if k % 2 else RIGHT]
        last = pipeline.process(frame(k, 2 * k * SECOND))
    assert last.faces[0].track == 50
    assert len(kept) == 1


def test_a_face_missed_for_a_moment_goes_on_where_it_was(bundle: Bundle) -> None:
    detector = Faces(LEFT)
    pipeline = make(bundle, detector)
    run(pipeline, 60)
    detector.boxes = []
    run(pipeline, 10, start_ns=2 * SECOND)
    detector.boxes = [LEFT]
    back = run(pipeline, 1, start_ns=2 * SECOND + SECOND // 2)[0].faces[0]
    assert (back.track, back.label) == (1, "happy")
    assert back.held_s == pytest.approx(2.5)


def test_a_change_of_a_label_is_counted_in_its_frame(bundle: Bundle) -> None:
    session = Mood("happy")
    pipeline = make(bundle, Faces(LEFT, RIGHT), session)
    flips = []
    for k in range(60):
        session.name = "happy" if k < 30 else "sad"
        pipeline.process(frame(k, k * SECOND // 30))
        flips.append(pipeline.flips)
    assert sum(flips) == 2, "one for each face, and none for its first label"
    assert 30 <= flips.index(2) < 45


def test_thresholds_are_the_bundles_unless_the_profile_says_otherwise(tiny: Bundle) -> None:
    info = tiny.info.model_copy(
        update={"abstain_threshold": 0.45, "class_thresholds": {"fear": 0.6, "sad": 0.3}}
    )
    bundle = Bundle(tiny.folder, info, tiny.sha256)
    found = smoothing_settings(SmoothingConfig(tau_s=0.5, hysteresis=0.2), bundle)
    assert (found.tau_s, found.hysteresis) == (0.5, 0.2)
    assert found.thresholds == (0.45, 0.45, 0.6, 0.45, 0.45, 0.45, 0.45)
    lower = smoothing_settings(SmoothingConfig(abstain_threshold=0.2), bundle)
    assert lower.thresholds == (0.2, 0.2, 0.6, 0.2, 0.3, 0.2, 0.2)


def test_frames_of_another_size_are_taken_as_they_come(bundle: Bundle) -> None:
    pipeline = make(bundle, Faces(LEFT))
    pipeline.process(frame(0, 0))
    small: Image = np.zeros((90, 120, 3), np.uint8)
    result = pipeline.process(replace(frame(1, SECOND // 30), image=small))
    assert (result.width, result.height, len(result.faces)) == (120, 90, 1)


def test_a_face_too_poor_to_judge_is_left_out_of_the_batch_and_says_why(bundle: Bundle) -> None:
    dark = IMAGE.copy()
    dark[:, :320] //= 16
    session = Mood()
    pipeline = make(bundle, Faces(LEFT, RIGHT), session)
    left, right = pipeline.process(replace(frame(0, 0), image=dark)).faces
    assert (left.quality, left.probabilities, left.label) == ("too dark", (), "low_quality")
    assert (right.quality, right.label, len(right.probabilities)) == ("", "happy", 7)
    (batch,) = session.batches
    assert np.array_equal(batch[0], prepare_detection(dark, RIGHT, bundle.info.input, "yunet"))
    assert len(batch) == 1


def test_between_detections_a_face_is_expected_where_it_was_headed(bundle: Bundle) -> None:
    """It moves 60 px/s to the right; searched every 0.1 s, 30 frames a second."""
    detector = Faces(LEFT)
    pipeline = make(bundle, detector, schedule=DetectorSchedule("adaptive", 0.1))
    for k in range(60):
        detector.boxes = [Box(LEFT.x + 2 * k, LEFT.y, LEFT.w, LEFT.h)]
        result = pipeline.process(frame(k, k * SECOND // 30))
        if k > 30:
            assert result.faces[0].box[0] == pytest.approx(LEFT.x + 2 * k, abs=0.5)
    assert detector.calls <= 22


def test_a_face_is_the_same_person_after_a_long_pause_of_the_detector(bundle: Bundle) -> None:
    pipeline = make(bundle, Faces(LEFT), schedule=DetectorSchedule("adaptive", 3.0))
    assert {r.faces[0].track for r in run(pipeline, 200)} == {1}
    late = pipeline.process(frame(200, 20 * SECOND))
    assert late.faces[0].track == 2, "but not after a long pause of the camera"
