"""What every way of running shares: bundle, session, detector and pipeline from a profile."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from contract.bundle import Bundle
from contract.errors import UserError
from edge.bundles import bundle_for_box
from edge.cameras.base import Frame
from edge.detect import Detector, make_detector
from edge.pipeline import Pipeline, smoothing_settings
from edge.quality import QualityGate
from edge.schedule import DetectorSchedule
from firmware_config.profile import Profile
from runtime.choose import Chosen, choose
from runtime.fallback import FallbackSession
from runtime.session import BACKENDS

CACHE_BYTES = 256 * 2**20
"""Room for the compiled models of several bundles."""


def cache_folder() -> Path:
    """Where measured choices and compiled models are kept between starts."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fer-edge"


def bound_cache(folder: Path, most_bytes: int = CACHE_BYTES) -> None:
    """Delete the oldest compiled models beyond `most_bytes`; OpenVINO itself deletes none.

    One that is missed is compiled again, which takes a fraction of a second.
    """
    with suppress(OSError):  # a cache that cannot be tidied is still a cache
        found = [(blob.stat(), blob) for blob in (folder / "openvino").glob("*.blob")]
        kept = 0
        for stat, blob in sorted(found, key=lambda each: each[0].st_mtime_ns, reverse=True):
            kept += stat.st_size
            if kept > most_bytes:
                blob.unlink()


@dataclass(frozen=True)
class Engine:
    """An opened bundle with its chosen session, the detector, and the pipeline over them."""

    bundle: Bundle
    chosen: Chosen
    """What was chosen at the start; its session is `session`."""
    session: FallbackSession
    """The model at work, which changes when a runtime fails."""
    detector: Detector
    pipeline: Pipeline
    bundle_note: str = ""
    """Why the built-in bundle runs and not the installed one, or empty."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for everything that is not as it should be."""
        session = self.session
        notes = (self.bundle_note, *self.chosen.notes, *session.notes, self.detector.note)
        return tuple(note for note in notes if note)


def start_engine(profile: Profile) -> Engine:
    """Everything opened, checked and warmed up. Raises `UserError` for what the user can mend."""
    # OpenCV's share of a frame is too small to divide: its threads would only wake up and wait.
    cv2.setNumThreads(1)
    bundle, bundle_note = bundle_for_box(profile.runtime.bundle)
    cache, wanted = cache_folder(), profile.detector
    bound_cache(cache)
    detector = make_detector(
        wanted.kind,
        detect_size=wanted.size,
        score_threshold=wanted.score_threshold,
        threads=wanted.threads,
        cache=cache / "openvino",
    )
    if detector.name not in bundle.info.input.crop:
        known = " ".join(bundle.info.input.crop) or "none"
        raise UserError(
            f"{bundle.folder}: no crop was measured for detector '{detector.name}' "
            f"(has: {known}); choose another detector or export the bundle with its crop"
        )
    runtime = profile.runtime
    chosen = choose(
        bundle,
        threads=runtime.threads,
        backend=runtime.backend,
        device=runtime.device,
        cache=cache,
    )
    session = FallbackSession(
        bundle,
        chosen,
        threads=runtime.threads,
        backends=BACKENDS if runtime.backend == "auto" else (runtime.backend,),
        models=cache / "openvino",
    )
    chosen = replace(chosen, session=session)
    pipeline = Pipeline(
        bundle=bundle,
        session=session,
        detector=detector,
        smoothing=smoothing_settings(profile.smoothing, bundle),
        schedule=DetectorSchedule(wanted.schedule, wanted.interval_s),
        quality=QualityGate(profile.quality),
    )
    _warm_up(profile, session, pipeline, bundle)
    return Engine(bundle, chosen, session, detector, pipeline, bundle_note)


def _warm_up(
    profile: Profile, session: FallbackSession, pipeline: Pipeline, bundle: Bundle
) -> None:
    """First calls allocate and compile; they must not be the first frame's latency."""
    face, most = bundle.info.input, profile.runtime.warm_faces
    session.prepare(most)
    for count in range(1, most + 1):
        session.run(np.zeros((count, face.size, face.size, face.channels), np.uint8))
    grey = np.full((profile.camera.height, profile.camera.width, 3), 128, np.uint8)
    pipeline.process(Frame(grey, 0, 0, 0))
