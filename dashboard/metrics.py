"""What Prometheus scrapes: the box's own totals, so that any scraper can have its own rates.

The text is written by prometheus-client (extra `fleet`). Names and base units follow Prometheus'
conventions: seconds, bytes, ratios; `fer_..._total` counts since the start of the program.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify
from flask.typing import ResponseReturnValue

from contract.expressions import EXPRESSIONS, LOW_QUALITY, UNCERTAIN
from contract.telemetry import LATENCY_BOUNDS_MS, Histogram, KpiSnapshot
from dashboard.feed import STALE_AFTER_S, Feed
from dashboard.openapi import documented

Metric = Any
"""One of prometheus-client, which a base install does not have."""
MISSING = "metrics need prometheus-client; install it with: pip install 'fer-edge[fleet]'"
POOR = ("too small", "turned away", "too dark", "too bright", "blurred")
"""Reasons a face is not judged for that always have a series, so that the first one is a rise."""
_BOUNDS_S = (*(str(bound / 1000) for bound in LATENCY_BOUNDS_MS), "+Inf")
_Value = TypeVar("_Value")


def metrics_page(feed: Feed) -> Blueprint:
    """`/metrics` of the box behind `feed`; 501 with the mend where the extra is not installed."""
    page = Blueprint("metrics", __name__)

    @page.get("/metrics")
    @documented(content="text/plain")
    def metrics() -> ResponseReturnValue:
        """The box's metrics in the text form of Prometheus."""
        try:
            from prometheus_client.exposition import choose_encoder
        except ImportError:
            return jsonify(error=MISSING), 501
        encode, content_type = choose_encoder("")  # the plain form, which every scraper reads
        return Response(encode(BoxMetrics(feed)), content_type=content_type)

    return page


