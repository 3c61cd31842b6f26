"""`fer-edge --camera X`: the loop that runs on the box until it is told to stop."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from contract.errors import UserError
from contract.faces import Image
from contract.session_names import CORRECTIONS_NAME
from contract.telemetry import Check, FeedAddress, FrameResult, KpiSnapshot, LiveUpdate
from edge.cameras.factory import open_camera
from edge.capture import Capture, capture_of
from edge.capture_process import CameraRequest
from edge.corrections import Corrections
from edge.feed import LiveFeed
from edge.health import Health
from edge.kpi import KpiWindow
from edge.live_settings import LiveSettings
from edge.model_card import model_card
from edge.notify import Notifier
from edge.page import DashboardProcess, listen_for
from edge.process_age import process_age_s
from edge.setup import Engine, start_engine
from edge.sinks.links import Link, open_links
from edge.sinks.session_csv import Limits, SessionLog, session_file
from edge.sinks.session_thread import BackgroundLog, ResultSink
from edge.temperature import Thermometer
from firmware_config.profile import Profile

KPI_INTERVAL_S = 1.0
DEMO_SEED = 1337
_FAILED = "failed"
"""Drop reason: a frame whose processing raised an error."""

_UNLOGGED = "not logged"
"""Drop reason: a result that the session log lost, as a disk was full or slow."""

log = logging.getLogger(__name__)


def stop_on_signals(monotonic: Callable[[], float] = time.monotonic) -> threading.Event:
    """An event that SIGINT and SIGTERM set; another SIGINT a second later interrupts as usual.

    Not sooner: a terminal's Ctrl-C and a supervisor's signal may come as a pair.
    """
    stop = threading.Event()
    first: list[float] = []

    def handle(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT and first and monotonic() - first[0] > 1.0:
            raise KeyboardInterrupt
        first.append(monotonic())

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop


def reload_on_hang_up(settings: LiveSettings, stop: threading.Event) -> None:
    """SIGHUP has the profile read again; of a program started in a terminal it is the end."""
    terminal = os.isatty(0) or os.isatty(2)

    def handle(number: int, _: object) -> None:
        if terminal:
            stop.set()
        else:
            settings.reload_asked = True

    signal.signal(signal.SIGHUP, handle)


def _camera_request(profile: Profile) -> CameraRequest:
    """The arguments of `open_camera`, with time zero of a script at the start of the program."""
    wanted = profile.camera
    arguments = {
        "text": wanted.source, "width": wanted.width, "height": wanted.height, "fps": wanted.fps,
        "seed": DEMO_SEED, "controls": wanted.controls.named(), "epoch_s": time.monotonic(),
    }  # fmt: skip
    return CameraRequest(arguments)


def _settings_header(profile: Profile, engine: Engine) -> dict[str, Any]:
    """What a session log says of the settings, which may change while it is written."""
    return {
        "profile": profile.model_dump(mode="json", exclude={"camera": {"source"}}),
        "smoothing": asdict(engine.pipeline.smoothing),
    }


def _session_log(profile: Profile, engine: Engine, camera: str) -> SessionLog | None:
    if not profile.output.session:
        return None
    now = time.time_ns()
    header = {
        **_settings_header(profile, engine),
        "camera": camera,
        "bundle": {
            "name": engine.bundle.info.name,
            "sha256": engine.bundle.sha256,
            "class_thresholds": engine.bundle.info.class_thresholds,
        },
        "backend": engine.chosen.session.backend,
        "precision": engine.chosen.artifact.precision,
        "detector": engine.detector.name,
        "clock": {"mono_ns": time.monotonic_ns(), "utc_ns": now},
    }
    file = session_file(profile.output.session_dir, now)
    return SessionLog(file, header, Limits.of(profile.output))


def _describe(result: FrameResult) -> str:
    faces = [f"person {f.track} {f.label} {f.confidence:.0%}" for f in result.faces]
    return ", ".join(faces) or "no face"


class LiveRun:
    """The state of one run of the loop."""

    def __init__(
        self, engine: Engine, capture: Capture, camera: str,
        session: ResultSink | None, feed: LiveFeed | None, page: DashboardProcess | None,
        *, settings: LiveSettings, links: Sequence[Link] = (), notifier: Notifier | None = None,
        thermometer: Thermometer | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._capture, self._camera = engine, capture, camera
        self._session, self._feed, self._page = session, feed, page
        self._settings, self._profile = settings, settings.profile
        self._links = links
        self._notifier, self._thermometer = notifier or Notifier({}), thermometer
        self._kpi = KpiWindow()
        self._failed: Counter[str] = Counter()
        self._fault: str | None = None
        self._process = psutil.Process()
        self._process.cpu_percent(None)
        self._started = self._measured = time.monotonic()
        self._health = Health(self._started, self._profile.camera.fps)
        self._last: FrameResult | None = None
        self._snapshot = self._measure()
        self.frames_with_faces = 0

    def _notes(self) -> tuple[str, ...]:
        found = list(self._engine.notes)
        if self._capture.state not in ("live", "ended"):
            found.append(self._capture.reason)
        found += self._capture.notes
        found += [note for note in (self._fault, self._settings.note) if note]
        for part in (self._session, self._page, *self._links):
            if part is not None and part.problem:
                found.append(part.problem)
        return tuple(found)

    def _unlogged(self) -> dict[str, int]:
        lost = 0 if self._session is None else self._session.lost
        return {_UNLOGGED: lost} if lost else {}

    def _check(self) -> tuple[Check, ...]:
        engine, health, session = self._engine, self._health, self._session
        model = engine.session
        health.camera(self._capture.state, self._capture.reason, self._capture.supervised)
        health.part(
            "model",
            f"{engine.bundle.info.name}, {model.artifact.precision} on {model.backend}; "
            "its golden check passed",
            "; ".join((*engine.chosen.notes, *model.notes)),
        )
        health.part("detector", engine.detector.name, engine.detector.note)
        health.part("profile", f"{self._profile.name} is in use", self._settings.note)
        if session is not None:
            health.part("session log", "is written", session.problem or "")
        for link in self._links:
            health.part(link.name, "is connected", link.problem or "")
        return health.checks(time.monotonic())

    def _measure(self) -> KpiSnapshot:
        now = time.monotonic_ns()
        kpi, model = self._kpi, self._engine.session
        faces = len(self._last.faces) if self._last else 0
        return KpiSnapshot(
            uptime_s=time.monotonic() - self._started,
            frames=kpi.frames,
            fps=kpi.fps(now),
            e2e_ms=kpi.e2e_ms(now),
            stages_ms=kpi.stages_ms(now),
            faces=faces,
            face_rate=kpi.face_rate(now),
            flips_per_minute=kpi.flips_per_minute(now),
            drops={**self._capture.drops, **self._failed, **self._unlogged()},
            cpu_percent=self._process.cpu_percent(None),
            rss_mb=self._process.memory_info().rss / 2**20,
            camera=self._capture.state,
            source=self._camera,
            detector=self._engine.detector.name,
            model=self._engine.bundle.info.name,
            backend=f"{model.backend} {model.artifact.precision}",
            notes=self._notes(),
            checks=self._check(),
            camera_events=self._capture.events,
            notice=self._profile.notice_text(),
            temperature_c=None if self._thermometer is None else self._thermometer.celsius,
            totals=kpi.totals.snapshot(),
        )

    def _publish(self, result: FrameResult | None, image: Image | None) -> None:
        now = time.monotonic()
        # At once for the first frame, until which the camera counts as waiting, and for a fault.
        news = result is not None and self._kpi.frames == 1
        news |= self._capture.state != self._snapshot.camera
        due = news or now - self._measured >= KPI_INTERVAL_S
        if due:
            self._snapshot, self._measured = self._measure(), now
            for link in self._links:
                link.measured(self._snapshot)
            if self._page is not None:
                self._page.watch()
        if self._feed is not None and (due or result is not None):
            self._feed.put(LiveUpdate(result, self._snapshot), image)
        if due:
            self._notifier.ready()
            self._notifier.status(
                f"not ready: {self._snapshot.unready}" if self._snapshot.unready else "ready"
            )
        if self._health.progressing(now):
            self._notifier.progress()

    def _adjust(self) -> None:
        """Take what has changed of the settings; tracks and their labels stay."""
        settings, engine = self._settings, self._engine
        if settings.reload_asked:
            settings.reload_asked = False
            with suppress(UserError):  # it is logged, and shows as the settings' note
                settings.reload()
        if settings.profile is self._profile:
            return
        self._profile = settings.profile
        before = engine.pipeline.smoothing
        engine.pipeline.change(self._profile.smoothing, self._profile.quality)
        if self._session is not None and engine.pipeline.smoothing != before:
            self._session.change(_settings_header(self._profile, engine))

    def loop(self, stop: threading.Event) -> None:
        """Until the camera's recording ends or `stop` is set."""
        while not stop.is_set():
            self._adjust()
            frame = self._capture.get(0.25)
            if frame is None:
                if self._capture.state == "ended":
                    return
                self._last = None
                self._publish(None, None)
                continue
            self._health.frame(time.monotonic())
            try:
                result = self._engine.pipeline.process(frame)
            except Exception as error:
                # One frame that cannot be processed must not end the loop; it is counted and shown.
                self._failed[_FAILED] += 1
                fault = f"a frame could not be processed: {' '.join(str(error).split())}"
                self._health.failed(fault)
                if fault != self._fault:
                    self._fault = fault
                    log.exception("frame %d could not be processed", frame.sequence)
                self._publish(None, None)
                continue
            self._health.result(time.monotonic())
            if self._session is not None:
                self._session.write(result)
            for link in self._links:
                link.write(result)
            self._kpi.add(result, self._engine.pipeline.flips)
            if self._kpi.frames == 1:
                log.info("first result after %.2f s: %s", process_age_s(), _describe(result))
            self._last = result
            self.frames_with_faces += bool(result.faces)
            self._publish(result, frame.image)

    def summary(self) -> str:
        """One line about the whole run."""
        kpi, now = self._kpi, time.monotonic_ns()
        if not kpi.frames:
            return f"no frame came from {self._camera}"
        e2e = kpi.e2e_ms(now)
        return (
            f"{kpi.frames} frames, a face in {self.frames_with_faces / kpi.frames:.1%} of them, "
            f"{kpi.flips} label changes, end to end p50 {e2e['p50']:.1f} ms, "
            f"p99 {e2e['p99']:.1f} ms"
        )


