"""One frame from image to result: detect, track, classify, smooth."""

import time
from collections.abc import Callable

import numpy as np

from contract.bundle import Bundle
from contract.expressions import EXPRESSIONS
from contract.faces import prepare_detection
from contract.metrics import softmax
from contract.telemetry import FaceResult, FrameResult
from edge.cameras.base import Frame
from edge.detect import Detector
from edge.smooth import Smoother, SmoothingSettings
from edge.track import Track, Tracker
from firmware_config.profile import SmoothingConfig
from runtime.session import Session


def smoothing_settings(config: SmoothingConfig, bundle: Bundle) -> SmoothingSettings:
    """The profile's smoothing with the bundle's thresholds."""
    info = bundle.info
    abstain = config.abstain_threshold
    if abstain is None:
        abstain = info.abstain_threshold
    thresholds = tuple(max(abstain, info.class_thresholds.get(name, 0.0)) for name in EXPRESSIONS)
    return SmoothingSettings(config.tau_s, config.hysteresis, thresholds)


class Pipeline:
    """The stages with their state. Not thread-safe; one frame at a time."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        session: Session,
        detector: Detector,
        smoothing: SmoothingSettings,
        detect_interval_s: float = 0.0,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if detector.name not in bundle.info.input.crop:
            raise ValueError(f"the bundle has no crop for detector '{detector.name}'")
        self._bundle, self._session, self._detector = bundle, session, detector
        self._smoothing, self._now_ns = smoothing, now_ns
        self.thresholds = smoothing.thresholds
        self._interval_ns = round(detect_interval_s * 1e9)
        self._tracker = Tracker()
        self._smoothers: dict[int, Smoother] = {}
        self._tracks: list[Track] = []
        self._detected_ns: int | None = None
        self.flips = 0
        """Labels that changed in the last frame."""

    def _due(self, mono_ns: int) -> bool:
        if self._detected_ns is None or self._interval_ns == 0 or not self._tracks:
            return True
        return mono_ns - self._detected_ns >= self._interval_ns

    def _classify(self, frame: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Calibrated probabilities `T×7` of the current tracks, in one batch."""
        info = self._bundle.info
        faces = np.stack(
            [
                prepare_detection(frame.image, track.box, info.input, self._detector.name)
                for track in self._tracks
            ]
        )
        return softmax(self._session.run(faces), info.temperature)

    def process(self, frame: Frame) -> FrameResult:
        """The result of a frame. End-to-end time counts from the frame's own time stamp."""
        stages: dict[str, float] = {}
        began = self._now_ns()

        def lap(stage: str) -> None:
            nonlocal began
            now = self._now_ns()
            stages[stage] = (now - began) / 1e6
            began = now

        detected = self._due(frame.mono_ns)
        if detected:
            found = self._detector.detect(frame.image)
            self._detected_ns = frame.mono_ns
            lap("detect")
            self._tracks = self._tracker.update(found, frame.mono_ns)
            lap("track")
        probabilities = self._classify(frame) if self._tracks else np.empty((0, len(EXPRESSIONS)))
        lap("classify")
        faces = self._smooth(probabilities, frame.mono_ns)
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

    def _smooth(
        self, probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float64]], mono_ns: int
    ) -> tuple[FaceResult, ...]:
        alive = self._tracker.alive()
        self._smoothers = {track: s for track, s in self._smoothers.items() if track in alive}
        self.flips = 0
        faces = []
        for track, p in zip(self._tracks, probabilities, strict=True):
            if track.id not in self._smoothers:
                self._smoothers[track.id] = Smoother(self._smoothing)
            shown = self._smoothers[track.id].update(p, mono_ns)
            self.flips += shown.flipped
            faces.append(
                FaceResult(
                    track=track.id,
                    box=(track.box.x, track.box.y, track.box.w, track.box.h),
                    detector_score=track.score,
                    probabilities=tuple(float(v) for v in p),
                    smoothed=shown.smoothed,
                    top=shown.top,
                    label=shown.label,
                    confidence=shown.confidence,
                    held_s=shown.held_s,
                )
            )
        return tuple(faces)
