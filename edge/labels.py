"""The labels of all faces in view: one piece of code for live, replay, score and tune."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS, LOW_QUALITY
from edge.smooth import Shown, Smoother, SmoothingSettings
from firmware_config.profile import SmoothingConfig


def settings_from(
    config: SmoothingConfig, abstain_threshold: float, class_thresholds: Mapping[str, float]
) -> SmoothingSettings:
    """A profile's smoothing with a bundle's thresholds.

    A label's threshold is the greater of its own and the one for abstaining, which the profile may
    override.
    """
    abstain = config.abstain_threshold
    if abstain is None:
        abstain = abstain_threshold
    return SmoothingSettings(
        tau_s=config.tau_s,
        hysteresis=config.hysteresis,
        thresholds=tuple(max(abstain, class_thresholds.get(name, 0.0)) for name in EXPRESSIONS),
        dwell_s=config.dwell_s,
        vote_s=config.vote_s,
        quality_grace_s=config.quality_grace_s,
        evidence_s=config.evidence_s,
    )


@dataclass(frozen=True, slots=True)
class FaceEvidence:
    """What one frame says about one face.

    `probabilities` are calibrated, seven in the order of the expressions; None where the face was
    too poor to judge, and then `quality` says why.
    """

    track: int
    probabilities: NDArray[np.float64] | None
    quality: str = ""


_NOTHING = Shown((0.0,) * len(EXPRESSIONS), LOW_QUALITY, LOW_QUALITY, 0.0, 0.0, False)
"""What is known of a face that was never good enough to judge."""


class _Face:
    """One track: its smoother, and what is on show for it, poor moments included."""

    def __init__(self, settings: SmoothingSettings) -> None:
        self._smoother = Smoother(settings)
        self._grace_ns = round(settings.quality_grace_s * 1e9)
        self._poor_ns: int | None = None
        self._label: str | None = None
        self._since_ns = 0

    def change(self, settings: SmoothingSettings) -> None:
        self._smoother.change(settings)
        self._grace_ns = round(settings.quality_grace_s * 1e9)

    def update(self, evidence: FaceEvidence, mono_ns: int) -> Shown:
        if evidence.probabilities is not None:
            self._poor_ns = None
            shown = self._smoother.update(evidence.probabilities, mono_ns)
        else:
            if self._poor_ns is None:
                self._poor_ns = mono_ns
            shown = self._smoother.hold(mono_ns) or _NOTHING
            if mono_ns - self._poor_ns >= self._grace_ns:
                shown = replace(shown, label=LOW_QUALITY)
        flipped = self._label is not None and shown.label != self._label
        if shown.label != self._label:
            self._label, self._since_ns = shown.label, mono_ns
        held_s = max(0, mono_ns - self._since_ns) / 1e9
        return replace(shown, held_s=held_s, flipped=flipped)


class Labels:
    """The labels of all tracks. A track's state ends when the track does.

    A face that is too poor to judge takes no part in its average. It keeps its label for
    `quality_grace_s`, then shows `low_quality`, and goes on where it was when it is good again; one
    that was never good shows `low_quality` at once.
    """

    def __init__(self, settings: SmoothingSettings) -> None:
        self._settings = settings
        self._faces: dict[int, _Face] = {}
        self.flips = 0
        """Shown labels that changed in the last frame; a face's first is no change."""

    def change(self, settings: SmoothingSettings) -> None:
        """Go on by other settings from the next frame on; no face in view is forgotten."""
        self._settings = settings
        for face in self._faces.values():
            face.change(settings)

    def update(
        self, faces: Sequence[FaceEvidence], alive: Collection[int], mono_ns: int
    ) -> list[Shown]:
        """What to show for each of `faces`, in their order, at the frame's monotonic time.

        `alive` are the tracks that have not ended, those out of view among them.
        """
        self._faces = {track: face for track, face in self._faces.items() if track in alive}
        found = []
        for evidence in faces:
            if evidence.track not in self._faces:
                self._faces[evidence.track] = _Face(self._settings)
            found.append(self._faces[evidence.track].update(evidence, mono_ns))
        self.flips = sum(shown.flipped for shown in found)
        return found