def run_live(profile: Profile, read: Callable[[], Profile]) -> int:
    """Run until the end of a recording or a signal; returns 0. `read` gives the profile again.

    Raises `UserError` for what the user can mend before anything is shown; later faults degrade.
    """
    stop, settings = stop_on_signals(), LiveSettings(profile, read)
    reload_on_hang_up(settings, stop)
    notifier = Notifier(os.environ)
    with ExitStack() as stack:
        listener = None
        if profile.dashboard.enabled:
            listener = listen_for(profile.dashboard)
            stack.callback(listener.close)
        request = _camera_request(profile)
        camera = open_camera(**request.arguments)
        capture = capture_of(camera, request)
        stack.callback(capture.close)
        if camera.live:
            capture.start()  # it opens while the models load; a recording would wait, and look late
        engine = start_engine(profile)
        stack.callback(engine.chosen.session.close)
        log.info(
            "model %s, %s on %s (%.2f ms a face), detector %s", engine.bundle.info.name,
            engine.chosen.artifact.precision, engine.chosen.session.backend,
            engine.chosen.latency_ms, engine.detector.name,
        )  # fmt: skip
        for note in engine.notes:
            log.warning("%s", note)
        session, corrections = None, None
        written = _session_log(profile, engine, camera.name)
        if written is not None:
            session = BackgroundLog(written)
            stack.callback(session.close)
            log.info("session log: %s", written.file)
            corrections = Corrections(written.file.with_name(CORRECTIONS_NAME), written.file.name)
        feed, page = None, None
        if listener is not None:
            folder = Path(tempfile.mkdtemp(prefix="fer-edge-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            feed = LiveFeed(
                FeedAddress(folder),
                settings=settings,
                model=model_card(engine.bundle, engine.chosen),
                corrections=corrections,
            ).start()
            stack.callback(feed.close)
            sessions = profile.output.session_dir if profile.output.session else None
            page = DashboardProcess(listener, folder, sessions=sessions, config=profile.dashboard)
            page.start()
            stack.callback(page.stop)
            log.info("dashboard: %s", page.url)
        if not camera.live:
            capture.start()
        thermometer = Thermometer()
        stack.callback(thermometer.close)
        links = open_links(profile)
        for link in links:
            stack.callback(link.close)
        run = LiveRun(
            engine, capture, camera.name, session, feed, page,
            settings=settings, links=links, notifier=notifier, thermometer=thermometer,
        )  # fmt: skip
        stack.callback(notifier.stopping)  # said first when it ends
        run.loop(stop)
        log.info("%s", run.summary())
    return 0
