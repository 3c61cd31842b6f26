"""What goes out over MQTT has a form that is written down, and Home Assistant's."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contract.telemetry import Check
from edge.sinks.home_assistant import announcement, discovery_topic
from edge.sinks.mqtt_messages import Topics, event_message, schema, state_message, utc_text
from edge.sinks.track_events import TrackEvent
from tests.edge.results import a_face, a_kpi

SCHEMA = Path(__file__).parents[2] / "firmware_config" / "fleet" / "mqtt_schema.json"
EVENT = TrackEvent("changed", 3, "happy", "sad", 0.81239, 12.3456, 1_700_000_000_123_456_789)


def checked(kind: str, body: str) -> dict[str, Any]:
    """The payload, after it was held against the committed schema."""
    committed = json.loads(SCHEMA.read_text())
    value: dict[str, Any] = json.loads(body)
    jsonschema.validate(value, {**committed, "$ref": f"#/$defs/{kind}"})
    return value


def test_the_committed_schema_is_that_of_the_program() -> None:
    """Receivers rely on it: a change needs a new version, and the command in mqtt_messages."""
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))


def test_every_key_is_described() -> None:
    models = json.loads(SCHEMA.read_text())["$defs"]
    assert {"EventMessage", "StateMessage", "Person"} == set(models)
    for model in models.values():
        assert all("description" in key for key in model["properties"].values())
        assert set(model["required"]) == set(model["properties"])


def test_an_event_as_it_is_sent() -> None:
    message = event_message(EVENT, box="one", run="2026-01-01T00:00:00.000Z", sequence=7)
    assert checked("EventMessage", message.model_dump_json()) == {
        "version": 1, "box": "one", "time": "2023-11-14T22:13:20.123Z",
        "run": "2026-01-01T00:00:00.000Z", "sequence": 7, "event": "changed", "track": 3,
        "label": "happy", "previous": "sad", "confidence": 0.8124, "in_view_s": 12.346,
    }  # fmt: skip


def test_a_state_as_it_is_sent() -> None:
    kpi = a_kpi(checks=(Check("camera", False, "camera lost: gone"),), drops={"overtaken": 2})
    faces = (a_face(4, label="sad", confidence=1 + 1e-15), a_face(9, label="uncertain"))
    message = state_message(kpi, faces, box="one", utc_ns=EVENT.utc_ns, events_lost=5)
    found = checked("StateMessage", message.model_dump_json())
    assert (found["ready"], found["reason"]) == (False, "camera lost: gone")
    assert [(p["track"], p["label"]) for p in found["people"]] == [(4, "sad"), (9, "uncertain")]
    assert found["people"][0]["confidence"] == 1.0
    assert (found["temperature_c"], found["events_lost"]) == (None, 5)
    assert (found["drops"], found["e2e_p99_ms"]) == ({"overtaken": 2}, 12.0)
    ready = state_message(replace(kpi, checks=()), (), box="one", utc_ns=0, events_lost=0)
    assert checked("StateMessage", ready.model_dump_json())["ready"] is True


def test_no_picture_nor_place_of_a_face_is_sent() -> None:
    """A box in an image says where somebody stands; nobody who listens needs it."""
    assert not {"box_pixels", "image", "jpeg", "probabilities"} & set(
        re.findall(r'"(\w+)":', SCHEMA.read_text())
    )
    message = state_message(a_kpi(), (a_face(1),), box="one", utc_ns=0, events_lost=0)
    assert set(message.people[0].model_dump()) == {"track", "label", "confidence", "held_s"}


@pytest.mark.parametrize(
    ("utc_ns", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_767_225_599_999_000_000, "2025-12-31T23:59:59.999Z")],
)
def test_times_are_utc(utc_ns: int, text: str) -> None:
    assert utc_text(utc_ns) == text


def test_home_assistant_is_told_what_its_discovery_needs() -> None:
    topics = Topics("site/fer", "one")
    assert discovery_topic("homeassistant", "one") == "homeassistant/device/fer_one/config"
    body = announcement(topics, "1.2.3")
    assert body["device"]["identifiers"] == ["fer_one"]
    assert body["state_topic"] == "site/fer/one/state"
    assert body["availability_topic"] == "site/fer/one/availability"
    assert body["origin"]["name"]
    parts = body["components"].values()
    assert all(part["platform"] in ("sensor", "binary_sensor") for part in parts)
    ids = [part["unique_id"] for part in parts]
    assert len(set(ids)) == len(ids) and all(name.startswith("fer_one_") for name in ids)


def test_home_assistant_reads_only_keys_that_the_state_has() -> None:
    state = json.loads(SCHEMA.read_text())["$defs"]["StateMessage"]["properties"]
    for name, part in announcement(Topics("fer", "one"), "1")["components"].items():
        used = re.findall(r"value_json\.(\w+)", part["value_template"])
        assert used and set(used) <= set(state), name
