"""Built sessions: the same seed gives the same frames, and in them is what the plan says."""

import hashlib
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import Box, CropGeometry, Image, square_crop
from contract.manifest import Manifest, Row, read_manifest
from edge.cli import main
from edge.detect import Detection, Detector
from edge.offline.degrade import Degradation, Lens, Strengths, Wander, read_strengths
from edge.offline.degrade_fit import _Noise, _speed, fit, measure_clips
from edge.offline.score_labels import read_labels
from edge.offline.sessions import HOLD_S, SessionCamera, SessionPlan, plan_session, read_plan
from edge.offline.sessions_scene import Pose, face_patch, paste
from tests.models import make_images

STILL = Degradation(
    shift_speed=0, scale_speed=0, rotation_speed=0, light_speed=0, blur_sigma=0, noise_std=0,
    jpeg_quality=100,
)  # fmt: skip


MANIFEST = Manifest(
    Path("faces.csv"),
    "0" * 64,
    tuple(Row(f"{k}.png", EXPRESSIONS[k % 7], "train", "none") for k in range(35)),
)
"""Rows without images, for plans that are not shown."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("faces"), per_class=3, split="train")


def a_plan(manifest: Path, seed: int = 1, seconds: float = 12.0, **strengths: float) -> SessionPlan:
    return plan_session(
        read_manifest(manifest), split="train", seed=seed, seconds=seconds, fps=10.0,
        strengths=Strengths(STILL.model_copy(update=strengths), "0" * 64), detector=None,
    )  # fmt: skip


def fingerprint(plan: SessionPlan) -> str:
    camera, digest = SessionCamera("test", plan), hashlib.sha256()
    camera.open()
    while (image := camera.read()) is not None:
        assert image.shape == (480, 640, 3) and image.dtype == np.uint8
        digest.update(image.tobytes())
    return digest.hexdigest()


def build(manifest: Path, out: Path, *more: str) -> int:
    given = ["--manifest", str(manifest), "--split", "train", "--out", str(out), "--any-face"]
    return main(["sessions", "build", *given, *more])


def test_the_same_seed_gives_the_same_frames_from_the_folder_alone(
    manifest: Path, tmp_path: Path
) -> None:
    for out in ("a", "b"):
        assert build(manifest, tmp_path / out, "--seconds", "4", "--fps", "5", "--count", "2") == 0
    plans = [read_plan(tmp_path / out / f"train-{seed}") for out in "ab" for seed in (1, 2)]
    assert plans[0] == plans[2] and plans[1] == plans[3]
    assert fingerprint(plans[0]) == fingerprint(plans[2]) != fingerprint(plans[1])
    folder = tmp_path / "a" / "train-1"
    assert {path.name for path in folder.iterdir()} == {"session.toml", "labels.csv"}
    segments = read_labels(folder / "labels.csv")
    assert [(s.start_s, s.end_s, s.label) for s in segments] == [
        (s.start_s, s.end_s, s.label) for s in plans[0].segments
    ]
    assert plans[0].strengths_sha256 == read_strengths().sha256
    assert plans[0].degradation == read_strengths().degradation


def test_a_frame_does_not_depend_on_those_read_before(manifest: Path) -> None:
    plan = a_plan(manifest, noise_std=3, shift_speed=0.2, rotation_speed=10, jpeg_quality=60)
    one, other = SessionCamera("one", plan), SessionCamera("other", plan)
    for camera in (one, other):
        camera.open()
    for _ in range(7):
        one.read()
    last = one.read()
    assert last is not None and np.array_equal(last, other.frame(7))
    one.open()
    again = one.read()
    assert again is not None and np.array_equal(again, other.frame(0)), (
        "opened again it starts over"
    )


@given(seed=st.integers(0, 10_000), seconds=st.floats(4, 60))
def test_segments_follow_on_each_other_and_hold_their_time(seed: int, seconds: float) -> None:
    plan = plan_session(
        MANIFEST, split="train", seed=seed, seconds=seconds, fps=30,
        strengths=Strengths(STILL, "0" * 64), detector=None,
    )  # fmt: skip
    segments = plan.segments
    assert segments[0].start_s == 0 and segments[-1].end_s == seconds
    for a, b in pairwise(segments):
        assert a.end_s == b.start_s and a.label != b.label
    for segment in segments:
        length = segment.end_s - segment.start_s
        assert HOLD_S[0] - 0.001 <= length <= HOLD_S[1] + HOLD_S[0] + 0.001
    rows = {row.path: row.label for row in MANIFEST.rows}
    assert all(rows[segment.image] == segment.label for segment in segments)


def test_the_face_in_the_frame_is_the_image_of_the_segment(manifest: Path) -> None:
    plan = a_plan(manifest)
    camera = SessionCamera("test", plan)
    camera.open()
    for segment in plan.segments:
        number = math.ceil((segment.start_s + segment.fade_s) * plan.fps) + 1
        frame, side = camera.frame(number), plan.side_px
        face = frame[
            round(240 - side / 2) : round(240 + side / 2),
            round(320 - side / 2) : round(320 + side / 2),
            0,
        ]
        image = cv2.imread(str(manifest.parent / segment.image), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        small = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)
        alike = np.corrcoef(
            cv2.GaussianBlur(small, (0, 0), 1).ravel(), cv2.GaussianBlur(image, (0, 0), 1).ravel()
        )
        assert alike[0, 1] > 0.9


@given(x=st.floats(-300, 900), y=st.floats(-300, 700), side=st.floats(1, 600))
def test_a_face_partly_or_wholly_outside_the_frame_is_drawn_as_far_as_it_goes(
    x: float, y: float, side: float
) -> None:
    frame = np.full((120, 160, 3), 50, np.uint8)
    paste(frame, face_patch(np.full((48, 48), 200, np.uint8)), Pose(x, y, side, 10.0))
    assert frame.min() >= 49 and frame.max() <= 201


def test_a_manifest_that_changed_is_refused(manifest: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(manifest.parent, own)
    plan = a_plan(own / manifest.name)
    (own / manifest.name).write_text((own / manifest.name).read_text() + "\n")
    with pytest.raises(UserError, match="has changed since session test was built"):
        SessionCamera("test", plan).open()


class _SeesBright:
    """Takes a bright middle for a face."""

    name = "haar"
    note = ""

    def detect(self, image: Image) -> list[Detection]:
        seen = image[220:260, 300:340].mean() > 150
        return [Detection(Box(280, 200, 80, 80), 1.0)] if seen else []


def test_only_faces_the_detector_finds_are_taken_unless_any_will_do(tmp_path: Path) -> None:
    rows = []
    for k in range(20):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((48, 48), 240 if k % 4 else 20, np.uint8))
        rows.append(Row(f"{k}.png", ("happy", "sad")[k % 2], "train", "flat"))
    manifest = Manifest(tmp_path / "flat.csv", "0" * 64, tuple(rows))

    def images(rows: Manifest, detector: Detector | None) -> set[int]:
        plan = plan_session(
            rows, split="train", seed=3, seconds=60, fps=10,
            strengths=Strengths(STILL, "0" * 64), detector=detector,
        )  # fmt: skip
        assert plan.found_by == ("haar" if detector else "")
        return {int(segment.image.removesuffix(".png")) for segment in plan.segments}

    assert all(k % 4 for k in images(manifest, _SeesBright()))
    assert not all(k % 4 for k in images(manifest, None))
    dark = Manifest(manifest.file, "0" * 64, (rows[0], replace(rows[4], label="sad")))
    with pytest.raises(UserError, match="haar found no face in 50 images of '"):
        images(dark, _SeesBright())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--count", "0"], "--count 0"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--fps", "1000"], "--fps 1000"),
        (["--seed", "-1"], "--seed -1"),
        (["--split", "calib"], "split 'calib' has rows of 0 expressions"),
        (["--split", "all"], "invalid choice"),
    ],
)
def test_what_cannot_be_built_is_refused(
    manifest: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        build(manifest, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_a_plan_with_a_wrong_key_is_named(manifest: Path, tmp_path: Path) -> None:
    build(manifest, tmp_path, "--seconds", "4")
    file = tmp_path / "train-1" / "session.toml"
    file.write_text(file.read_text().replace("side_px", "side_pxl"))
    with pytest.raises(UserError, match=r"session\.toml: .*side_px"):
        read_plan(file.parent)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), speed=st.floats(0.01, 5))
def test_a_wander_has_the_speed_it_was_given(seed: int, speed: float) -> None:
    course = Wander(np.random.default_rng(seed), speed)
    times = np.arange(0, 200, 0.1)
    steps = np.diff([course.at(t) for t in times]) / 0.1
    # Slow waves near each other in frequency beat: it evens out over minutes, not seconds.
    assert math.sqrt((steps**2).mean()) == pytest.approx(speed, rel=0.35)


def test_noise_is_measured_as_it_was_added() -> None:
    grey = np.full((480, 640, 3), 120, np.uint8)
    lens, noise = Lens(STILL.model_copy(update={"noise_std": 3.0}), 5), _Noise()
    for number in range(6):
        noise.see(lens.apply(grey, number)[..., 1])
    # JPEG keeps the colours of noise at half the resolution, which costs some of it.
    assert noise.quiet()[0] == pytest.approx(3.0, rel=0.25)


def test_speed_is_that_of_the_motion_not_of_the_jitter() -> None:
    times = np.arange(0, 4, 1 / 30)
    steady = 2.0 * times
    jitter = np.random.default_rng(0).normal(0, 0.01, len(times))
    assert _speed(steady, 30) == pytest.approx(2.0)
    assert _speed(steady + jitter, 30) == pytest.approx(2.0, rel=0.05)


def test_the_strengths_are_fitted_to_clips_of_webcams(
    shared: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.cameras.video import VideoFiles

    monkeypatch.setenv("FER_MODELS", str(shared / "models"))
    measured, clips = measure_clips([VideoFiles("eat", [shared / "video" / "eat.mkv"])])
    assert clips == 1
    # Somebody before a webcam: a face of some size, that moves, but does not jump about.
    assert 40 < measured.side_px < 250
    assert 0.005 < measured.shift_speed < 2 and measured.rotation_speed < 60
    assert 0.05 < measured.noise < 5
    faces = [cv2.imread(str(path)) for path in sorted((manifest.parent / "train").iterdir())[:4]]
    found = fit(measured, [np.asarray(face, np.uint8) for face in faces])
    assert found.shift_speed == pytest.approx(measured.shift_speed, abs=1e-3)
    assert 0 <= found.noise_std < 8


def test_the_square_of_a_face_is_what_training_saw() -> None:
    """The mapping of `fit-crop` holds in built frames: no border creeps into the square."""
    frame = np.zeros((480, 640, 3), np.uint8)
    paste(frame, face_patch(np.full((48, 48), 200, np.uint8)), Pose(320, 240, 100))
    crop = square_crop(frame, Box(270, 190, 100, 100), CropGeometry(scale=1.0))
    assert (crop[3:-3, 3:-3] > 195).all()
