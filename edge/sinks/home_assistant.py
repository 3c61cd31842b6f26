"""How a box appears in Home Assistant by itself: MQTT discovery of a device and its entities.

The form is that of Home Assistant's documentation, "MQTT discovery", device discovery (2024.11 and
newer): one retained message names the device and everything that is to be read from its state.
"""

from typing import Any

from edge.sinks.mqtt_messages import OFFLINE, ONLINE, Topics

DIAGNOSTIC = {"entity_category": "diagnostic"}
ENTITIES: dict[str, dict[str, Any]] = {
    "people": {
        "platform": "sensor", "name": "People in view", "icon": "mdi:account-group",
        "state_class": "measurement", "value_template": "{{ value_json.people | count }}",
    },
    "expressions": {
        "platform": "sensor", "name": "Expressions", "icon": "mdi:emoticon-outline",
        # A state of Home Assistant has at most 255 characters.
        "value_template": "{{ (value_json.people | map(attribute='label') | join(', '))[:255] "
        "or 'nobody' }}",
    },
    "occupancy": {
        "platform": "binary_sensor", "name": "Somebody in view", "device_class": "occupancy",
        "value_template": "{{ 'ON' if value_json.people else 'OFF' }}",
    },
    "problem": {
        "platform": "binary_sensor", "name": "Problem", "device_class": "problem",
        "value_template": "{{ 'OFF' if value_json.ready else 'ON' }}", **DIAGNOSTIC,
    },
    "reason": {
        "platform": "sensor", "name": "Reason", "icon": "mdi:alert-circle-outline",
        "value_template": "{{ (value_json.reason or 'ready')[:255] }}", **DIAGNOSTIC,
    },
    "camera": {
        "platform": "sensor", "name": "Camera", "icon": "mdi:webcam",
        "value_template": "{{ value_json.camera }}", **DIAGNOSTIC,
    },
    "fps": {
        "platform": "sensor", "name": "Frame rate", "icon": "mdi:speedometer",
        "state_class": "measurement", "unit_of_measurement": "fps",
        "value_template": "{{ value_json.fps }}", **DIAGNOSTIC,
    },
    "latency": {
        "platform": "sensor", "name": "Latency p99", "device_class": "duration",
        "state_class": "measurement", "unit_of_measurement": "ms",
        "value_template": "{{ value_json.e2e_p99_ms }}", **DIAGNOSTIC,
    },
    "temperature": {
        "platform": "sensor", "name": "Processor temperature", "device_class": "temperature",
        "state_class": "measurement", "unit_of_measurement": "°C",
        "value_template": "{{ value_json.temperature_c }}", **DIAGNOSTIC,
    },
}  # fmt: skip
"""What is shown of a box, by the last part of its unique id."""


def discovery_topic(prefix: str, box: str) -> str:
    """Where Home Assistant looks for the announcement of a box."""
    return f"{prefix}/device/fer_{box}/config"


def announcement(topics: Topics, version: str) -> dict[str, Any]:
    """The announcement of a box that runs `version` of this program."""
    box = topics.box
    return {
        "device": {
            "identifiers": [f"fer_{box}"], "name": box, "manufacturer": "fer-edge",
            "model": "Facial-expression box", "sw_version": version,
        },
        "origin": {"name": "fer-edge", "sw_version": version},
        "components": {
            key: {**entity, "unique_id": f"fer_{box}_{key}"} for key, entity in ENTITIES.items()
        },
        "state_topic": topics.state,
        "availability_topic": topics.availability,
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "qos": 1,
    }  # fmt: skip
