"""Telemetry crosses to a viewer without a change, or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.telemetry import (
    Check,
    FaceResult,
    FeedAddress,
    FrameResult,
    Histogram,
    KpiSnapshot,
    LiveUpdate,
    Totals,
    from_json,
    to_json,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
seven = st.tuples(*[numbers] * 7)
by_name = st.dictionaries(st.text(max_size=5), numbers, max_size=3)
faces = st.builds(
    FaceResult,
    track=st.integers(0), box=st.tuples(*[numbers] * 4), detector_score=numbers,
    probabilities=seven, smoothed=seven, top=st.text(), label=st.text(), confidence=numbers,
    held_s=numbers,
)  # fmt: skip
frames = st.builds(
    FrameResult,
    sequence=st.integers(0), mono_ns=st.integers(0, 2**63), utc_ns=st.integers(0, 2**63),
    width=st.integers(1), height=st.integers(1), faces=st.lists(faces, max_size=3).map(tuple),
    stages_ms=by_name, e2e_ms=numbers, detected=st.booleans(),
)  # fmt: skip
counts = st.integers(0, 2**53)
count_by_name = st.dictionaries(st.text(max_size=5), counts, max_size=3)
histograms = st.builds(
    Histogram, counts=st.lists(counts, max_size=3).map(tuple), sum_ms=numbers
)  # fmt: skip
totals = st.builds(
    Totals,
    e2e=histograms, stages=st.dictionaries(st.text(max_size=5), histograms, max_size=2),
    face_frames=counts, flip_frames=counts, flips=counts, face_s=numbers, labels=count_by_name,
    judged=counts, sure=counts, poor=count_by_name,
)  # fmt: skip
kpis = st.builds(
    KpiSnapshot,
    uptime_s=numbers, frames=st.integers(0), fps=numbers, e2e_ms=by_name,
    stages_ms=st.dictionaries(st.text(max_size=5), by_name, max_size=2), faces=st.integers(0),
    face_rate=numbers, flips_per_minute=numbers,
    drops=st.dictionaries(st.text(max_size=5), st.integers(0), max_size=2), cpu_percent=numbers,
    rss_mb=numbers, camera=st.text(), source=st.text(), detector=st.text(), model=st.text(),
    backend=st.text(), notes=st.lists(st.text(), max_size=2).map(tuple),
    temperature_c=st.one_of(st.none(), numbers), totals=totals,
)  # fmt: skip
updates = st.builds(LiveUpdate, frame=st.one_of(st.none(), frames), kpi=kpis)


def an_update(fps: float = 25.0) -> LiveUpdate:
    """An update with one face."""
    face = FaceResult(
        1, (1.0, 2.0, 3.0, 4.0), 0.9, (1 / 7,) * 7, (1 / 7,) * 7, "sad", "uncertain", 1 / 7, 0.0
    )
    frame = FrameResult(1, 2, 3, 640, 480, (face,), {"detect": 4.0}, 6.0, True)
    kpi = KpiSnapshot(
        1.0, 1, fps, {"p50": 6.0}, {"detect": {"p50": 4.0}}, 1, 1.0, 0.0, {"late": 0}, 80.0, 300.0,
        "live", "demo", "yunet", "student", "openvino", ("a note",),
        (Check("camera", True, "camera live"),), {"reopened": 1},
    )  # fmt: skip
    return LiveUpdate(frame, kpi)


@given(updates)
def test_an_update_comes_back_as_it_was(update: LiveUpdate) -> None:
    text = to_json(update)
    assert from_json(text) == update
    assert json.loads(text)["schema"] == 1


def test_what_comes_back_cannot_be_changed() -> None:
    """Sinks share one object."""
    update = from_json(to_json(an_update()))
    assert update.frame is not None
    assert isinstance(update.frame.faces[0].probabilities, tuple)
    with pytest.raises(dataclasses.FrozenInstanceError):
        update.frame.faces[0].label = "happy"  # type: ignore[misc]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_json_does_not_have_is_refused(value: float) -> None:
    """A browser's parser would end at it."""
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(an_update(fps=value))


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(schema: object) -> None:
    body = {**json.loads(to_json(an_update())), "schema": schema}
    with pytest.raises(ValueError, match="not of schema 1"):
        from_json(json.dumps(body).encode())


def test_the_first_critical_fault_is_why_the_box_is_not_ready() -> None:
    update = an_update()
    checks = (
        Check("camera", True, "camera live"),
        Check("disk", False, "the disk is full", critical=False),
        Check("results", False, "no result for 4 s"),
        Check("model", False, "no model"),
    )
    assert dataclasses.replace(update.kpi, checks=checks[:2]).unready is None
    assert dataclasses.replace(update.kpi, checks=checks).unready == "no result for 4 s"


def _without(body: Any, *path: str | int) -> None:
    for key in path[:-1]:
        body = body[key]
    del body[path[-1]]


@pytest.mark.parametrize(
    "path", [("kpi",), ("frame",), ("kpi", "fps"), ("frame", "faces"), ("frame", "faces", 0, "box")]
)
def test_a_missing_part_is_refused(path: tuple[str | int, ...]) -> None:
    body = json.loads(to_json(an_update()))
    _without(body, *path)
    with pytest.raises(ValueError, match="wrong shape"):
        from_json(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("part", "value"),
    [("e2e_ms", 3), ("e2e_ms", None), ("drops", {"late": "many"}), ("checks", [7]), ("fps", "x")],
)
def test_a_part_of_another_type_is_refused_in_one_line(part: str, value: object) -> None:
    """Whoever reads it counts on the types; the reader's thread must not end on one."""
    body = json.loads(to_json(an_update()))
    body["kpi"][part] = value
    with pytest.raises(ValueError, match=rf"wrong shape: kpi\.{part}") as error:
        from_json(json.dumps(body).encode())
    assert "\n" not in str(error.value)


def test_an_unknown_part_is_refused() -> None:
    body = json.loads(to_json(an_update()))
    body["kpi"]["mood"] = 1
    with pytest.raises(ValueError, match=r"wrong shape: .*mood"):
        from_json(json.dumps(body).encode())


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(frame=json_values, kpi=json_values)
def test_anything_else_is_a_value_error(frame: object, kpi: object) -> None:
    with pytest.raises(ValueError, match="wrong shape"):
        from_json(json.dumps({"schema": 1, "frame": frame, "kpi": kpi}).encode())


@given(st.binary(max_size=40))
def test_bytes_that_are_no_telemetry_are_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # JSON, UTF-8 and schema errors all are
        from_json(text)


def test_the_feeds_sockets_lie_in_its_folder() -> None:
    address = FeedAddress(Path("/run/fer-edge"))
    assert address.live == "ipc:///run/fer-edge/live"
    assert address.control == "ipc:///run/fer-edge/control"
