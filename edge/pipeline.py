"""One frame from image to result: detect, track, judge quality, classify, smooth."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from contract.bundle import Bundle
from contract.faces import prepare_detection
from contract.metrics import softmax
from contract.telemetry import FaceResult, FrameResult
from edge.cameras.base import Frame
from edge.detect import Detector
from edge.labels import FaceEvidence, Labels, settings_from
from edge.quality import QualityGate
from edge.schedule import DetectorSchedule
from edge.smooth import Probabilities, SmoothingSettings
from edge.track import Track, Tracker
from firmware_config.profile import QualityConfig, SmoothingConfig
from runtime.session import Session


def smoothing_settings(config: SmoothingConfig, bundle: Bundle) -> SmoothingSettings:
    """The profile's smoothing with the bundle's thresholds."""
    return settings_from(config, bundle.info.abstain_threshold, bundle.info.class_thresholds)


class Pipeline:
    """The stages with their state. Not thread-safe; one frame at a time."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        session: Session,
        detector: Detector,
        smoothing: SmoothingSettings,
        schedule: DetectorSchedule | None = None,
        quality: QualityGate | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if detector.name not in bundle.info.input.crop:
            raise ValueError(f"the bundle has no crop for detector '{detector.name}'")
        self._bundle, self._session, self._detector = bundle, session, detector
        self._now_ns = now_ns
        self.smoothing = smoothing
        self._labels = Labels(smoothing)
        self._schedule = schedule or DetectorSchedule()
        self._quality = quality or QualityGate(QualityConfig())
        self._tracker = Tracker()
        self._tracks: list[Track] = []

    @property
    def flips(self) -> int:
        """Shown labels that changed in the last frame."""
        return self._labels.flips

    def change(self, smoothing: SmoothingConfig, quality: QualityConfig) -> None:
        """Go on by other settings from the next frame on; tracks and labels stay."""
        self.smoothing = smoothing_settings(smoothing, self._bundle)
        self._labels.change(self.smoothing)
        self._quality = QualityGate(quality)

    def _look(self, frame: Frame, lap: Callable[[str], None]) -> bool:
        """Bring the tracks to this frame; whether the detector was needed for it."""
        size = frame.image.shape[1], frame.image.shape[0]
        expected = self._tracker.predict(frame.mono_ns)
        if not self._schedule.due(frame.mono_ns, size, expected):
            self._tracks = self._tracker.follow(frame.mono_ns)
            lap("track")
            return False
        found = self._detector.detect(frame.image)
        lap("detect")
        self._tracks = self._tracker.update(found, frame.mono_ns)
        self._schedule.searched(frame.mono_ns, size, self._tracks)
        lap("track")
        return True

    def _classify(self, frame: Frame, tracks: Sequence[Track]) -> Probabilities:
        """Calibrated probabilities `T×7` of these tracks, in one batch."""
        info = self._bundle.info
        faces = [
            prepare_detection(frame.image, track.box, info.input, self._detector.name)
            for track in tracks
        ]
        return softmax(self._session.run(np.stack(faces)), info.temperature)

    def _evidence(self, frame: Frame, lap: Callable[[str], None]) -> list[FaceEvidence]:
        """What this frame says about each of the current tracks."""
        poor = [
            self._quality.judge(frame.image, track.box, track.landmarks) for track in self._tracks
        ]
        lap("quality")
        good = [track for track, why in zip(self._tracks, poor, strict=True) if not why]
        found = iter(self._classify(frame, good) if good else ())
        lap("classify")
        return [
            FaceEvidence(track.id, None if why else next(found), why)
            for track, why in zip(self._tracks, poor, strict=True)
        ]

    def process(self, frame: Frame) -> FrameResult:
        """The result of a frame. End-to-end time counts from the frame's own time stamp."""
        stages: dict[str, float] = {}
        began = self._now_ns()

        def lap(stage: str) -> None:
            nonlocal began
            now = self._now_ns()
            stages[stage] = (now - began) / 1e6
            began = now

        detected = self._look(frame, lap)
        evidence = self._evidence(frame, lap)
        faces = self._smooth(evidence, frame.mono_ns)
        lap("smooth")
        height, width = frame.image.shape[:2]
        return FrameResult(
            sequence=frame.sequence,
            mono_ns=frame.mono_ns,
            utc_ns=frame.utc_ns,
            width=width,
            height=height,
            faces=faces,
            stages_ms=stages,
            e2e_ms=(began - frame.mono_ns) / 1e6,
            detected=detected,
        )

    def _smooth(self, evidence: Sequence[FaceEvidence], mono_ns: int) -> tuple[FaceResult, ...]:
        """The results of the current tracks, from one piece of evidence for each, in order."""
        labels = self._labels.update(evidence, self._tracker.alive(), mono_ns)
        return tuple(
            FaceResult(
                track=track.id,
                box=(track.box.x, track.box.y, track.box.w, track.box.h),
                detector_score=track.score,
                probabilities=()
                if seen.probabilities is None
                else tuple(seen.probabilities.tolist()),
                smoothed=shown.smoothed,
                top=shown.top,
                label=shown.label,
                confidence=shown.confidence,
                held_s=shown.held_s,
                quality=seen.quality,
            )
            for track, seen, shown in zip(self._tracks, evidence, labels, strict=True)
        )