class BoxMetrics:
    """The newest telemetry as metrics; of a box that is silent only that it is."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def collect(self) -> Iterable[Metric]:
        """Every metric, as prometheus-client asks a collector for them."""
        reading, age_s = self._feed.telemetry.get(), self._feed.age_s()
        up = reading is not None and age_s is not None and age_s <= STALE_AFTER_S
        yield _gauge("fer_up", "Whether telemetry of the box comes.", {(): up})
        if age_s is not None:
            yield _gauge("fer_telemetry_age_seconds", "Age of the newest telemetry.", {(): age_s})
        ready = up and reading is not None and reading.update.kpi.unready is None
        yield _gauge("fer_ready", "Whether the box does its work, as /readyz says.", {(): ready})
        if up and reading is not None:
            yield from _box(reading.update.kpi)
            yield from _counters(reading.update.kpi)
            yield from _histograms(reading.update.kpi)


def _box(kpi: KpiSnapshot) -> Iterable[Metric]:
    """What the box is and does now."""
    what = ("model", "backend", "detector", "source")
    names = (kpi.model, kpi.backend, kpi.detector, kpi.source)
    yield _gauge("fer_box_info", "What runs on the box.", {names: 1}, what)
    checks: dict[tuple[str, ...], float] = {
        (check.name, str(check.critical).lower()): check.ok for check in kpi.checks
    }
    yield _gauge(
        "fer_check_ok", "Whether a check of /readyz is fine.", checks, ("check", "critical")
    )
    yield _gauge(
        "fer_camera_state", "1 for what the camera does now.", {(kpi.camera,): 1}, ("state",)
    )
    yield _gauge("fer_uptime_seconds", "Since the start of the program.", {(): kpi.uptime_s})
    yield _gauge("fer_faces_in_view", "Faces in the newest frame.", {(): kpi.faces})
    yield _gauge("fer_frames_per_second", "Frames over the last ten seconds.", {(): kpi.fps})
    yield _gauge("fer_cpu_ratio", "Processor time used, in cores.", {(): kpi.cpu_percent / 100})
    memory = kpi.rss_mb * 2**20
    yield _gauge("fer_resident_memory_bytes", "Memory of the pipeline's process.", {(): memory})
    if kpi.temperature_c is not None:
        yield _gauge("fer_temperature_celsius", "Of the processor.", {(): kpi.temperature_c})


def _counters(kpi: KpiSnapshot) -> Iterable[Metric]:
    """What was counted since the start of the program."""
    totals = kpi.totals
    labels = dict.fromkeys((*EXPRESSIONS, UNCERTAIN, LOW_QUALITY), 0)
    yield _counter("fer_frames_total", "Frames with a result.", {(): kpi.frames})
    yield _counter(
        "fer_dropped_frames_total", "Frames lost, by reason.", _by_name(kpi.drops), ("reason",)
    )
    yield _counter(
        "fer_camera_events_total", "What happened to the camera; reopened: reconnected.",
        _by_name({"reopened": 0, **kpi.camera_events}), ("event",),
    )  # fmt: skip
    yield _counter("fer_face_frames_total", "Frames with a face.", {(): totals.face_frames})
    yield _counter(
        "fer_flip_frames_total", "Frames in which a shown label changed.", {(): totals.flip_frames}
    )
    yield _counter("fer_flips_total", "Changes of shown labels.", {(): totals.flips})
    yield _counter(
        "fer_face_seconds_total", "Time that faces were in view, summed over the faces.",
        {(): totals.face_s},
    )  # fmt: skip
    yield _counter(
        "fer_faces_total", "Faces in frames, by the label shown.",
        _by_name({**labels, **totals.labels}), ("label",),
    )  # fmt: skip
    yield _counter(
        "fer_judged_faces_total", "Faces in frames that were good enough to judge.",
        {(): totals.judged},
    )  # fmt: skip
    yield _counter(
        "fer_sure_faces_total", "Judged faces with a confidence above 0.95.", {(): totals.sure}
    )
    yield _counter(
        "fer_poor_faces_total", "Faces in frames too poor to judge, by reason.",
        _by_name({**dict.fromkeys(POOR, 0), **totals.poor}), ("reason",),
    )  # fmt: skip


def _histograms(kpi: KpiSnapshot) -> Iterable[Metric]:
    """Latencies since the start of the program."""
    yield _latency(
        "fer_end_to_end_seconds", "From the return of the camera's read to the result.",
        {(): kpi.totals.e2e},
    )  # fmt: skip
    stages = _by_name(kpi.totals.stages)
    yield _latency("fer_stage_seconds", "What a stage took of a frame.", stages, ("stage",))


def _by_name(values: Mapping[str, _Value]) -> dict[tuple[str, ...], _Value]:
    return {(name,): value for name, value in values.items()}


def _metric(
    kind: str, name: str, meaning: str, values: Mapping[tuple[str, ...], float],
    labels: tuple[str, ...] = (),
) -> Metric:  # fmt: skip
    """A metric with a sample for each key of `values`, which holds the values of `labels`."""
    from prometheus_client.metrics_core import Metric as Family

    metric = Family(name.removesuffix("_total"), meaning, kind)
    for key, value in values.items():
        metric.add_sample(name, dict(zip(labels, key, strict=True)), float(value))
    return metric


_gauge = partial(_metric, "gauge")
_counter = partial(_metric, "counter")


def _latency(
    name: str, meaning: str, values: Mapping[tuple[str, ...], Histogram],
    labels: tuple[str, ...] = (),
) -> Metric:  # fmt: skip
    metric = _metric("histogram", name, meaning, {})
    for key, value in values.items():
        own = dict(zip(labels, key, strict=True))
        for bound, count in zip(_BOUNDS_S, accumulate(value.counts), strict=True):
            metric.add_sample(f"{name}_bucket", {**own, "le": bound}, count)
        metric.add_sample(f"{name}_count", own, sum(value.counts))
        metric.add_sample(f"{name}_sum", own, value.sum_ms / 1000)
    return metric
