"""What every way of running shares: bundle, session, detector and pipeline from a profile."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from contract.bundle import Bundle
from contract.errors import UserError
from edge.bundles import bundle_for_box
from edge.cameras.base import Frame
from edge.detect import Detector, make_detector
from edge.pipeline import Pipeline, smoothing_settings
from firmware_config.profile import Profile
from runtime.choose import Chosen, choose


def cache_folder() -> Path:
    """Where measured choices and compiled models are kept between starts."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fer-edge"


@dataclass(frozen=True)
class Engine:
    """An opened bundle with its chosen session, the detector, and the pipeline over them."""

    bundle: Bundle
    chosen: Chosen
    detector: Detector
    pipeline: Pipeline
    bundle_note: str = ""
    """Why the built-in bundle runs and not the installed one, or empty."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for everything that is not as it should be."""
        notes = (self.bundle_note, *self.chosen.notes, self.detector.note)
        return tuple(note for note in notes if note)


def start_engine(profile: Profile) -> Engine:
    """Everything opened, checked and warmed up. Raises `UserError` for what the user can mend."""
    cv2.setNumThreads(profile.runtime.threads)
    bundle, bundle_note = bundle_for_box(profile.runtime.bundle)
    detector = make_detector(profile.detector.kind)
    if detector.name not in bundle.info.input.crop:
        known = " ".join(bundle.info.input.crop) or "none"
        raise UserError(
            f"{bundle.folder}: no crop was measured for detector '{detector.name}' "
            f"(has: {known}); choose another detector or export the bundle with its crop"
        )
    runtime = profile.runtime
    chosen = choose(bundle, threads=runtime.threads, backend=runtime.backend, cache=cache_folder())
    pipeline = Pipeline(
        bundle=bundle,
        session=chosen.session,
        detector=detector,
        smoothing=smoothing_settings(profile.smoothing, bundle),
        detect_interval_s=profile.detector.interval_s,
    )
    _warm_up(profile, chosen, pipeline, bundle)
    return Engine(bundle, chosen, detector, pipeline, bundle_note)


def _warm_up(profile: Profile, chosen: Chosen, pipeline: Pipeline, bundle: Bundle) -> None:
    """First calls allocate and compile; they must not be the first frame's latency."""
    face = bundle.info.input
    chosen.session.run(np.zeros((1, face.size, face.size, face.channels), np.uint8))
    grey = np.full((profile.camera.height, profile.camera.width, 3), 128, np.uint8)
    pipeline.process(Frame(grey, 0, 0, 0))
